//! `deadletters`: what an operator does with events that were given up, also while the system runs.
//!
//! The invariant: a letter is shown as one JSON line on standard output; how many there were, and what
//! became of them, stands on standard error.

use std::process::ExitCode;
use std::time::Duration;

use api::Letter;
use broker::{Broker, Fate, LetterCursor, LetterQuery, Reach, Selection};
use clap::Subcommand;
use config::Settings;
use domain::Cause;
use engine::service::{Failure, block_on};
use runtime::{Shutdown, Tasks};

use crate::say::{print, refuse, summary};

/// As far as anybody wants to go at once; RabbitMQ closes the channel on which letters are held for 30 min.
const TIME: Duration = Duration::from_mins(25);
const REACH: Reach = Reach { letters: usize::MAX, within: TIME };

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Show the oldest, one JSON line each.
    List(List),
    /// Show one with its body, as a JSON line.
    Show {
        /// Its id.
        id: String,
    },
    /// Process some again, their attempts starting anew.
    Replay(Which),
    /// Drop some for good.
    Drop(Which),
}

#[derive(clap::Args)]
pub(crate) struct List {
    /// Only those of this cause.
    #[arg(long, value_parser = cause)]
    cause: Option<Cause>,
    /// How many, 1 to 1000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// What follows the page that ended there.
    #[arg(long, value_parser = cursor)]
    after: Option<LetterCursor>,
    /// JSON lines, which is what is printed anyway.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// Those with these ids.
    ids: Vec<String>,
    /// All of this cause.
    #[arg(long, value_parser = cause)]
    cause: Option<Cause>,
    /// All there are.
    #[arg(long)]
    all: bool,
}

fn cause(label: &str) -> Result<Cause, String> {
    let known = || Cause::ALL.map(Cause::as_str).join(", ");
    Cause::parse(label).ok_or_else(|| format!("must be one of {}", known()))
}

fn cursor(text: &str) -> Result<LetterCursor, String> {
    text.parse().map_err(|()| "is not one of ours".to_owned())
}

/// Does it; exit code 0 also when there was nothing to do, but 2 when what should be shown is not there.
pub(crate) fn run(settings: &Settings, action: &Action) -> ExitCode {
    let mut missing = None;
    let ended = block_on(settings, async {
        let tasks = Tasks::new(Shutdown::new());
        let broker = engine::visit_broker(settings, &tasks).await?;
        let done = act(&broker, action).await;
        tasks.shutdown().request();
        broker.close().await;
        if let (false, Action::Show { id }) = (done?, action) {
            missing = Some(refuse(&format!("there is no dead letter {id}")));
        }
        Ok(())
    });
    missing.unwrap_or(ended)
}

/// False: what should be shown is not there.
async fn act(broker: &Broker, action: &Action) -> Result<bool, Failure> {
    match action {
        Action::List(wanted) => list(broker, wanted).await?,
        Action::Show { id } => return show(broker, id).await,
        Action::Replay(which) => sweep(broker, which, Fate::Replay).await?,
        Action::Drop(which) => sweep(broker, which, Fate::Drop).await?,
    }
    Ok(true)
}

async fn list(broker: &Broker, wanted: &List) -> Result<(), Failure> {
    let query =
        LetterQuery { cause: wanted.cause, after: wanted.after.clone(), limit: wanted.limit.into(), within: TIME };
    let page = broker.dead_letters(&query).await?;
    for letter in &page.letters {
        print(&serde_json::to_string(&Letter::brief(letter))?)?;
    }
    let more = page.next.map_or_else(String::new, |next| format!("; there are more: --after {next}"));
    summary(&format!("{}{more}", counted(page.letters.len() as u64)));
    Ok(())
}

/// False: there is none.
async fn show(broker: &Broker, id: &str) -> Result<bool, Failure> {
    let Some(letter) = broker.dead_letter(id, TIME).await? else { return Ok(false) };
    print(&serde_json::to_string(&Letter::whole(&letter))?)?;
    Ok(true)
}

async fn sweep(broker: &Broker, which: &Which, fate: Fate) -> Result<(), Failure> {
    let swept = broker.sweep(&which.selection(), fate, REACH).await?;
    let done = if fate == Fate::Replay { "replayed" } else { "dropped" };
    let more = if swept.more { "; there may be more" } else { "" };
    summary(&format!("{} {done}{more}", counted(swept.count)));
    Ok(())
}

fn counted(letters: u64) -> String {
    format!("{letters} dead letter{}", if letters == 1 { "" } else { "s" })
}

impl Which {
    fn selection(&self) -> Selection {
        match self.cause {
            Some(cause) => Selection::Cause(cause),
            None if self.all => Selection::All,
            None => Selection::Ids(self.ids.clone()),
        }
    }
}
