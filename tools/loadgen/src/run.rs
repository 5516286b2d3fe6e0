//! A whole run: threads, steps, progress, report.
//!
//! The invariant: every wait has an end, and every thread ends with the run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use runtime::tasks::blocking;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::LocalSet;
use tokio::time::{Instant, interval, sleep};

use crate::book::{Book, Counts, Fate, Window, now_us};
use crate::judge::judge;
use crate::modes::{self, Span};
use crate::net::Target;
use crate::options::{Mode, Options};
use crate::processes::{Usage, Watched, usage};
use crate::progress::Progress;
use crate::report::{Course, Latency, RunReport, Share, StepReport, merged};
use crate::seen::Seen;
use crate::standings::Standings;
use crate::worker::{Setting, Worker};

/// Rows of a course, at most.
const ROWS: f64 = 200.0;

/// How long a server is left alone when all are connected.
const SETTLES: Duration = Duration::from_secs(1);
/// The same where presence is about to change: a server tells a change a second late.
const PRESENCE_SETTLES: Duration = Duration::from_secs(3);

/// What a thread is told to do.
#[derive(Debug, Clone)]
enum Order {
    Open { per_second: f64 },
    Step { span: Span, window: Window, drain: Duration },
    Close,
}

/// What it answers.
enum Reply {
    Done(Box<Book>),
    Closed { fates: HashMap<u32, Vec<Fate>>, seen: Vec<(u32, HashMap<u32, Seen>)> },
}

struct Thread {
    orders: UnboundedSender<Order>,
    replies: UnboundedReceiver<Reply>,
    handle: std::thread::JoinHandle<()>,
}

/// The run as its owner sees it.
struct Conductor {
    setting: Arc<Setting>,
    threads: Vec<Thread>,
    watched: Vec<Watched>,
    before: Vec<Usage>,
    options: Options,
}

/// Runs all steps; the report.
pub(crate) async fn run(options: Options) -> anyhow::Result<RunReport> {
    let setting = Arc::new(setting(&options).await?);
    let mut watched = options.common.process.clone();
    watched.push(Watched { name: "generator".to_owned(), pid: std::process::id() });
    let before = usage(&watched);
    let threads = (0..setting.threads).map(|index| start(&setting, &options, index)).collect::<Result<_, _>>()?;
    let mut conductor = Conductor { setting, threads, watched, before, options };
    let opening = conductor.open().await;
    let mut steps = Vec::new();
    for rate in conductor.options.mode.rates() {
        let mut step = conductor.step(rate).await;
        if steps.is_empty() && step.openings.count == 0 {
            step.openings = Latency::from(&opening.openings);
        }
        Conductor::say(&step);
        let is_kept = step.is_kept;
        steps.push(step);
        if !is_kept {
            break;
        }
    }
    conductor.finish(steps).await
}

async fn setting(options: &Options) -> anyhow::Result<Setting> {
    let common = &options.common;
    let cast = options.cast()?;
    let mut targets = Vec::new();
    for url in &common.url {
        targets.push(Target::resolve(url).await?);
    }
    let listeners = (0..cast.rooms).map(|room| cast.listeners(room)).collect();
    let standings = matches!(options.mode, Mode::Presence { .. }).then(|| Standings::new(cast.connections));
    Ok(Setting {
        dialect: options.dialect(),
        targets,
        run: rand::random(),
        text_bytes: common.bytes,
        threads: common.threads.min(cast.connections),
        comes_back: matches!(options.mode, Mode::Reconnect { .. }),
        counts: Counts::default(),
        standings,
        listeners,
        complaints: AtomicU64::new(0),
        cast,
    })
}

fn start(setting: &Arc<Setting>, options: &Options, index: u32) -> anyhow::Result<Thread> {
    let (orders, inbox) = mpsc::unbounded_channel();
    let (outbox, replies) = mpsc::unbounded_channel();
    let (setting, mode) = (Arc::clone(setting), options.mode.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || LocalSet::new().block_on(&runtime, obey(setting, mode, index, inbox, outbox));
    let handle = std::thread::Builder::new().name(format!("load-{index}")).spawn(work)?;
    Ok(Thread { orders, replies, handle })
}

/// A thread's life.
async fn obey(
    setting: Arc<Setting>,
    mode: Mode,
    index: u32,
    mut orders: UnboundedReceiver<Order>,
    replies: UnboundedSender<Reply>,
) {
    let worker = Worker::new(setting, index);
    let no_window = Window { start: 0, end: 0, row: 1 };
    while let Some(order) = orders.recv().await {
        let reply = match order {
            Order::Open { per_second } => {
                worker.open_all(per_second / f64::from(worker.threads)).await;
                Reply::Done(Box::new(worker.turn_page(no_window)))
            }
            Order::Step { span, window, drain } => {
                worker.turn_page(window);
                act(&worker, &mode, span).await;
                let deadline = Instant::now() + drain;
                while Instant::now() < deadline && !worker.counts.is_settled() {
                    sleep(Duration::from_millis(5)).await;
                }
                Reply::Done(Box::new(worker.turn_page(no_window)))
            }
            Order::Close => {
                worker.close_all().await;
                let fates = std::mem::take(&mut worker.book.borrow_mut().fates);
                Reply::Closed { fates, seen: worker.seen() }
            }
        };
        if replies.send(reply).is_err() {
            return;
        }
    }
}

async fn act(worker: &std::rc::Rc<Worker>, mode: &Mode, span: Span) {
    let share = |all: u32| all.div_ceil(worker.threads) as usize;
    match mode {
        Mode::Idle => modes::sleep_until_us(span.end).await,
        Mode::Chat { .. } => modes::chat(worker, span, usize::MAX).await,
        Mode::Fanout { senders, .. } => modes::chat(worker, span, share(*senders)).await,
        Mode::Presence { .. } => modes::presence(worker, span).await,
        Mode::Connect { .. } => modes::connects(worker, span).await,
        Mode::Reconnect { steady, spread, .. } => {
            let storm = async {
                // The storm breaks out a third into the window.
                modes::sleep_until_us(span.start + (span.end - span.start) / 3).await;
                modes::reconnect(worker, share(*steady), Duration::from_secs_f64(*spread)).await;
            };
            tokio::join!(modes::chat(worker, span, share(*steady)), storm);
        }
    }
}

impl Conductor {
    async fn open(&mut self) -> Book {
        let per_second = self.options.common.open_rate;
        self.order(&Order::Open { per_second });
        let books = self.replies("connecting").await;
        sleep(if self.setting.standings.is_some() { PRESENCE_SETTLES } else { SETTLES }).await;
        merged(books).expect("there is at least one thread")
    }

    fn order(&self, order: &Order) {
        for thread in &self.threads {
            // One that is gone is noticed by its missing reply.
            let _ = thread.orders.send(order.clone());
        }
    }

    /// Waits for all threads, and shows how it goes meanwhile.
    async fn replies(&mut self, what: &str) -> Vec<Book> {
        let mut progress = Progress::new(what);
        let mut tick = interval(Duration::from_secs(1));
        let (setting, threads) = (&self.setting, &mut self.threads);
        let all = async {
            let mut books = Vec::new();
            for thread in threads {
                if let Some(Reply::Done(book)) = thread.replies.recv().await {
                    books.push(*book);
                }
            }
            books
        };
        tokio::pin!(all);
        loop {
            tokio::select! {
                books = &mut all => break books,
                _ = tick.tick() => progress.show(&setting.counts),
            }
        }
    }

    async fn step(&mut self, rate: f64) -> StepReport {
        let common = &self.options.common;
        let start = now_us() + 100_000;
        let begin = start + (common.warmup * 1e6) as u64;
        let end = begin + self.options.window().as_micros() as u64;
        let row = ((common.seconds / ROWS).max(1.0) * 1e6) as u64;
        let window = Window { start: begin, end, row };
        let drain = Duration::from_secs_f64(common.drain);
        let counts_before = Tally::of(&self.setting.counts);
        self.order(&Order::Step { span: Span { start, end, rate }, window, drain });
        let sampling = sample(self.watched.clone(), window);
        let what = format!("{} {rate}/s", self.options.mode.name());
        let (books, usage) = tokio::join!(self.replies(&what), sampling);
        let tally = Tally::of(&self.setting.counts).since(&counts_before);
        let book = merged(books).expect("there is at least one thread");
        self.report(rate, window, book, usage, &tally)
    }

    fn report(&self, rate: f64, window: Window, book: Book, usage: Vec<Vec<Usage>>, tally: &Tally) -> StepReport {
        let seconds = (window.end - window.start) as f64 / 1e6;
        let sent: u64 = book.rows.iter().map(|row| row.sent).sum();
        let told: u64 = book.rows.iter().map(|row| row.told).sum();
        let (processes, generator) = self.shares(&usage, sent);
        let (acks, deliveries) = (Latency::from(&book.acks), Latency::from(&book.tolds));
        let resumptions = Latency::from(&book.resumptions);
        let openings = Latency::from(&book.openings);
        let judged = if deliveries.count > 0 { deliveries } else { acks };
        let is_clean = tally.missing() == 0 && tally.doubled == 0 && tally.overtaken == 0 && tally.ended == 0;
        let is_whole = tally.skipped == 0 && book.refusals.is_empty();
        StepReport {
            mode: self.options.mode.name(),
            server: self.options.common.server.name(),
            dialect: self.options.dialect().name(),
            connections: Counts::read(&self.setting.counts.open),
            rate,
            seconds,
            sent_per_second: sent as f64 / seconds,
            deliveries_per_second: told as f64 / seconds,
            acks,
            deliveries,
            openings,
            resumptions,
            refusals: book.refusals.into_iter().collect(),
            skipped: tally.skipped,
            ended: tally.ended,
            missing: tally.missing(),
            doubled: tally.doubled,
            overtaken: tally.overtaken,
            cpu_seconds_per_thousand: processes.values().map(|share| share.cpu_seconds_per_thousand).sum(),
            processes,
            generator_cpu_seconds: generator,
            is_kept: is_clean && is_whole && judged.p99 <= self.options.common.limit_ms,
            course: Course {
                row_seconds: window.row as f64 / 1e6,
                rows: book.rows,
                usage,
                names: self.watched.iter().map(|it| it.name.clone()).collect(),
            },
        }
    }

    /// Each process's part, and the generator's CPU seconds.
    fn shares(&self, usage: &[Vec<Usage>], sent: u64) -> (BTreeMap<String, Share>, f64) {
        let (Some(first), Some(last)) = (usage.first(), usage.last()) else { return (BTreeMap::new(), 0.0) };
        let connections = Counts::read(&self.setting.counts.open).max(1) as f64;
        let share = |at: usize| {
            let cpu_seconds = last[at].cpu_seconds - first[at].cpu_seconds;
            let grown = last[at].rss_bytes as f64 - self.before[at].rss_bytes as f64;
            Share {
                cpu_seconds,
                cpu_seconds_per_thousand: if sent == 0 { 0.0 } else { cpu_seconds * 1_000.0 / sent as f64 },
                rss_bytes: last[at].rss_bytes,
                rss_bytes_per_connection: grown / connections,
            }
        };
        let mut shares: BTreeMap<String, Share> =
            self.watched.iter().enumerate().map(|(at, it)| (it.name.clone(), share(at))).collect();
        let generator = shares.remove("generator").unwrap_or_default();
        (shares, generator.cpu_seconds)
    }

    #[allow(clippy::print_stderr, reason = "the terminal is where its user looks")]
    fn say(step: &StepReport) {
        eprintln!("\r\x1b[K{step}");
    }

    async fn finish(mut self, steps: Vec<StepReport>) -> anyhow::Result<RunReport> {
        self.order(&Order::Close);
        let (mut fates, mut clients) = (HashMap::new(), HashMap::new());
        for thread in &mut self.threads {
            if let Some(Reply::Closed { fates: more, seen }) = thread.replies.recv().await {
                fates.extend(more);
                clients.extend(seen);
            }
        }
        for thread in self.threads {
            drop(thread.orders);
            thread.handle.join().ok().context("a thread of the generator broke down")?;
        }
        let mut verdict = judge(&self.setting.cast, &fates, &clients);
        verdict.lost += self.setting.standings.as_ref().map_or(0, Standings::apart);
        let highest_kept = steps.iter().filter(|step| step.is_kept).map(|step| step.rate).reduce(f64::max);
        Ok(RunReport { steps, verdict, highest_kept })
    }
}

/// What processes use, row by row, from the beginning of the window to its end.
async fn sample(watched: Vec<Watched>, window: Window) -> Vec<Vec<Usage>> {
    let mut samples = Vec::new();
    let mut due = window.start;
    loop {
        modes::sleep_until_us(due).await;
        let watched = watched.clone();
        samples.push(blocking(move || usage(&watched)).await.unwrap_or_default());
        if due >= window.end {
            return samples;
        }
        due = (due + window.row).min(window.end);
    }
}

/// Counters at one moment.
struct Tally {
    owed: u64,
    told: u64,
    doubled: u64,
    overtaken: u64,
    skipped: u64,
    ended: u64,
}

impl Tally {
    fn of(counts: &Counts) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            owed: read(&counts.owed),
            told: read(&counts.told),
            doubled: read(&counts.doubled),
            overtaken: read(&counts.overtaken),
            skipped: read(&counts.skipped),
            ended: read(&counts.ended),
        }
    }

    fn since(self, before: &Self) -> Self {
        Self {
            owed: self.owed - before.owed,
            told: self.told - before.told,
            doubled: self.doubled - before.doubled,
            overtaken: self.overtaken - before.overtaken,
            skipped: self.skipped - before.skipped,
            ended: self.ended - before.ended,
        }
    }

    fn missing(&self) -> i64 {
        self.owed as i64 - self.told as i64
    }
}
