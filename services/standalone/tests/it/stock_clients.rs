//! The brief's seven steps with clients that nobody here wrote.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rstest::rstest;
use testkit::cluster::{SECRET, System, SystemSpec};
use tokio::process::Command;

const SCRIPT_LIMIT: Duration = Duration::from_mins(2);

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn stock_clients_walk_the_seven_steps(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    run(&system, "node", &tests().join("js/seven-steps.mjs")).await;
    run(&system, &python(), &tests().join("python/short_talk.py")).await;
    system.assert_healthy();
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn bad_clients_of_socket_io_are_told_why_and_harm_only_themselves(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    run(&system, "node", &tests().join("js/bad-socketio.mjs")).await;
    system.assert_healthy();
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn stock_socketio_clients_poll_go_over_and_are_recovered(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    run(&system, "node", &tests().join("js/transports.mjs")).await;
    system.assert_healthy();
}

#[tokio::test]
async fn a_stock_socketio_client_outlives_its_gateway_and_a_wipe_of_redis() {
    let system = SystemSpec::distributed(2, 2).start().await;
    run(&system, "node", &tests().join("js/recovery.mjs")).await;
    system.gateway(0).start_again().await;
    system.assert_healthy();
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests")
}

fn python() -> String {
    std::env::var("TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

async fn run(system: &System, program: &str, script: &Path) {
    let mut command = Command::new(program);
    command.arg(script).stdin(Stdio::null()).kill_on_drop(true);
    command.env("SECRET", SECRET).env("API", system.api().url());
    command.env("GATEWAY_A", system.gateway(0).url()).env("GATEWAY_B", system.gateway(1).url());
    command.env("GATEWAY_A_PID", system.gateway(0).id().to_string());
    if system.is_distributed() {
        command.env("REDIS_URL", system.redis().url());
    }
    let output = tokio::time::timeout(SCRIPT_LIMIT, command.output()).await;
    let output = output.expect("the script ends in time").expect("./test.sh --setup installs node and python");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}:\n{said}\n{complained}", script.display());
}
