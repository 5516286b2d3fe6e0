//! From the environment to `Settings`: every variable is read, all problems are told at once.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};

use crate::reader::{Reader, Refused};
use crate::settings::{Engine, Environment, HttpSettings, Limits, LogSettings, PresenceSettings, Role, Settings};
use crate::{Problem, Source, parse, variable};

/// An access token's secret is at least this long in production, bytes.
const JWT_SECRET_BYTES_PRODUCTION: usize = 16;
/// Elsewhere.
const JWT_SECRET_BYTES: usize = 8;
/// From this length on it is as strong as its hash (RFC 7518 section 3.2).
const JWT_SECRET_BYTES_ADVISED: usize = 32;

impl Settings {
    /// Reads this process's environment; `Err` holds all that is wrong with it.
    pub fn from_env(role: Role) -> Result<Self, Vec<Problem>> {
        Self::from_source(role, &Source::environment())
    }

    /// Reads exactly these pairs, as if they were the environment.
    pub fn from_pairs(role: Role, pairs: &[(&str, &str)]) -> Result<Self, Vec<Problem>> {
        Self::from_source(role, &Source::of(pairs))
    }

    /// Reads any source.
    pub fn from_source(role: Role, source: &Source) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(source);
        let settings = read(role, &mut reader);
        match settings {
            Ok(settings) if reader.problems.is_empty() => Ok(settings),
            _ => Err(reader.problems),
        }
    }
}

/// Everything is read even after something was refused, so that all problems are known.
fn read(role: Role, reader: &mut Reader<'_>) -> Result<Settings, Refused> {
    let environment = reader.value(&variable::APP_ENV, parse::environment);
    let http = read_http(reader);
    let data_dir = reader.value(&variable::DATA_DIR, |text| Ok(PathBuf::from(text)));
    let engine = read_engine(role, data_dir.clone().unwrap_or_default(), reader);
    let jwt_secret = read_jwt_secret(role, environment, reader);
    let hmac_keys = read_hmac_keys(role, reader);
    let access_lifetime = reader.value(&variable::JWT_ACCESS_EXPIRED, parse::lifetime);
    let refresh_lifetime = reader.value(&variable::JWT_REFRESH_EXPIRED, parse::lifetime);
    let queue_shards = reader.value(&variable::QUEUE_SHARDS, parse::shards);
    let startup_wait = reader.value(&variable::STARTUP_WAIT, parse::duration);
    let migrate = reader.value(&variable::MIGRATE, parse::on_or_off);
    let beacon_every = reader.value(&variable::BEACON_EVERY, parse::duration);
    let room_log_kept = reader.value(&variable::ROOM_LOG_KEPT, parse::kept);
    let limits = read_limits(reader);
    let presence = read_presence(reader);
    let logs = read_logs(reader);
    let mut settings = Settings {
        role,
        environment: environment?,
        http: http?,
        engine: engine?,
        data_dir: data_dir?,
        jwt_secret: jwt_secret?,
        hmac_keys: hmac_keys?,
        access_lifetime: access_lifetime?,
        refresh_lifetime: refresh_lifetime?,
        queue_shards: queue_shards?,
        startup_wait: startup_wait?,
        migrate: migrate?,
        beacon_every: beacon_every?,
        room_log_kept: room_log_kept?,
        limits: limits?,
        presence: presence?,
        logs: logs?,
        warnings: Vec::new(),
    };
    settings.warnings = warnings(&settings);
    Ok(settings)
}

fn read_http(reader: &mut Reader<'_>) -> Result<HttpSettings, Refused> {
    let host = reader.value(&variable::HOST, parse::host);
    let port = reader.value(&variable::PORT, parse::port);
    let admin_port = reader.optional(&variable::ADMIN_PORT, parse::port);
    let cors_origins = reader.value(&variable::CORS_ORIGINS, parse::origins);
    let trusted_proxies = reader.value(&variable::TRUSTED_PROXIES, parse::ranges);
    if let (Ok(port @ 1..), Ok(Some(admin_port))) = (port, admin_port)
        && port == admin_port
    {
        reader.refuse(&variable::ADMIN_PORT, format!("is the same as PORT ({port}); leave it out to share one"));
    }
    Ok(HttpSettings {
        host: host?,
        port: port?,
        admin_port: admin_port?,
        cors_origins: cors_origins?,
        trusted_proxies: trusted_proxies?,
    })
}

fn read_engine(role: Role, data_dir: PathBuf, reader: &mut Reader<'_>) -> Result<Engine, Refused> {
    let sync_full = reader.value(&variable::EMBEDDED_SYNC, parse::sync_full);
    let urls = [
        (&variable::DATABASE_URL, reader.secret(&variable::DATABASE_URL, parse::database_url)),
        (&variable::REDIS_URL, reader.secret(&variable::REDIS_URL, parse::redis_url)),
        (&variable::RABBITMQ_URL, reader.secret(&variable::RABBITMQ_URL, parse::rabbitmq_url)),
    ];
    let absent = |url: &Result<Option<SecretString>, Refused>| matches!(url, Ok(None));
    let missing = urls.iter().filter(|(_, url)| absent(url)).count();
    if missing == urls.len() && role == Role::AllInOne {
        return Ok(Engine::Embedded { data_dir, sync_full: sync_full? });
    }
    for (variable, _) in urls.iter().filter(|(_, url)| absent(url)) {
        let what = match role {
            Role::AllInOne => {
                "is missing; set all three of DATABASE_URL, REDIS_URL and RABBITMQ_URL, or none".to_owned()
            }
            _ => format!("is missing; {} needs it", role.as_str()),
        };
        reader.refuse(variable, what);
    }
    let [(_, database_url), (_, redis_url), (_, rabbitmq_url)] = urls;
    Ok(Engine::Distributed {
        database_url: database_url?.ok_or(Refused)?,
        redis_url: redis_url?.ok_or(Refused)?,
        rabbitmq_url: rabbitmq_url?.ok_or(Refused)?,
    })
}

fn read_jwt_secret(
    role: Role,
    environment: Result<Environment, Refused>,
    reader: &mut Reader<'_>,
) -> Result<Option<SecretString>, Refused> {
    let production = environment.is_ok_and(Environment::is_production);
    let least_bytes = if production { JWT_SECRET_BYTES_PRODUCTION } else { JWT_SECRET_BYTES };
    let secret = reader.secret(&variable::JWT_ACCESS_TOKEN, |text| parse::jwt_secret(text, least_bytes))?;
    if secret.is_none() && matches!(role, Role::Gateway | Role::Api) {
        return Err(reader.refuse(&variable::JWT_ACCESS_TOKEN, format!("is missing; {} needs it", role.as_str())));
    }
    Ok(secret)
}

fn read_hmac_keys(role: Role, reader: &mut Reader<'_>) -> Result<Option<SecretString>, Refused> {
    let keys = reader.secret(&variable::HMAC_KEYS, parse::hmac_keys)?;
    if keys.is_none() && role != Role::AllInOne {
        return Err(reader.refuse(&variable::HMAC_KEYS, format!("is missing; {} needs it", role.as_str())));
    }
    Ok(keys)
}

fn read_limits(reader: &mut Reader<'_>) -> Result<Limits, Refused> {
    let user_events_per_sec = reader.value(&variable::LIMIT_USER_EVENTS_PER_SEC, parse::limit);
    let user_burst = reader.value(&variable::LIMIT_USER_BURST, parse::limit);
    let ip_connections = reader.value(&variable::LIMIT_IP_CONNECTIONS, parse::limit);
    let ip_handshakes_per_sec = reader.value(&variable::LIMIT_IP_HANDSHAKES_PER_SEC, parse::limit);
    let ip_failures_per_min = reader.value(&variable::LIMIT_IP_FAILURES_PER_MIN, parse::limit);
    let user_devices = reader.value(&variable::LIMIT_USER_DEVICES, parse::limit);
    let openings = reader.value(&variable::LIMIT_OPENINGS, parse::limit);
    let handshakes_per_sec = reader.value(&variable::LIMIT_HANDSHAKES_PER_SEC, parse::limit);
    let logins_per_min = reader.value(&variable::LIMIT_LOGINS_PER_MIN, parse::limit);
    let queued_events = reader.value(&variable::LIMIT_QUEUED_EVENTS, parse::limit);
    Ok(Limits {
        user_events_per_sec: user_events_per_sec?,
        user_burst: if user_burst? == 0 { user_events_per_sec? } else { user_burst? },
        ip_connections: ip_connections?,
        ip_handshakes_per_sec: ip_handshakes_per_sec?,
        ip_failures_per_min: ip_failures_per_min?,
        user_devices: user_devices?,
        openings: openings?,
        handshakes_per_sec: handshakes_per_sec?,
        logins_per_min: logins_per_min?,
        queued_events: queued_events?,
    })
}

fn read_presence(reader: &mut Reader<'_>) -> Result<PresenceSettings, Refused> {
    let grace = reader.value(&variable::PRESENCE_GRACE, parse::grace);
    let idle = reader.value(&variable::PRESENCE_IDLE, parse::duration);
    Ok(PresenceSettings { grace: grace?, idle: idle? })
}

fn read_logs(reader: &mut Reader<'_>) -> Result<LogSettings, Refused> {
    let format = reader.optional(&variable::LOG_FORMAT, parse::log_format);
    let filter = reader.optional(&variable::RUST_LOG, parse::log_filter);
    Ok(LogSettings { format: format?, filter: filter?.filter(|filter| !filter.trim().is_empty()) })
}

fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    if settings.jwt_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < JWT_SECRET_BYTES_ADVISED) {
        warnings.push(format!("JWT_ACCESS_TOKEN is shorter than {JWT_SECRET_BYTES_ADVISED} bytes"));
    }
    if settings.refresh_lifetime < settings.access_lifetime {
        warnings.push("JWT_REFRESH_EXPIRED is shorter than JWT_ACCESS_EXPIRED".to_owned());
    }
    if settings.environment.is_production() && settings.http.cors_origins == ["*"] {
        warnings.push("CORS_ORIGINS lets the pages of any origin call the API".to_owned());
    }
    warnings
}
