//! The settings as values that were checked: whoever holds them needs no further look at the environment.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::IpRange;

/// Which program reads its settings; decides what is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything in one process; alone may run without the three URLs.
    AllInOne,
    /// Sockets.
    Gateway,
    /// Applies events.
    Processor,
    /// REST.
    Api,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::AllInOne, Self::Gateway, Self::Processor, Self::Api];

    /// The program's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllInOne => "chatchit",
            Self::Gateway => "gateway",
            Self::Processor => "processor",
            Self::Api => "api",
        }
    }
}

/// Where the program runs (`APP_ENV`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Environment {
    /// On somebody's desk: `.env` files are read, the API page is there.
    Development,
    /// Under test; like development.
    Test,
    /// Before the public; like production except for its name.
    Staging,
    /// In public: no `.env` files, no API page.
    Production,
}

impl Environment {
    /// Every environment.
    pub const ALL: [Self; 4] = [Self::Development, Self::Test, Self::Staging, Self::Production];

    /// The value of `APP_ENV`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Test => "test",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }

    /// True where strangers are: no `.env` files and no API page.
    pub const fn is_production(self) -> bool {
        matches!(self, Self::Production)
    }
}

/// What the program listens on and whom it believes.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The address to listen on (`HOST`).
    pub host: IpAddr,
    /// The port for traffic (`PORT`); zero: any free port, printed at start.
    pub port: u16,
    /// The port for health and metrics (`ADMIN_PORT`); `None`: with the traffic; zero: any free port.
    pub admin_port: Option<u16>,
    /// Origins whose pages may call the API (`CORS_ORIGINS`); `*` alone: any; empty: the own only.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` counts (`TRUSTED_PROXIES`).
    pub trusted_proxies: Vec<IpRange>,
}

/// Which engine carries the data.
#[derive(Debug, Clone)]
pub enum Engine {
    /// SQLite files and memory of this one process.
    Embedded {
        /// The folder of the files (`DATA_DIR`).
        data_dir: PathBuf,
        /// Whether each commit waits for the disk (`EMBEDDED_SYNC=full`).
        sync_full: bool,
    },
    /// Postgres, Redis and RabbitMQ.
    Distributed {
        /// `DATABASE_URL`.
        database_url: SecretString,
        /// `REDIS_URL`.
        redis_url: SecretString,
        /// `RABBITMQ_URL`.
        rabbitmq_url: SecretString,
    },
}

/// What one user or address may do; zero switches a limit off. `Default`, for tests, has all off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Events a user may send per second in the long run.
    pub user_events_per_sec: u32,
    /// Events a user may send at once after a pause.
    pub user_burst: u32,
    /// Open sockets of one address on one gateway.
    pub ip_connections: u32,
    /// New sockets of one address per second on one gateway.
    pub ip_handshakes_per_sec: u32,
    /// Failed handshakes and authentications of one address per minute on one gateway.
    pub ip_failures_per_min: u32,
    /// Devices of one user on one gateway.
    pub user_devices: u32,
    /// Sessions opened at a time on one gateway.
    pub openings: u32,
    /// New sockets per second on one gateway.
    pub handshakes_per_sec: u32,
    /// Attempts to log in per minute, by address and by account.
    pub logins_per_min: u32,
    /// Ready events of a class over which new ones of it are refused.
    pub queued_events: u32,
}

/// What the others are shown of who comes, goes and rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceSettings {
    /// For so long nobody notices that a user's last device left (`PRESENCE_GRACE`).
    pub grace: Duration,
    /// A user none of whose devices sent a command for so long is away (`PRESENCE_IDLE`); zero: never.
    pub idle: Duration,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// Coloured lines for people.
    Pretty,
    /// One JSON object a line for machines.
    Json,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Pretty, Self::Json];

    /// The value of `LOG_FORMAT`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        }
    }
}

/// What is logged and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// `LOG_FORMAT`; `None`: pretty on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// `RUST_LOG`; `None`: info.
    pub filter: Option<String>,
}

/// Everything a program is told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which program this is.
    pub role: Role,
    /// `APP_ENV`.
    pub environment: Environment,
    /// What it listens on.
    pub http: HttpSettings,
    /// What carries its data.
    pub engine: Engine,
    /// The all-in-one's own folder (`DATA_DIR`): embedded data, and secrets it made itself.
    pub data_dir: PathBuf,
    /// `JWT_ACCESS_TOKEN`; `None` in the all-in-one until `make_secrets`, and in the processor.
    pub jwt_secret: Option<SecretString>,
    /// `HMAC_KEYS`; `None` in the all-in-one until `make_secrets`.
    pub hmac_keys: Option<SecretString>,
    /// How long an access token lives (`JWT_ACCESS_EXPIRED`).
    pub access_lifetime: Duration,
    /// How long a refresh token lives (`JWT_REFRESH_EXPIRED`).
    pub refresh_lifetime: Duration,
    /// Queues for each class of event (`QUEUE_SHARDS`); the embedded engine always has one.
    pub queue_shards: u16,
    /// How long an unreachable dependency is tried again at start (`STARTUP_WAIT`).
    pub startup_wait: Duration,
    /// Whether the database's schema is brought up to date at start (`MIGRATE`).
    pub migrate: bool,
    /// How long a connection is left without a word before it gets a `rooms.beacon` (`BEACON_EVERY`);
    /// zero: never.
    pub beacon_every: Duration,
    /// How long the rooms' logs and the receipts of jobs are kept (`ROOM_LOG_KEPT`); `None`: for ever.
    pub room_log_kept: Option<Duration>,
    /// What one user or address may do.
    pub limits: Limits,
    /// What the others are shown of who comes, goes and rests.
    pub presence: PresenceSettings,
    /// What is logged and how.
    pub logs: LogSettings,
    /// Things that work but should not stay so, one line each; to be logged once logs are there.
    pub warnings: Vec<String>,
}

impl Settings {
    /// True with Postgres, Redis and RabbitMQ.
    pub const fn is_distributed(&self) -> bool {
        matches!(self.engine, Engine::Distributed { .. })
    }
}
