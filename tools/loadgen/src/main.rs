//! `loadgen`: loads a chat server in an open loop and judges at every recipient what came.
//!
//! People use it to size their own deployment, and this project to compare itself with others. It knows the
//! public protocol only, but for the ids that `chatchit seed` makes. The invariant: latency counts from when
//! something should have been sent, so a server that is slow cannot hide it by slowing the generator.

mod alarm;
mod book;
mod cast;
mod catching;
mod client;
mod dialect;
mod frames;
mod judge;
mod mark;
mod modes;
mod net;
mod options;
mod page;
mod position;
mod processes;
mod progress;
mod report;
mod run;
mod seen;
mod standings;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::options::Options;
use crate::report::RunReport;

/// It could not be run.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    match load(options) {
        Ok(report) if report.verdict.is_good() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("loadgen: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn load(options: Options) -> anyhow::Result<RunReport> {
    options.check()?;
    raise_file_limit();
    // Fails only when one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (json, html) = (options.common.json.clone(), options.common.html.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run::run(options))?;
    say(&report.verdict.to_string());
    if let Some(path) = json {
        let line = format!("{}\n", serde_json::to_string(&report)?);
        if path.as_os_str() == "-" { print(&line) } else { std::fs::write(path, line)? }
    }
    if let Some(path) = html {
        std::fs::write(path, page::page(&report)?)?;
    }
    Ok(report)
}

/// Each connection is a file.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What cannot be raised is noticed when files run out.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[allow(clippy::print_stderr, reason = "the terminal is where its user looks")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[allow(clippy::print_stdout, reason = "asked for with --json -")]
fn print(text: &str) {
    print!("{text}");
}
