//! The table of every variable: what it means, its default, what zero means, an example.
//!
//! `docs/CONFIGURATION.md` is made from it, and defaults are read from it, so that the two agree.

/// One variable of the environment.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it decides, and the form and unit of its value.
    pub what: &'static str,
    /// The value when it is not set; `None`: there is none.
    pub default: Option<&'static str>,
    /// What the value zero (or an empty list) means; `None`: nothing special or not allowed.
    pub zero: Option<&'static str>,
    /// A right value.
    pub example: &'static str,
    /// True if its value must never be shown; it may also come from the file that `NAME_FILE` names.
    pub secret: bool,
    /// True if an empty value is a value (an empty list).
    pub list: bool,
}

impl Variable {
    /// The variable that names a file with this one's value, for secrets.
    pub fn file_name(&self) -> Option<String> {
        self.secret.then(|| format!("{}_FILE", self.name))
    }
}

macro_rules! variables {
    ($($(#[doc = $what:literal])+ $name:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[doc = $what])+
            pub static $name: Variable = Variable {
                name: stringify!($name),
                what: concat!($($what),+).trim_ascii(),
                $($field: $value,)*
                ..EMPTY
            };
        )*

        /// Every variable, in the order of the documentation.
        pub static ALL: &[&Variable] = &[$(&$name),*];
    };
}

const EMPTY: Variable =
    Variable { name: "", what: "", default: None, zero: None, example: "", secret: false, list: false };

variables! {
    /// Where the program runs: `development`, `test`, `staging` or `production`. In production no `.env` file is read and the page `/api-docs` is off.
    APP_ENV { default: Some("development"), example: "production" }
    /// The address to listen on, IPv4 or IPv6.
    HOST { default: Some("0.0.0.0"), example: "127.0.0.1" }
    /// The TCP port for traffic, 0 to 65535.
    PORT { default: Some("8080"), zero: Some("any free port, printed at start"), example: "8080" }
    /// The TCP port for `/healthz`, `/readyz`, `/health` and `/metrics`, 0 to 65535; without it they are on `PORT`.
    ADMIN_PORT { zero: Some("any free port, printed at start"), example: "9090" }
    /// Postgres: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. All three URLs or none; none is the embedded engine, which only the all-in-one has.
    DATABASE_URL { secret: true, example: "postgres://chat:PASSWORD@localhost:5432/chat" }
    /// Redis: `redis://` or, with TLS, `rediss://`. A Redis cluster: `redis+cluster://` or `rediss+cluster://`, with one or more of its nodes, separated by commas: `redis+cluster://:PASSWORD@a:6379,b:6379`.
    REDIS_URL { secret: true, example: "redis://:PASSWORD@localhost:6379/0" }
    /// RabbitMQ: `amqp://` or, with TLS, `amqps://`; the path is the virtual host.
    RABBITMQ_URL { secret: true, example: "amqp://chat:PASSWORD@localhost:5672/%2F" }
    /// The secret over whose bytes access tokens are signed (HS256): at least 8 bytes, in production at least 16; 32 are advised (RFC 7518 section 3.2). Required by gateway and api; the all-in-one makes one.
    JWT_ACCESS_TOKEN { secret: true, example: "$(openssl rand -base64 48)" }
    /// The keys that sign what travels between services: `kid:base64,kid2:base64`, at least 32 bytes each; the first signs, all verify. Required outside the all-in-one, which makes one.
    HMAC_KEYS { secret: true, example: "k1:$(openssl rand -base64 32)" }
    /// How long an access token lives, a duration of at least `1s`.
    JWT_ACCESS_EXPIRED { default: Some("7d"), example: "15m" }
    /// How long a refresh token lives, a duration of at least `1s`.
    JWT_REFRESH_EXPIRED { default: Some("30d"), example: "30d" }
    /// The all-in-one's folder: the embedded engine's files, and `secrets/` with the secrets it made.
    DATA_DIR { default: Some("./data"), example: "/var/lib/chatchit" }
    /// Whether the embedded engine waits for the disk at each commit: `full`, or `normal` (faster; a power cut may take the last moments).
    EMBEDDED_SYNC { default: Some("full"), example: "full" }
    /// Into how many queues each class of events is split by room, 1 to 64. The same for all services of a system; change it only while no events wait. The embedded engine has one.
    QUEUE_SHARDS { default: Some("4"), example: "4" }
    /// How long an unreachable dependency is tried again at start, a duration; then the program ends with code 2.
    STARTUP_WAIT { default: Some("10s"), zero: Some("one attempt"), example: "30s" }
    /// Whether the database's schema is brought up to date at start, under a lock: `on` or `off`.
    MIGRATE { default: Some("on"), example: "off" }
    /// How long a socket is left without any news of its rooms before it gets a `rooms.beacon`, a duration.
    BEACON_EVERY { default: Some("30s"), zero: Some("no beacons"), example: "30s" }
    /// Origins whose pages may call the API and poll by Socket.IO, separated by commas; `*` alone: any.
    CORS_ORIGINS { default: Some(""), zero: Some("empty: pages of the own origin only"), list: true, example: "https://chat.example.com,https://admin.example.com" }
    /// Proxies whose `X-Forwarded-For` counts: addresses or CIDR blocks, separated by commas.
    TRUSTED_PROXIES { default: Some(""), zero: Some("empty: the header is ignored"), list: true, example: "10.0.0.0/8,192.168.1.7" }
    /// Events that one user may send in the long run, per second and gateway.
    LIMIT_USER_EVENTS_PER_SEC { default: Some("100"), zero: Some("no limit"), example: "100" }
    /// Events that one user may send at once after a pause.
    LIMIT_USER_BURST { default: Some("200"), zero: Some("as many as in one second"), example: "200" }
    /// Open sockets of one address (IPv6: a /64) on one gateway.
    LIMIT_IP_CONNECTIONS { default: Some("0"), zero: Some("no limit"), example: "500" }
    /// New sockets of one address (IPv6: a /64) on one gateway, per second.
    LIMIT_IP_HANDSHAKES_PER_SEC { default: Some("0"), zero: Some("no limit"), example: "50" }
    /// Failed handshakes and authentications of sockets of one address (IPv6: a /64) on one gateway, per minute; over it the address is refused for 15 s, and twice as long each time it happens again, up to 8 min. Only failures count: people behind one address who come in do not harm one another.
    LIMIT_IP_FAILURES_PER_MIN { default: Some("600"), zero: Some("no limit"), example: "600" }
    /// Devices of one user on one gateway; a further one takes the place of the one that connected first (4409).
    LIMIT_USER_DEVICES { default: Some("1000"), zero: Some("no limit"), example: "20" }
    /// Sessions that one gateway opens at a time; twice as many wait, the others are told when to come back.
    LIMIT_OPENINGS { default: Some("256"), zero: Some("no limit"), example: "256" }
    /// New sockets of all addresses together on one gateway, per second, with a burst of as many; the others are told when to come back.
    LIMIT_HANDSHAKES_PER_SEC { default: Some("0"), zero: Some("no limit"), example: "500" }
    /// Failed attempts to log in at one account from one address, per minute; ten times as many from one address, and at one account. Registering a taken e-mail counts as one.
    LIMIT_LOGINS_PER_MIN { default: Some("10"), zero: Some("no limit"), example: "10" }
    /// Events that may wait in the queues of a class (messages; edits, deletes, reactions and membership) before gateways and apis refuse new ones of it with `OVERLOADED`; fewer in a shard, but at least 250, where less than that is drained of it in six seconds. Calls are never refused for it.
    LIMIT_QUEUED_EVENTS { default: Some("50000"), zero: Some("no limit"), example: "50000" }
    /// For how long the others do not notice that somebody's last device left, a duration of at most `1h`. The same for gateways and processors of a system.
    PRESENCE_GRACE { default: Some("15s"), zero: Some("everybody is told at once"), example: "15s" }
    /// After how long without a command from any of their devices somebody is shown as away, a duration.
    PRESENCE_IDLE { default: Some("5m"), zero: Some("never"), example: "10m" }
    /// How long the log of a room's changes is kept, and with it the receipts of what was done, a duration of at least `1d`. Whoever catches up by `rev` from before that is told to load the room anew, and an event accepted before that becomes a dead letter (`too_old`). Messages are kept for ever. The same for all services of a system.
    ROOM_LOG_KEPT { default: Some("90d"), zero: Some("for ever"), example: "90d" }
    /// How log lines look: `pretty` or `json`; without it `pretty` on a terminal, else `json`.
    LOG_FORMAT { example: "json" }
    /// Which log lines are written: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`) and exceptions by module, separated by commas.
    RUST_LOG { default: Some("info"), list: true, example: "info,gateway=debug" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_says_what_it_is_and_has_an_example() {
        for variable in ALL {
            assert!(!variable.what.is_empty() && !variable.example.is_empty(), "{}", variable.name);
        }
    }
}
