//! Every variable: a right value, its absence, and wrong values, each with one line that names it.

use std::time::Duration;

use config::{Engine, Environment, ExposeSecret, LogFormat, Problem, Role, Settings, Source, variable};
use rstest::rstest;

const KEY: &str = "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const DISTRIBUTED: [(&str, &str); 5] = [
    ("DATABASE_URL", "postgres://chat:pw-hush@localhost/chat"),
    ("REDIS_URL", "redis://:pw-hush@localhost:6379/0"),
    ("RABBITMQ_URL", "amqp://chat:pw-hush@localhost:5672/%2F"),
    ("JWT_ACCESS_TOKEN", "a-secret-of-more-than-thirty-two-bytes"),
    ("HMAC_KEYS", KEY),
];

fn all_in_one(pairs: &[(&str, &str)]) -> Result<Settings, Vec<Problem>> {
    Settings::from_pairs(Role::AllInOne, pairs)
}

fn distributed_with(role: Role, changed: &[(&str, &str)]) -> Result<Settings, Vec<Problem>> {
    let kept = DISTRIBUTED.iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
    let pairs: Vec<(&str, &str)> = kept.chain(changed).copied().filter(|(_, value)| *value != "UNSET").collect();
    Settings::from_pairs(role, &pairs)
}

#[test]
fn nothing_set_is_the_embedded_engine_with_the_documented_defaults() {
    let settings = all_in_one(&[]).expect("nothing is required");
    assert_eq!(settings.environment, Environment::Development);
    assert_eq!((settings.http.host.to_string().as_str(), settings.http.port), ("0.0.0.0", 8080));
    assert_eq!(settings.http.admin_port, None);
    assert!(settings.http.cors_origins.is_empty() && settings.http.trusted_proxies.is_empty());
    assert!(matches!(&settings.engine, Engine::Embedded { sync_full: true, data_dir } if data_dir.ends_with("data")));
    assert_eq!(settings.access_lifetime, Duration::from_hours(7 * 24));
    assert_eq!(settings.refresh_lifetime, Duration::from_hours(30 * 24));
    assert_eq!((settings.queue_shards, settings.startup_wait, settings.migrate), (4, Duration::from_secs(10), true));
    let limits = settings.limits;
    assert_eq!((limits.user_events_per_sec, limits.user_burst, limits.logins_per_min), (100, 200, 10));
    assert_eq!((limits.ip_connections, limits.ip_handshakes_per_sec, limits.ip_failures_per_min), (0, 0, 600));
    assert_eq!((limits.user_devices, limits.openings, limits.handshakes_per_sec), (1000, 256, 0));
    assert_eq!(limits.queued_events, 50_000);
    assert_eq!(settings.room_log_kept, Some(Duration::from_hours(90 * 24)));
    assert_eq!((settings.logs.format, settings.logs.filter), (None, None));
    assert!(settings.jwt_secret.is_none() && settings.hmac_keys.is_none());
}

#[rstest]
#[case(Role::Gateway)]
#[case(Role::Processor)]
#[case(Role::Api)]
#[case(Role::AllInOne)]
fn three_urls_and_secrets_are_the_distributed_engine(#[case] role: Role) {
    let settings = distributed_with(role, &[]).expect("complete");
    assert!(settings.is_distributed() && settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(settings.hmac_keys.expect("set").expose_secret(), KEY);
}

#[rstest]
#[case("APP_ENV", "production")]
#[case("HOST", "::1")]
#[case("HOST", "[::1]")]
#[case("HOST", "localhost")]
#[case("PORT", "0")]
#[case("PORT", "65535")]
#[case("ADMIN_PORT", "9090")]
#[case("DATABASE_URL", "postgresql://u@[::1]:5432/db?sslmode=disable")]
#[case("DATABASE_URL", "postgres://localhost/db")]
#[case("REDIS_URL", "rediss://cache.example.com")]
#[case("REDIS_URL", "redis+cluster://cache.example.com")]
#[case("REDIS_URL", "rediss+cluster://chat:hush@a:6379,[::1]:6380,c/0")]
#[case("RABBITMQ_URL", "amqps://u:p@mq.example.com/vhost")]
#[case("JWT_ACCESS_TOKEN", "a-secret-of-20-bytes")]
#[case("HMAC_KEYS", "k1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=,k0:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")]
#[case("JWT_ACCESS_EXPIRED", "90s")]
#[case("JWT_REFRESH_EXPIRED", "12h")]
#[case("DATA_DIR", "/var/lib/chatchit")]
#[case("EMBEDDED_SYNC", "normal")]
#[case("QUEUE_SHARDS", "64")]
#[case("STARTUP_WAIT", "0s")]
#[case("BEACON_EVERY", "0s")]
#[case("BEACON_EVERY", "45s")]
#[case("STARTUP_WAIT", "1500ms")]
#[case("MIGRATE", "off")]
#[case("CORS_ORIGINS", "https://a.example.com, http://localhost:3000")]
#[case("CORS_ORIGINS", "*")]
#[case("CORS_ORIGINS", "")]
#[case("TRUSTED_PROXIES", "10.0.0.0/8,::1")]
#[case("LIMIT_USER_EVENTS_PER_SEC", "0")]
#[case("LIMIT_USER_BURST", "5")]
#[case("LIMIT_IP_CONNECTIONS", "10")]
#[case("LIMIT_IP_HANDSHAKES_PER_SEC", "10")]
#[case("LIMIT_IP_FAILURES_PER_MIN", "10")]
#[case("LIMIT_USER_DEVICES", "10")]
#[case("LIMIT_OPENINGS", "10")]
#[case("LIMIT_HANDSHAKES_PER_SEC", "10")]
#[case("LIMIT_LOGINS_PER_MIN", "0")]
#[case("LIMIT_QUEUED_EVENTS", "0")]
#[case("ROOM_LOG_KEPT", "0s")]
#[case("ROOM_LOG_KEPT", "1d")]
#[case("PRESENCE_GRACE", "0s")]
#[case("PRESENCE_GRACE", "1h")]
#[case("PRESENCE_IDLE", "0s")]
#[case("LOG_FORMAT", "json")]
#[case("RUST_LOG", "info,gateway=debug,hyper::proto=off")]
fn right_values_are_taken(#[case] name: &str, #[case] value: &str) {
    let outcome = distributed_with(Role::AllInOne, &[(name, value)]);
    assert!(outcome.is_ok(), "{name}={value}: {outcome:?}");
}

#[rstest]
#[case("APP_ENV", "prod")]
#[case("HOST", "example.com")]
#[case("PORT", "abc")]
#[case("PORT", "65536")]
#[case("PORT", "-1")]
#[case("PORT", "+80")]
#[case("PORT", "")]
#[case("ADMIN_PORT", "8080")]
#[case("ADMIN_PORT", "x")]
#[case("DATABASE_URL", "mysql://hush@localhost/db")]
#[case("DATABASE_URL", "postgres://")]
#[case("DATABASE_URL", "localhost:5432")]
#[case("DATABASE_URL", "")]
#[case("REDIS_URL", "http://:hush@localhost")]
#[case("REDIS_URL", "redis://:hush@localhost:port")]
#[case("REDIS_URL", "redis://:hush@localhost:6379,other:6379")]
#[case("REDIS_URL", "redis+cluster://:hush@localhost:6379,")]
#[case("REDIS_URL", "redis+cluster://:hush@localhost:6379,other:port")]
#[case("RABBITMQ_URL", "amqp://u:hush@:5672")]
#[case("RABBITMQ_URL", "amqp://u:hush@ host")]
#[case("JWT_ACCESS_TOKEN", "hush")]
#[case("JWT_ACCESS_TOKEN", "")]
#[case("HMAC_KEYS", "hush")]
#[case("HMAC_KEYS", "k1:hush!")]
#[case("HMAC_KEYS", "k1:aHVzaA==")]
#[case("HMAC_KEYS", "k 1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")]
#[case("HMAC_KEYS", "a:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=,a:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")]
#[case("HMAC_KEYS", ",")]
#[case("JWT_ACCESS_EXPIRED", "7")]
#[case("JWT_ACCESS_EXPIRED", "0s")]
#[case("JWT_ACCESS_EXPIRED", "7 days")]
#[case("JWT_REFRESH_EXPIRED", "99999999999999999999d")]
#[case("DATA_DIR", "")]
#[case("EMBEDDED_SYNC", "off")]
#[case("QUEUE_SHARDS", "0")]
#[case("QUEUE_SHARDS", "65")]
#[case("STARTUP_WAIT", "soon")]
#[case("BEACON_EVERY", "30")]
#[case("MIGRATE", "maybe")]
#[case("CORS_ORIGINS", "example.com")]
#[case("CORS_ORIGINS", "https://example.com/path")]
#[case("CORS_ORIGINS", "*,https://example.com")]
#[case("TRUSTED_PROXIES", "10.0.0.0/99")]
#[case("TRUSTED_PROXIES", "proxy.example.com")]
#[case("LIMIT_USER_EVENTS_PER_SEC", "-5")]
#[case("LIMIT_USER_BURST", "many")]
#[case("LIMIT_IP_CONNECTIONS", "1.5")]
#[case("LIMIT_IP_HANDSHAKES_PER_SEC", "x")]
#[case("LIMIT_IP_FAILURES_PER_MIN", "x")]
#[case("LIMIT_USER_DEVICES", "x")]
#[case("LIMIT_OPENINGS", "x")]
#[case("LIMIT_HANDSHAKES_PER_SEC", "x")]
#[case("LIMIT_LOGINS_PER_MIN", "99999999999")]
#[case("LIMIT_QUEUED_EVENTS", "lots")]
#[case("ROOM_LOG_KEPT", "23h")]
#[case("PRESENCE_GRACE", "61m")]
#[case("PRESENCE_IDLE", "soon")]
#[case("LOG_FORMAT", "xml")]
#[case("RUST_LOG", "info,gateway=loud")]
fn wrong_values_are_one_line_that_names_them_and_shows_no_secret(#[case] name: &str, #[case] value: &str) {
    let problems = distributed_with(Role::AllInOne, &[(name, value)]).expect_err("refused");
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!(problem.name, name);
    let line = problem.to_string();
    assert!(!line.contains('\n') && line.contains("; example: ") && !line.contains("hush"), "{line}");
}

#[test]
fn every_variable_of_the_table_was_tried_above() {
    let source = include_str!("variables.rs");
    for variable in variable::ALL {
        let tried = source.matches(&format!("#[case(\"{}\"", variable.name)).count();
        assert!(tried >= 2, "{}: a right and a wrong value", variable.name);
    }
}

#[test]
fn defaults_and_examples_of_the_table_are_right_values() {
    for variable in variable::ALL.iter().filter(|variable| !variable.example.contains('$')) {
        for value in variable.default.into_iter().chain([variable.example]) {
            let outcome = distributed_with(Role::AllInOne, &[(variable.name, value)]);
            assert!(outcome.is_ok(), "{}={value}: {outcome:?}", variable.name);
        }
    }
}

#[rstest]
#[case(Role::Gateway, &["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "JWT_ACCESS_TOKEN", "HMAC_KEYS"])]
#[case(Role::Api, &["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "JWT_ACCESS_TOKEN", "HMAC_KEYS"])]
#[case(Role::Processor, &["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "HMAC_KEYS"])]
fn what_a_service_needs_is_named_all_at_once(#[case] role: Role, #[case] needed: &[&str]) {
    let problems = Settings::from_pairs(role, &[]).expect_err("nothing is set");
    let names: Vec<&str> = problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, needed);
    for name in needed {
        let problems = distributed_with(role, &[(name, "UNSET")]).expect_err("one is missing");
        assert!(problems.len() == 1 && problems[0].name == *name, "{problems:?}");
    }
}

#[rstest]
#[case(&["DATABASE_URL"], &["REDIS_URL", "RABBITMQ_URL"])]
#[case(&["REDIS_URL"], &["DATABASE_URL", "RABBITMQ_URL"])]
#[case(&["DATABASE_URL", "RABBITMQ_URL"], &["REDIS_URL"])]
fn some_of_the_three_urls_are_no_engine(#[case] set: &[&str], #[case] missing: &[&str]) {
    let pairs: Vec<_> = DISTRIBUTED.iter().copied().filter(|(name, _)| set.contains(name)).collect();
    let problems = all_in_one(&pairs).expect_err("never a silent fall-back");
    let names: Vec<&str> = problems.iter().map(|problem| problem.name.as_str()).collect();
    assert_eq!(names, missing);
}

#[test]
fn secrets_come_from_files_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, "from-a-file-with-its-line-end\n").expect("written");
    let file = path.to_str().expect("UTF-8");
    let settings = distributed_with(Role::Api, &[("JWT_ACCESS_TOKEN", "UNSET"), ("JWT_ACCESS_TOKEN_FILE", file)]);
    assert_eq!(settings.expect("fine").jwt_secret.expect("read").expose_secret(), "from-a-file-with-its-line-end");
    let twice = distributed_with(Role::Api, &[("JWT_ACCESS_TOKEN_FILE", file)]).expect_err("which of the two?");
    assert_eq!(twice[0].name, "JWT_ACCESS_TOKEN");
}

#[test]
fn a_secret_file_that_cannot_be_read_is_named() {
    let pairs = [("HMAC_KEYS", "UNSET"), ("HMAC_KEYS_FILE", "/nowhere/keys")];
    let problems = distributed_with(Role::Processor, &pairs).expect_err("no such file");
    assert!(problems.len() == 1, "{problems:?}");
    assert_eq!(problems[0].name, "HMAC_KEYS_FILE");
}

#[test]
fn a_short_token_secret_is_a_warning_and_in_production_refused() {
    let short = ("JWT_ACCESS_TOKEN", "ten-bytes!");
    assert_eq!(distributed_with(Role::Api, &[short]).expect("taken").warnings.len(), 1);
    let problems = distributed_with(Role::Api, &[short, ("APP_ENV", "production")]).expect_err("refused");
    assert_eq!(problems[0].name, "JWT_ACCESS_TOKEN");
}

#[test]
fn settings_never_show_a_secret() {
    let settings = distributed_with(Role::AllInOne, &[]).expect("complete");
    let shown = format!("{settings:?}");
    assert!(!shown.contains("pw-hush") && !shown.contains("MDEyMz") && !shown.contains("thirty-two"), "{shown}");
}

#[test]
fn log_formats_and_bursts_have_their_meaning() {
    let settings = all_in_one(&[("LOG_FORMAT", "json"), ("LIMIT_USER_BURST", "0"), ("LIMIT_USER_EVENTS_PER_SEC", "7")]);
    let settings = settings.expect("fine");
    assert_eq!(settings.logs.format, Some(LogFormat::Json));
    assert_eq!(settings.limits.user_burst, 7, "zero means as many as in one second");
}

#[test]
fn several_problems_are_told_together() {
    let source = Source::of(&[("PORT", "x"), ("QUEUE_SHARDS", "0"), ("REDIS_URL", "redis://localhost")]);
    let problems = Settings::from_source(Role::AllInOne, &source).expect_err("four things are wrong");
    let mut names: Vec<&str> = problems.iter().map(|problem| problem.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["DATABASE_URL", "PORT", "QUEUE_SHARDS", "RABBITMQ_URL"]);
}
