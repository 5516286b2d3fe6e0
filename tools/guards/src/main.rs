//! `guards`: counts what a message costs on each hot path, and fails when that changed.

use std::alloc::System;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gateway::Dialect;
use guards::{Path, check, sessions, work};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Counts instructions and allocations of the hot paths with callgrind.
#[derive(Parser)]
#[command(name = "guards", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts paths and compares them with the baseline.
    Check {
        /// All paths by default.
        #[arg(value_parser = Path::parse)]
        paths: Vec<Path>,
    },
    /// Counts paths and writes what they cost as the baseline.
    Update {
        /// All paths by default.
        #[arg(value_parser = Path::parse)]
        paths: Vec<Path>,
    },
    /// Goes one path; for callgrind and other tools.
    Run {
        /// Which one.
        #[arg(value_parser = Path::parse)]
        path: Path,
        /// How often.
        times: usize,
    },
    /// Opens sessions in one process, each in five rooms of ten, and says what each takes up in memory.
    Sessions {
        /// How many.
        #[arg(default_value_t = 100_000)]
        count: usize,
    },
}

fn all_or(paths: Vec<Path>) -> Vec<Path> {
    if paths.is_empty() { Path::ALL.to_vec() } else { paths }
}

#[allow(clippy::print_stdout, reason = "the report is what it is for")]
fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Check { paths } => {
            let (text, is_good) = check::check(&all_or(paths))?;
            print!("{text}");
            if !is_good {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Update { paths } => println!("{}", check::update(&all_or(paths))?),
        Command::Sessions { count } => count_sessions(count.max(1)),
        Command::Run { path, times } => {
            let mut work = path.work();
            work::warm_up(&mut *work);
            println!("{}", serde_json::to_string(&work::repeat(&mut *work, times, ALLOCATOR))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "the report is what it is for")]
fn count_sessions(count: usize) {
    for dialect in [Dialect::Native, Dialect::Protobuf, Dialect::SocketIo] {
        let sessions::Held { fresh, used } = sessions::measure(count, dialect, ALLOCATOR);
        println!(
            "{count} sessions, {dialect:?}: {fresh} bytes each, {used} after each was told something in each room"
        );
    }
}
