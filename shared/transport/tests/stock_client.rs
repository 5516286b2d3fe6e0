//! The stock `engine.io-client` and `socket.io-client` against the example server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rstest::rstest;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const SCRIPT_LIMIT: Duration = Duration::from_mins(1);

/// Cargo builds examples along with tests, beside them.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.parent().and_then(Path::parent).expect("target/…/deps").join("examples/socketio_conformance")
}

/// The example on a free port, and its address.
async fn serve(mode: &str) -> (Child, String) {
    let mut command = Command::new(example());
    command.env("MODE", mode).env("PORT", "0").stderr(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut server = command.spawn().expect("the example starts");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let address = lines.next_line().await.expect("readable").expect("its address");
    (server, address)
}

#[rstest]
#[case::engine("engine", "engine-echo.mjs")]
#[case::socketio("socketio", "socketio-echo.mjs")]
#[tokio::test]
async fn every_transport_and_the_upgrade_carry_everything_in_order(#[case] mode: &str, #[case] script: &str) {
    let (_server, address) = serve(mode).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/js").join(script);
    let mut command = Command::new("node");
    command.arg(&script).env("ENGINE", address).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SCRIPT_LIMIT, command.output()).await;
    let output = output.expect("the script ends in time").expect("./test.sh --setup installs node");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
}
