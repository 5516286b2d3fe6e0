//! `checkconfig`: says what is wrong with the settings, or what they are, and starts nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use config::{Problem, Role, Settings};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Whose settings to check.
    #[arg(long = "for", value_enum, default_value_t = Program::Chatchit)]
    program: Program,
    /// Print the documentation of all variables instead, as Markdown.
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Program {
    Chatchit,
    Gateway,
    Processor,
    Api,
}

impl From<Program> for Role {
    fn from(program: Program) -> Self {
        match program {
            Program::Chatchit => Self::AllInOne,
            Program::Gateway => Self::Gateway,
            Program::Processor => Self::Processor,
            Program::Api => Self::Api,
        }
    }
}

/// Exit code 0 if the settings are fine, else 2 and a line for each problem.
#[allow(clippy::print_stdout, reason = "printing is what this command is for")]
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.markdown {
        print!("{}", config::markdown());
        return ExitCode::SUCCESS;
    }
    match Settings::from_env(arguments.program.into()) {
        Ok(settings) if settings.role == Role::AllInOne && is_no_folder(&settings.data_dir) => {
            let what = format!("{} is no folder", settings.data_dir.display());
            engine::service::refuse(&[Problem::new("DATA_DIR", what, "./data")])
        }
        Ok(settings) => {
            print!("{}", described(&settings));
            ExitCode::SUCCESS
        }
        Err(problems) => engine::service::refuse(&problems),
    }
}

fn is_no_folder(path: &Path) -> bool {
    path.exists() && !path.is_dir()
}

fn described(settings: &Settings) -> String {
    let engine = if settings.is_distributed() { "Postgres, Redis and RabbitMQ" } else { "the embedded engine" };
    let mut text = format!("The configuration is fine: {} on {engine}.\n", settings.role.as_str());
    // Writing to a String cannot fail.
    for (name, value) in settings.summary() {
        let _ = writeln!(text, "  {name:<28} {value}");
    }
    for warning in &settings.warnings {
        let _ = writeln!(text, "Warning: {warning}.");
    }
    text
}
