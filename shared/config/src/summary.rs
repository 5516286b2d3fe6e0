//! Settings as an operator may see them: every variable with the value that counts, secrets hidden.

use std::time::Duration;

use secrecy::SecretString;

use crate::settings::{Engine, Settings};

impl Settings {
    /// Names and values in the order of the documentation; of a secret only whether it is set.
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("APP_ENV", self.environment.as_str().to_owned()),
            ("HOST", self.http.host.to_string()),
            ("PORT", self.http.port.to_string()),
            ("ADMIN_PORT", self.http.admin_port.map_or("(with PORT)".to_owned(), |port| port.to_string())),
            ("JWT_ACCESS_TOKEN", shown(self.jwt_secret.as_ref())),
            ("HMAC_KEYS", shown(self.hmac_keys.as_ref())),
            ("JWT_ACCESS_EXPIRED", duration(self.access_lifetime)),
            ("JWT_REFRESH_EXPIRED", duration(self.refresh_lifetime)),
            ("DATA_DIR", self.data_dir.display().to_string()),
            ("QUEUE_SHARDS", self.queue_shards.to_string()),
            ("STARTUP_WAIT", duration(self.startup_wait)),
            ("MIGRATE", if self.migrate { "on" } else { "off" }.to_owned()),
            ("CORS_ORIGINS", self.http.cors_origins.join(",")),
            ("LIMIT_USER_EVENTS_PER_SEC", self.limits.user_events_per_sec.to_string()),
            ("LIMIT_USER_BURST", self.limits.user_burst.to_string()),
            ("LIMIT_IP_CONNECTIONS", self.limits.ip_connections.to_string()),
            ("LIMIT_IP_HANDSHAKES_PER_SEC", self.limits.ip_handshakes_per_sec.to_string()),
            ("LIMIT_LOGINS_PER_MIN", self.limits.logins_per_min.to_string()),
        ];
        lines.extend(match &self.engine {
            Engine::Embedded { sync_full, .. } => {
                vec![("EMBEDDED_SYNC", if *sync_full { "full" } else { "normal" }.to_owned())]
            }
            Engine::Distributed { .. } => ["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL"].map(|url| (url, set())).into(),
        });
        lines
    }
}

fn set() -> String {
    "(set)".to_owned()
}

fn shown(secret: Option<&SecretString>) -> String {
    secret.map_or_else(|| "(not set)".to_owned(), |_| set())
}

fn duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use crate::{Role, Settings};

    #[test]
    fn a_summary_shows_values_and_no_secret() {
        let pairs = [("JWT_ACCESS_TOKEN", "hush-hush-hush-hush"), ("PORT", "9000")];
        let summary = Settings::from_pairs(Role::AllInOne, &pairs).expect("fine").summary();
        assert!(summary.contains(&("PORT", "9000".to_owned())));
        assert!(summary.contains(&("JWT_ACCESS_TOKEN", "(set)".to_owned())));
        assert!(!format!("{summary:?}").contains("hush"));
    }
}
