//! Wrong settings stop a program before it listens, with a line for each and exit code 2.

use std::collections::BTreeMap;
use std::time::Duration;

use rstest::rstest;
use testkit::cluster::{NodeSpec, SECRET, hmac_key};
use testkit::folder::Folder;
use testkit::services::{RedisServer, free_port, fresh_postgres, fresh_rabbitmq};
use tokio::net::TcpStream;

const PROGRAMS: [&str; 4] = ["chatchit", "gateway", "processor", "api"];

/// A right environment with three services that are not there.
fn environment() -> BTreeMap<String, String> {
    let nobody = |scheme: &str| format!("{scheme}://user:hunter2@127.0.0.1:{}/x", free_port());
    [
        ("HOST", "127.0.0.1".to_owned()),
        ("PORT", free_port().to_string()),
        ("APP_ENV", "test".to_owned()),
        ("DATABASE_URL", nobody("postgres")),
        ("REDIS_URL", format!("redis://:hunter2@127.0.0.1:{}/0", free_port())),
        ("RABBITMQ_URL", nobody("amqp")),
        ("JWT_ACCESS_TOKEN", SECRET.to_owned()),
        ("HMAC_KEYS", hmac_key("k1")),
        ("STARTUP_WAIT", "1s".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

struct Refusal {
    lines: Vec<String>,
    output: String,
}

/// Starts `program` with `changes` (an empty value: absent); it must end with 2 and never listen.
async fn refused(program: &'static str, changes: &[(&str, &str)]) -> Refusal {
    let folder = Folder::new();
    let mut env = environment();
    env.insert("DATA_DIR".to_owned(), folder.path().join("data").display().to_string());
    for (name, value) in changes {
        if value.is_empty() {
            env.remove(*name)
        } else {
            env.insert((*name).to_owned(), (*value).to_owned())
        };
    }
    let port: Option<u16> = env.get("PORT").and_then(|port| port.parse().ok());
    let spec = NodeSpec { program, env, clock_ahead_s: 0, log: folder.path().join("log") };
    let run = tokio::time::timeout(Duration::from_secs(20), spec.run(&[]));
    let listened = async {
        loop {
            let address = port.map(|port| ("127.0.0.1", port));
            if let Some(address) = address
                && TcpStream::connect(address).await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (status, out, err) = tokio::select! {
        ended = run => ended.unwrap_or_else(|_| panic!("{program} runs with {changes:?}")),
        () = listened => panic!("{program} listens with {changes:?}"),
    };
    assert_eq!(status.code(), Some(2), "{program} {changes:?}: {out}{err}");
    let output = format!("{out}{err}");
    for secret in ["hunter2", SECRET, "S3CR3T"] {
        assert!(!output.contains(secret), "a secret's value in {output}");
    }
    assert!(!output.contains("panicked"), "{output}");
    Refusal { lines: err.lines().map(str::to_owned).collect(), output }
}

impl Refusal {
    /// Exactly one line names the variable.
    fn names(&self, variable: &str) -> &Self {
        let separates = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let naming = |line: &&String| line.split(separates).any(|word| word == variable);
        assert_eq!(self.lines.iter().filter(naming).count(), 1, "one line about {variable}: {}", self.output);
        self
    }
}

#[rstest]
#[case("PORT", "eighty")]
#[case("PORT", "70000")]
#[case("HOST", "not an address")]
#[case("ADMIN_PORT", "-1")]
#[case("DATABASE_URL", "mysql://S3CR3T@localhost/x")]
#[case("REDIS_URL", "S3CR3T")]
#[case("RABBITMQ_URL", "http://S3CR3T")]
#[case("HMAC_KEYS", "k1:S3CR3T")]
#[case("HMAC_KEYS", "S3CR3T")]
#[case("QUEUE_SHARDS", "0")]
#[case("QUEUE_SHARDS", "many")]
#[case("STARTUP_WAIT", "soon")]
#[case("JWT_ACCESS_EXPIRED", "7 days")]
#[case("JWT_REFRESH_EXPIRED", "0")]
#[case("MIGRATE", "perhaps")]
#[case("LIMIT_USER_EVENTS_PER_SEC", "-5")]
#[case("LIMIT_LOGINS_PER_MIN", "1.5")]
#[case("TRUSTED_PROXIES", "everybody")]
#[case("LOG_FORMAT", "xml")]
#[tokio::test]
async fn a_malformed_value_is_named_in_one_line(#[case] variable: &str, #[case] value: &str) {
    for program in PROGRAMS {
        let refusal = refused(program, &[(variable, value)]).await;
        refusal.names(variable);
        assert_eq!(refusal.lines.len(), 1, "{program}: {}", refusal.output);
    }
}

/// Runs `program` with these arguments and settings: exit code, standard output, standard error.
async fn ran(program: &'static str, arguments: &[&str], changes: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = Folder::new();
    let mut env = environment();
    env.insert("DATA_DIR".to_owned(), folder.path().join("data").display().to_string());
    env.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let spec = NodeSpec { program, env, clock_ahead_s: 0, log: folder.path().join("log") };
    let (status, out, err) =
        tokio::time::timeout(Duration::from_secs(20), spec.run(arguments)).await.expect("the program ends");
    (status.code(), out, err)
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_one_line_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for program in PROGRAMS {
        for (variable, example, changes) in [
            ("PORT", "PORT=8080", vec![("PORT", port.as_str())]),
            ("ADMIN_PORT", "ADMIN_PORT=9090", vec![("ADMIN_PORT", port.as_str())]),
            ("HOST", "HOST=127.0.0.1", vec![("HOST", "203.0.113.7")]),
        ] {
            let (code, out, err) = ran(program, &[], &changes).await;
            assert_eq!((code, err.lines().count(), out.as_str()), (Some(2), 1, ""), "{program}: {out}{err}");
            let is_right = err.starts_with(&format!("{variable}: cannot listen")) && err.trim_end().ends_with(example);
            assert!(is_right, "{program}: {err}");
        }
    }
}

#[tokio::test]
async fn where_no_server_has_kept_anything_commands_on_it_are_refused_and_leave_nothing_behind() {
    let folder = Folder::new();
    let data = folder.path().join("data").display().to_string();
    for arguments in
        [&["deadletters", "list"][..], &["deadletters", "drop", "--all"], &["admin", "grant", "a@b.example"]]
    {
        let env = BTreeMap::from([("DATA_DIR".to_owned(), data.clone()), ("APP_ENV".to_owned(), "test".to_owned())]);
        let spec = NodeSpec { program: "chatchit", env, clock_ahead_s: 0, log: folder.path().join("log") };
        let (status, out, err) = spec.run(arguments).await;
        assert_eq!((status.code(), err.lines().count(), out.as_str()), (Some(2), 1, ""), "{arguments:?}: {err}");
        assert!(err.starts_with(&format!("DATA_DIR: {data} cannot be used")), "{arguments:?}: {err}");
    }
    assert!(!std::path::Path::new(&data).exists());
}

#[tokio::test]
async fn a_service_says_what_it_is_and_takes_no_other_arguments() {
    for program in PROGRAMS {
        for (argument, word) in [("--help", "--version"), ("--version", program)] {
            let (code, out, err) = ran(program, &[argument], &[]).await;
            assert_eq!((code, err.as_str()), (Some(0), ""), "{program} {argument}: {out}");
            assert!(out.contains(word), "{program} {argument}: {out}");
        }
    }
    for program in ["gateway", "processor", "api"] {
        for argument in ["serve", "--port=1", "-x"] {
            let (code, out, err) = ran(program, &[argument], &[]).await;
            assert_eq!((code, err.lines().count(), out.as_str()), (Some(2), 1, ""), "{program} {argument}: {err}");
        }
    }
}

#[tokio::test]
async fn every_wrong_variable_has_its_line() {
    let wrong = [("PORT", "eighty"), ("HMAC_KEYS", "nonsense"), ("QUEUE_SHARDS", "0"), ("STARTUP_WAIT", "soon")];
    for program in PROGRAMS {
        let refusal = refused(program, &wrong).await;
        for (variable, _) in wrong {
            refusal.names(variable);
        }
        assert_eq!(refusal.lines.len(), wrong.len(), "{}", refusal.output);
    }
}

#[tokio::test]
async fn what_a_separate_service_needs_and_does_not_have_is_named() {
    let nothing =
        [("DATABASE_URL", ""), ("REDIS_URL", ""), ("RABBITMQ_URL", ""), ("HMAC_KEYS", ""), ("JWT_ACCESS_TOKEN", "")];
    for program in ["gateway", "processor", "api"] {
        let refusal = refused(program, &nothing).await;
        for variable in ["DATABASE_URL", "REDIS_URL", "RABBITMQ_URL", "HMAC_KEYS"] {
            refusal.names(variable);
        }
    }
    for program in ["gateway", "api"] {
        refused(program, &[("JWT_ACCESS_TOKEN", "")]).await.names("JWT_ACCESS_TOKEN");
    }
}

#[rstest]
#[case("DATABASE_URL")]
#[case("REDIS_URL")]
#[case("RABBITMQ_URL")]
#[tokio::test]
async fn some_of_the_three_urls_are_never_enough(#[case] missing: &str) {
    for program in PROGRAMS {
        refused(program, &[(missing, "")]).await.names(missing);
    }
}

#[tokio::test]
async fn an_unreachable_dependency_is_named_after_the_wait() {
    let redis = RedisServer::start().await;
    let (postgres, rabbitmq) = (fresh_postgres().await, fresh_rabbitmq().await);
    let there = [("DATABASE_URL", postgres), ("REDIS_URL", redis.url()), ("RABBITMQ_URL", rabbitmq)];
    for (program, missing) in
        [("gateway", "DATABASE_URL"), ("processor", "REDIS_URL"), ("api", "RABBITMQ_URL"), ("chatchit", "REDIS_URL")]
    {
        let changes = there.iter().filter(|(name, _)| *name != missing).map(|(name, url)| (*name, url.as_str()));
        let refusal = refused(program, &changes.collect::<Vec<_>>()).await;
        let last = refusal.lines.last().unwrap_or_else(|| panic!("{program} says nothing"));
        assert!(last.contains(missing), "{program}: {}", refusal.output);
    }
}

#[tokio::test]
async fn without_a_schema_nothing_starts_that_may_not_make_it() {
    let redis = RedisServer::start().await;
    let (postgres, rabbitmq) = (fresh_postgres().await, fresh_rabbitmq().await);
    let (redis, off) = (redis.url(), ("MIGRATE", "off"));
    let there = [("DATABASE_URL", postgres.as_str()), ("REDIS_URL", &redis), ("RABBITMQ_URL", &rabbitmq), off];
    for program in PROGRAMS {
        let refusal = refused(program, &there).await;
        assert!(refusal.names("DATABASE_URL").output.contains("chatchit migrate"), "{}", refusal.output);
    }
    let alone = [("DATABASE_URL", ""), ("REDIS_URL", ""), ("RABBITMQ_URL", ""), off];
    refused("chatchit", &alone).await.names("DATA_DIR");
}
