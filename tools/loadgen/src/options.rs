//! The command line.
//!
//! The invariant: what is asked for is checked before anything is connected.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cast::{Cast, Naming};
use crate::dialect::Dialect;
use crate::mark;
use crate::processes::Watched;

/// Loads a chat server in an open loop, and judges at every recipient what came: nothing lost, nothing
/// doubled, nothing out of order. People and rooms are those of `chatchit seed` with the same numbers.
#[derive(Parser)]
#[command(name = "loadgen", version, after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) mode: Mode,
    #[command(flatten)]
    pub(crate) common: Common,
}

const EXAMPLES: &str = "\
Examples, against `chatchit serve` on this machine, whose secret lies in its data folder:
  chatchit seed --users 1000 --rooms 100 --members 10
  loadgen --secret-file data/secrets/jwt_access_token --users 1000 --rooms 100 --members 10 chat --rate 500,1000,2000
  loadgen --secret-file data/secrets/jwt_access_token --users 1000 --rooms 100 --members 10 idle --process gateway=4711
Exit code 1: something was lost, doubled or out of order; 2: it could not be run.";

/// What every mode needs.
#[derive(Args)]
pub(crate) struct Common {
    /// Where the server listens, ws:// or wss://; several gateways take turns.
    #[arg(long, global = true, value_delimiter = ',', default_value = "ws://127.0.0.1:8080")]
    pub(crate) url: Vec<String>,
    /// What kind of server it is.
    #[arg(long, global = true, value_enum, default_value_t = Server::Chatchit)]
    pub(crate) server: Server,
    /// How clients connect (of chatchit only).
    #[arg(long, global = true, value_enum, default_value_t = Transport::Native)]
    pub(crate) transport: Transport,
    /// What native clients speak (of chatchit only).
    #[arg(long, global = true, value_enum, default_value_t = Codec::Json)]
    pub(crate) codec: Codec,
    /// A file with the secret that access tokens are signed with (`JWT_ACCESS_TOKEN`).
    #[arg(long, global = true)]
    pub(crate) secret_file: Option<PathBuf>,
    /// `--prefix` of `chatchit seed`.
    #[arg(long, global = true, default_value = "user")]
    pub(crate) prefix: String,
    /// How many users there are.
    #[arg(long, global = true, default_value_t = 1000)]
    pub(crate) users: u32,
    /// How many rooms there are.
    #[arg(long, global = true, default_value_t = 100)]
    pub(crate) rooms: u32,
    /// How many members each of them has.
    #[arg(long, global = true, default_value_t = 10)]
    pub(crate) members: u32,
    /// How many connections are opened, one a user; all users without it.
    #[arg(long, global = true)]
    pub(crate) connections: Option<u32>,
    /// The first user who connects, from 0: several generators share the users so.
    #[arg(long, global = true, default_value_t = 0)]
    pub(crate) first: u32,
    /// Connections opened per second; 0: as fast as it goes.
    #[arg(long, global = true, default_value_t = 1000.0)]
    pub(crate) open_rate: f64,
    /// Length of the measured window of each step, seconds.
    #[arg(long, global = true, default_value_t = 20.0)]
    pub(crate) seconds: f64,
    /// Load before that which does not count, seconds.
    #[arg(long, global = true, default_value_t = 3.0)]
    pub(crate) warmup: f64,
    /// How long what is still owed is waited for after a step, seconds.
    #[arg(long, global = true, default_value_t = 15.0)]
    pub(crate) drain: f64,
    /// Length of a message's text, bytes.
    #[arg(long, global = true, default_value_t = 100)]
    pub(crate) bytes: usize,
    /// Deliveries (acks where nothing is delivered) later than this at p99 do not keep a step, milliseconds.
    #[arg(long, global = true, default_value_t = 250.0)]
    pub(crate) limit_ms: f64,
    /// Threads of the generator.
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) threads: u32,
    /// Processes to be watched with their children: NAME=PID, several with commas.
    #[arg(long, global = true, value_delimiter = ',')]
    pub(crate) process: Vec<Watched>,
    /// A file for the report as one line of JSON; `-`: standard output.
    #[arg(long, global = true)]
    pub(crate) json: Option<PathBuf>,
    /// A file for the report as a page with curves.
    #[arg(long, global = true)]
    pub(crate) html: Option<PathBuf>,
}

/// What is done once everybody is connected.
#[derive(Subcommand, Clone)]
pub(crate) enum Mode {
    /// Nothing: what connections cost that say nothing.
    Idle,
    /// Everybody writes into their rooms.
    Chat {
        /// Messages per second, of all together; several with commas are tried one after the other, up to the
        /// first that is not kept.
        #[arg(long, value_delimiter = ',', default_value = "200")]
        rate: Vec<f64>,
    },
    /// A few write into rooms with many: use it with few rooms and many members.
    Fanout {
        /// Messages per second, of all together; several with commas as in `chat`.
        #[arg(long, value_delimiter = ',', default_value = "20")]
        rate: Vec<f64>,
        /// How many of the clients write.
        #[arg(long, default_value_t = 10)]
        senders: u32,
    },
    /// People change how they stand; those they have a direct room with are told (`chatchit seed --pairs`).
    Presence {
        /// Changes per second, of all together.
        #[arg(long, value_delimiter = ',', default_value = "100")]
        rate: Vec<f64>,
    },
    /// Clients come and go, with token and rooms.
    Connect {
        /// How many come, and as many go, per second.
        #[arg(long, value_delimiter = ',', default_value = "200")]
        rate: Vec<f64>,
    },
    /// Most clients lose their connections at once and come back, while the others go on writing.
    Reconnect {
        /// Messages per second of those who stay.
        #[arg(long, default_value_t = 100.0)]
        rate: f64,
        /// How many stay.
        #[arg(long, default_value_t = 100)]
        steady: u32,
        /// Within which time the others try to come back, seconds; stock clients spread that much by themselves.
        #[arg(long, default_value_t = 1.0)]
        spread: f64,
    },
}

/// What kind of server is loaded.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Server {
    /// This one.
    Chatchit,
    /// The same design in Node: Socket.IO, RabbitMQ, Postgres, Redis.
    NodeSeed,
    /// Rooms in memory and nothing else.
    Raw,
}

/// How clients connect.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A WebSocket.
    Native,
    /// Socket.IO over a WebSocket.
    Socketio,
}

/// What native clients speak.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Text frames.
    Json,
    /// Binary frames.
    Protobuf,
}

impl Mode {
    /// Its name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Chat { .. } => "chat",
            Self::Fanout { .. } => "fanout",
            Self::Presence { .. } => "presence",
            Self::Connect { .. } => "connect",
            Self::Reconnect { .. } => "reconnect",
        }
    }

    /// The rates of its steps.
    pub(crate) fn rates(&self) -> Vec<f64> {
        match self {
            Self::Idle => vec![0.0],
            Self::Chat { rate } | Self::Fanout { rate, .. } | Self::Presence { rate } | Self::Connect { rate } => {
                rate.clone()
            }
            Self::Reconnect { rate, .. } => vec![*rate],
        }
    }
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chatchit => "chatchit",
            Self::NodeSeed => "node-seed",
            Self::Raw => "raw",
        }
    }
}

impl Options {
    /// What clients speak.
    pub(crate) fn dialect(&self) -> Dialect {
        match (self.common.server, self.common.transport, self.common.codec) {
            (Server::NodeSeed, ..) => Dialect::NodeSeed,
            (Server::Raw, ..) => Dialect::Raw,
            (Server::Chatchit, Transport::Socketio, _) => Dialect::SocketIo,
            (Server::Chatchit, Transport::Native, Codec::Json) => Dialect::Json,
            (Server::Chatchit, Transport::Native, Codec::Protobuf) => Dialect::Protobuf,
        }
    }

    /// Who plays.
    pub(crate) fn cast(&self) -> anyhow::Result<Cast> {
        let common = &self.common;
        let naming = match common.server {
            Server::Chatchit => Naming::Seeded { prefix: common.prefix.clone() },
            Server::NodeSeed | Server::Raw => Naming::Peer,
        };
        let connections = common.connections.unwrap_or(common.users.saturating_sub(common.first));
        let cast = Cast {
            naming,
            users: common.users,
            rooms: common.rooms,
            members: common.members,
            first: common.first,
            connections,
            secret: self.secret()?,
        };
        cast.check()?;
        Ok(cast)
    }

    /// That the rest makes sense.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let common = &self.common;
        ensure!(common.bytes >= mark::SHORTEST, "--bytes is at least {}", mark::SHORTEST);
        ensure!((1..=64).contains(&common.threads), "--threads is from 1 to 64");
        let positive = |name: &str, value: f64, least: f64| {
            ensure!(value >= least && value <= 1e7, "{name} has to be from {least} to 10000000");
            Ok(())
        };
        positive("--seconds", common.seconds, 0.1)?;
        positive("--warmup", common.warmup, 0.0)?;
        positive("--drain", common.drain, 0.0)?;
        positive("--open-rate", common.open_rate, 0.0)?;
        let least = if matches!(self.mode, Mode::Idle | Mode::Reconnect { .. }) { 0.0 } else { 0.001 };
        self.mode.rates().into_iter().try_for_each(|rate| positive("--rate", rate, least))?;
        if let Mode::Reconnect { spread, .. } = self.mode {
            positive("--spread", spread, 0.0)?;
        }
        if matches!(self.mode, Mode::Presence { .. }) && common.server != Server::Chatchit {
            bail!("only chatchit knows how people stand");
        }
        Ok(())
    }

    /// The measured window of a step.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.common.seconds)
    }

    fn secret(&self) -> anyhow::Result<String> {
        match (&self.common.secret_file, self.common.server) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file);
                Ok(text.with_context(|| format!("cannot read {}", file.display()))?.trim_end().to_owned())
            }
            (None, Server::Raw) => Ok(String::new()),
            (None, Server::NodeSeed) => Ok("bench-secret".to_owned()),
            (None, Server::Chatchit) => bail!("--secret-file is needed: tokens are made here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(text.split_whitespace())
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bad = |text: &str| parsed(text).map_or(true, |options| options.check().is_err());
        for text in [
            "loadgen chat --bytes 10",
            "loadgen chat --rate 0",
            "loadgen chat --threads 0",
            "loadgen chat --seconds 0",
            "loadgen --server raw presence",
            "loadgen chat --process gateway",
            "loadgen",
        ] {
            assert!(bad(text), "{text}");
        }
        assert!(!bad("loadgen chat --rate 1,2.5 --process gateway=1,broker=2"));
        assert!(!bad("loadgen --server raw idle"));
    }

    #[test]
    fn rates_and_dialects_are_what_was_said() {
        let options = parsed("loadgen fanout --rate 5,10 --transport socketio").expect("this is good");
        assert_eq!(options.mode.rates(), [5.0, 10.0]);
        assert_eq!(options.dialect(), Dialect::SocketIo);
        let options = parsed("loadgen --codec protobuf idle").expect("this is good");
        assert_eq!(options.dialect(), Dialect::Protobuf);
    }
}
