//! Settings as an operator may see them: every variable with the value that counts, secrets hidden.

use std::time::Duration;

use secrecy::SecretString;

use crate::secrets::{HMAC_KEYS_FILE, JWT_SECRET_FILE};
use crate::settings::{Engine, LogFormat, Role, Settings};
use crate::variable;

/// Which programs use a variable that not all use.
fn uses(role: Role, distributed: bool, name: &str) -> bool {
    let alone = role == Role::AllInOne;
    match name {
        "DATA_DIR" => alone,
        "EMBEDDED_SYNC" => !distributed,
        "DATABASE_URL" | "REDIS_URL" | "RABBITMQ_URL" | "QUEUE_SHARDS" | "STARTUP_WAIT" => distributed,
        "JWT_ACCESS_TOKEN"
        | "CORS_ORIGINS"
        | "TRUSTED_PROXIES"
        | "LIMIT_USER_EVENTS_PER_SEC"
        | "LIMIT_USER_BURST"
        | "LIMIT_QUEUED_EVENTS" => role != Role::Processor,
        "ROOM_LOG_KEPT" => alone || role == Role::Processor,
        "PRESENCE_GRACE" => role != Role::Api,
        "BEACON_EVERY"
        | "PRESENCE_IDLE"
        | "LIMIT_IP_CONNECTIONS"
        | "LIMIT_IP_HANDSHAKES_PER_SEC"
        | "LIMIT_IP_FAILURES_PER_MIN"
        | "LIMIT_USER_DEVICES"
        | "LIMIT_OPENINGS"
        | "LIMIT_HANDSHAKES_PER_SEC" => alone || role == Role::Gateway,
        "JWT_ACCESS_EXPIRED" | "JWT_REFRESH_EXPIRED" | "LIMIT_LOGINS_PER_MIN" => alone || role == Role::Api,
        _ => true,
    }
}

impl Settings {
    /// Names and values of all that this program uses, in the order of the documentation; of a secret only
    /// where it comes from.
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        let used = variable::ALL.iter().filter(|variable| uses(self.role, self.is_distributed(), variable.name));
        used.map(|variable| (variable.name, self.shown(variable.name))).collect()
    }

    fn shown(&self, name: &str) -> String {
        let (http, limits) = (&self.http, &self.limits);
        match name {
            "APP_ENV" => self.environment.as_str().to_owned(),
            "HOST" => http.host.to_string(),
            "PORT" => http.port.to_string(),
            "ADMIN_PORT" => http.admin_port.map_or("(with PORT)".to_owned(), |port| port.to_string()),
            "JWT_ACCESS_TOKEN" => self.kept(self.jwt_secret.as_ref(), JWT_SECRET_FILE),
            "HMAC_KEYS" => self.kept(self.hmac_keys.as_ref(), HMAC_KEYS_FILE),
            "JWT_ACCESS_EXPIRED" => duration(self.access_lifetime),
            "JWT_REFRESH_EXPIRED" => duration(self.refresh_lifetime),
            "DATA_DIR" => self.data_dir.display().to_string(),
            "EMBEDDED_SYNC" => match &self.engine {
                Engine::Embedded { sync_full: false, .. } => "normal".to_owned(),
                _ => "full".to_owned(),
            },
            "QUEUE_SHARDS" => self.queue_shards.to_string(),
            "STARTUP_WAIT" => duration(self.startup_wait),
            "MIGRATE" => if self.migrate { "on" } else { "off" }.to_owned(),
            "BEACON_EVERY" => duration(self.beacon_every),
            "CORS_ORIGINS" => listed(&http.cors_origins, "(the own only)"),
            "TRUSTED_PROXIES" => listed(&http.trusted_proxies, "(none)"),
            "PRESENCE_GRACE" => duration(self.presence.grace),
            "PRESENCE_IDLE" => duration(self.presence.idle),
            "LIMIT_USER_EVENTS_PER_SEC" => limit(limits.user_events_per_sec),
            "LIMIT_USER_BURST" => limit(limits.user_burst),
            "LIMIT_IP_CONNECTIONS" => limit(limits.ip_connections),
            "LIMIT_IP_HANDSHAKES_PER_SEC" => limit(limits.ip_handshakes_per_sec),
            "LIMIT_IP_FAILURES_PER_MIN" => limit(limits.ip_failures_per_min),
            "LIMIT_USER_DEVICES" => limit(limits.user_devices),
            "LIMIT_OPENINGS" => limit(limits.openings),
            "LIMIT_HANDSHAKES_PER_SEC" => limit(limits.handshakes_per_sec),
            "LIMIT_LOGINS_PER_MIN" => limit(limits.logins_per_min),
            "LIMIT_QUEUED_EVENTS" => limit(limits.queued_events),
            "ROOM_LOG_KEPT" => self.room_log_kept.map_or("0s (for ever)".to_owned(), duration),
            "LOG_FORMAT" => {
                let format = self.logs.format.map(LogFormat::as_str);
                format.unwrap_or("(pretty on a terminal, else json)").to_owned()
            }
            "RUST_LOG" => self.logs.filter.clone().unwrap_or_else(|| "info".to_owned()),
            // The three URLs: a program that reads them was refused without them.
            _ => "(set)".to_owned(),
        }
    }

    /// Of a secret: set, or where the all-in-one keeps its own.
    fn kept(&self, secret: Option<&SecretString>, file: &str) -> String {
        let path = self.data_dir.join("secrets").join(file);
        match secret {
            Some(_) => "(set)".to_owned(),
            None if path.exists() => format!("(kept in {})", path.display()),
            None => format!("(made at first start, kept in {})", path.display()),
        }
    }
}

fn listed<T: ToString>(items: &[T], none: &str) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { none.to_owned() } else { items.join(",") }
}

fn limit(value: u32) -> String {
    if value == 0 { "0 (no limit)".to_owned() } else { value.to_string() }
}

/// As one would write it: in the largest unit of which it is a whole number.
fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    match units.into_iter().find(|(_, unit_ms)| ms >= *unit_ms && ms.is_multiple_of(*unit_ms)) {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::{Role, Settings};

    fn summary(role: Role, pairs: &[(&str, &str)]) -> HashMap<&'static str, String> {
        Settings::from_pairs(role, pairs).expect("fine").summary().into_iter().collect()
    }

    #[test]
    fn a_summary_shows_values_and_no_secret() {
        let pairs =
            [("JWT_ACCESS_TOKEN", "hush-hush-hush-hush"), ("PORT", "9000"), ("TRUSTED_PROXIES", "10.0.0.0/8,::1")];
        let summary = summary(Role::AllInOne, &pairs);
        assert_eq!((summary["PORT"].as_str(), summary["JWT_ACCESS_TOKEN"].as_str()), ("9000", "(set)"));
        assert_eq!(summary["TRUSTED_PROXIES"], "10.0.0.0/8,::1/128");
        assert!(summary["HMAC_KEYS"].contains("made at first start"), "{summary:?}");
        assert!(!format!("{summary:?}").contains("hush"));
    }

    #[test]
    fn every_variable_is_shown_where_it_is_used_and_nowhere_else() {
        let urls = [
            ("DATABASE_URL", "postgres://localhost/x"),
            ("REDIS_URL", "redis://localhost"),
            ("RABBITMQ_URL", "amqp://localhost"),
            ("JWT_ACCESS_TOKEN", "hush-hush-hush-hush"),
            ("HMAC_KEYS", "k1:QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="),
        ];
        let all: Vec<_> =
            Role::ALL.into_iter().map(|role| summary(role, &urls)).chain([summary(Role::AllInOne, &[])]).collect();
        for variable in crate::variable::ALL {
            assert!(all.iter().any(|summary| summary.contains_key(variable.name)), "{}", variable.name);
        }
        let processor = summary(Role::Processor, &urls);
        for unused in ["JWT_ACCESS_TOKEN", "CORS_ORIGINS", "DATA_DIR", "EMBEDDED_SYNC", "LIMIT_LOGINS_PER_MIN"] {
            assert!(!processor.contains_key(unused), "{unused}");
        }
        assert!(!summary(Role::AllInOne, &[]).contains_key("QUEUE_SHARDS"));
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for text in ["7d", "12h", "15m", "90s", "1500ms"] {
            assert_eq!(summary(Role::AllInOne, &[("JWT_REFRESH_EXPIRED", text)])["JWT_REFRESH_EXPIRED"], text);
        }
    }
}
