//! The page that the all-in-one serves, in a real browser.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use testkit::cluster::{System, SystemSpec};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

const SCRIPT_LIMIT: Duration = Duration::from_mins(3);

#[tokio::test]
async fn two_people_chat_in_two_tabs_of_a_browser() {
    let system = SystemSpec::all_in_one().start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/js/page.mjs");
    let mut command = Command::new("node");
    command.arg(script).env("GATEWAY_A", system.gateway(0).url()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("./test.sh --setup installs node");
    let walk = tokio::time::timeout(SCRIPT_LIMIT, walk(&system, child));
    let (succeeded, said, complained) = walk.await.expect("the script ends in time");
    assert!(succeeded, "{said}\n{complained}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok: ")).count(), 12, "{said}");
    system.assert_healthy();
}

/// Follows the script to its end, killing and starting the server when it asks: whether it succeeded, and what it said.
async fn walk(system: &System, mut child: Child) -> (bool, String, String) {
    let (mut input, mut errors) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut said, mut complained) = (String::new(), String::new());
    while let Some(line) = lines.next_line().await.unwrap() {
        if line == "kill the server" {
            system.gateway(0).kill9().await;
            input.write_all(b"killed\n").await.unwrap();
        }
        if line == "start the server" {
            system.gateway(0).start_again().await;
            input.write_all(b"started\n").await.unwrap();
        }
        said.push_str(&line);
        said.push('\n');
    }
    errors.read_to_string(&mut complained).await.unwrap();
    (child.wait().await.unwrap().success(), said, complained)
}
