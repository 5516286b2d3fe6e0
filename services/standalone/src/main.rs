//! The program `chatchit`: everything in one process, and the commands that work on its engine.
//!
//! Knows the services and no detail of theirs. The invariant: a command line or a configuration
//! that is wrong ends with code 2 before anything was opened or changed.

mod admin;
mod apply;
mod banner;
mod checkconfig;
mod deadletters;
mod history;
mod import;
mod line;
mod say;
mod seed;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use config::{Role, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// ChatChit Realtime: a chat server in one program. All settings are environment variables;
/// `checkconfig --markdown` lists them.
#[derive(Parser)]
#[command(name = "chatchit", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve sockets, REST and the web page (what happens without a command).
    Serve,
    /// Make users and rooms; prints one JSON line each, the same ids for the same arguments.
    Seed(seed::Arguments),
    /// Take over users and rooms from JSON lines, all of them or, after a bad line, none.
    Import(import::Arguments),
    /// Block, unblock or sign out an account, or make it an admin; prints one JSON line.
    #[command(subcommand)]
    Admin(admin::Action),
    /// Look at events that were given up, process them again, or drop them.
    #[command(subcommand)]
    Deadletters(deadletters::Action),
    /// Check the settings without starting anything.
    Checkconfig(checkconfig::Arguments),
    /// Bring the database's schema up to date and end.
    Migrate,
}

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Serve);
    if let Command::Checkconfig(arguments) = command {
        return checkconfig::run(&arguments);
    }
    let settings = match Settings::from_env(Role::AllInOne) {
        Ok(settings) => settings,
        Err(problems) => return engine::service::refuse(&problems),
    };
    match command {
        Command::Serve => serve::run(settings),
        Command::Seed(arguments) => seed::run(&settings, &arguments),
        Command::Import(arguments) => import::run(&settings, &arguments),
        Command::Admin(action) => admin::run(&settings, &action),
        Command::Deadletters(action) => deadletters::run(&settings, &action),
        Command::Migrate => migrate(settings),
        Command::Checkconfig(_) => unreachable!("handled before the settings were read"),
    }
}

fn migrate(mut settings: Settings) -> ExitCode {
    settings.migrate = true;
    engine::service::block_on(&settings, async {
        let store = engine::open_store(&settings).await?;
        store.close().await;
        tracing::info!("the schema is up to date");
        Ok(())
    })
}
