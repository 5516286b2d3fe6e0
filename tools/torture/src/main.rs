//! `torture`: runs until the time is over, prints a report, and fails when a promise was broken.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use torture::{Scale, Shape, Spec};

/// Kills, pauses, cuts and restarts a whole system under load, and checks what clients were promised.
#[derive(Parser)]
#[command(name = "torture", version)]
struct Arguments {
    /// How long faults strike, minutes; what comes before and after takes about three more.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Reproduces people and faults; drawn when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// How the system is built.
    #[arg(long, value_enum, default_value_t = Engine::Distributed)]
    engine: Engine,
    /// People who connect, half of them with two devices.
    #[arg(long, default_value_t = 24)]
    users: usize,
    /// Members of each room but the one with everybody.
    #[arg(long, default_value_t = 8)]
    members: usize,
    /// Writes everything as JSON into this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Copies logs and data into this new folder when a promise was broken.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Does not wait for leases to run out in the end: whether anything stays behind is not judged.
    #[arg(long)]
    no_quiet: bool,
    /// A defect to switch on, in programs that were built with the feature `defects`.
    #[arg(long)]
    defect: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    /// Two gateways, two processors and an api over Postgres, Redis and RabbitMQ.
    Distributed,
    /// Everything in one process.
    Embedded,
}

#[tokio::main(worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the report is what it is for")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let spec = Spec {
        shape: match arguments.engine {
            Engine::Distributed => Shape::Distributed,
            Engine::Embedded => Shape::AllInOne,
        },
        seed: arguments.seed.unwrap_or_else(|| rand::random::<u32>().into()),
        length: Duration::from_secs_f64(arguments.minutes * 60.0),
        faults_least: 0,
        scale: Scale { users: arguments.users, rooms: arguments.users / 3, members: arguments.members },
        defect: arguments.defect,
        quiet: !arguments.no_quiet,
        keep: arguments.keep,
        verbose: true,
    };
    let report = torture::run(spec).await?;
    if let Some(path) = arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    println!("{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
