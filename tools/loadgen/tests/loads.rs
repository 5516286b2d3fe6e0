//! The generator against a whole server, and against servers that lie.
//!
//! The invariant: where all is well it says so in every mode and dialect, and what is lost, doubled or out of
//! order never passes.
#![allow(clippy::unwrap_used, reason = "a test may panic wherever it likes")]

use std::io::Write as _;
use std::process::{Command, Output};

use futures_util::{SinkExt as _, StreamExt as _};
use rstest::rstest;
use serde_json::Value;
use testkit::cluster::{System, SystemSpec};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

const PEOPLE: [&str; 6] = ["--users", "12", "--rooms", "4", "--members", "6"];

async fn seeded() -> System {
    let system = SystemSpec::all_in_one().start().await;
    let (status, _, said) = system.spec("chatchit", 0).run(&[&["seed"], &PEOPLE[..], &["--pairs"]].concat()).await;
    assert!(status.success(), "{said}");
    system
}

async fn load(url: &str, arguments: &[&str]) -> (Output, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(testkit::cluster::SECRET.as_bytes()).unwrap();
    command.arg("--secret-file").arg(secret.path()).args(["--url", url, "--json", "-"]);
    command.args(["--seconds", "2", "--warmup", "0.5", "--limit-ms", "30000"]).args(PEOPLE).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output, report)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[rstest]
#[case::chat(&["chat", "--rate", "40,60"])]
#[case::chat_by_two_threads(&["chat", "--rate", "50", "--threads", "2"])]
#[case::fanout(&["fanout", "--rate", "20", "--senders", "2"])]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_reaches_everybody_in_every_dialect(#[case] mode: &[&str]) {
    let system = seeded().await;
    let url = system.gateway(0).clients_url();
    let dialects = [&["--codec", "json"][..], &["--codec", "protobuf"][..], &["--transport", "socketio"][..]];
    for dialect in dialects {
        let (output, report) = load(&url, &[mode, dialect].concat()).await;
        assert!(output.status.success(), "{}", said(&output));
        let verdict = &report["verdict"];
        let queued = verdict["queued"].as_u64().unwrap();
        assert!(queued > 30, "{report}");
        assert_eq!(verdict["owed"].as_u64(), Some(queued * 6), "each room has six members: {report}");
        for step in report["steps"].as_array().unwrap() {
            assert!(step["isKept"].as_bool().unwrap(), "{step}");
            assert!(
                step["deliveries"]["count"].as_u64() >= step["acks"]["count"].as_u64().map(|acks| acks * 6),
                "{step}"
            );
            assert!(step["acks"]["p50"].as_f64() > Some(0.0), "{step}");
        }
    }
}

#[rstest]
#[case::idle(&["idle"], "openings", 12)]
#[case::presence(&["presence", "--rate", "5"], "deliveries", 5)]
#[case::connect(&["connect", "--rate", "10"], "openings", 15)]
#[case::reconnect(&["reconnect", "--steady", "4", "--rate", "20", "--spread", "0.2"], "resumptions", 8)]
#[tokio::test(flavor = "multi_thread")]
async fn every_mode_measures_what_it_is_for(#[case] mode: &[&str], #[case] what: &str, #[case] least: u64) {
    let system = seeded().await;
    let url = system.gateway(0).clients_url();
    let watched = format!("server={}", system.gateway(0).id());
    for transport in ["native", "socketio"] {
        let arguments = [mode, &["--transport", transport, "--process", &watched]].concat();
        let (output, report) = load(&url, &arguments).await;
        assert!(output.status.success(), "{transport}: {}", said(&output));
        let step = &report["steps"][0];
        assert!(step[what]["count"].as_u64() >= Some(least), "{transport}: {step}");
        assert_eq!(step["connections"].as_u64(), Some(12), "{transport}: {step}");
        assert!(step["processes"]["server"]["rssBytes"].as_u64() > Some(1_000_000), "{transport}: {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_written_and_what_cannot_be_run_says_so() {
    let system = seeded().await;
    let url = system.gateway(0).clients_url();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let (output, _) = load(&url, &["chat", "--rate", "20", "--html", page.to_str().unwrap()]).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
    let (output, _) = load(&url, &["chat", "--members", "13"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let (output, _) = load("ftp://127.0.0.1", &["idle"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

/// How a server lies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    No,
    Loses,
    Doubles,
    Swaps,
    NeverAcks,
}

/// A server that speaks as the peer `raw` does, one room for everybody, and lies about every tenth message.
async fn liar(lie: Lie) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (told, _) = broadcast::channel::<(u64, String)>(10_000);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, told.clone(), lie));
        }
    });
    url
}

async fn serve(stream: tokio::net::TcpStream, told: broadcast::Sender<(u64, String)>, lie: Lie) {
    let mut heard = told.subscribe();
    let mut socket = accept_async(stream).await.unwrap();
    let mut held: Option<String> = None;
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(Message::Text(text))) = message else { return };
                let command: Value = serde_json::from_str(&text).unwrap();
                let id = command["id"].as_u64().unwrap();
                let frame = format!("{{\"event\":\"message.delivered\",\"data\":{}}}", command["data"]);
                if lie != Lie::NeverAcks || !id.is_multiple_of(10) {
                    let ack = format!("{{\"id\":{id},\"ack\":{{\"status\":\"QUEUED\"}}}}");
                    socket.send(ack.into()).await.unwrap();
                }
                told.send((id, frame)).unwrap();
            }
            Ok((id, frame)) = heard.recv() => {
                let is_lied_about = id % 10 == 5;
                if is_lied_about && lie == Lie::Swaps && held.is_none() {
                    held = Some(frame);
                    continue;
                }
                if is_lied_about && lie == Lie::Loses {
                    continue;
                }
                socket.send(frame.clone().into()).await.unwrap();
                if is_lied_about && lie == Lie::Doubles {
                    socket.send(frame.into()).await.unwrap();
                }
                if id % 10 == 8 && let Some(late) = held.take() {
                    socket.send(late.into()).await.unwrap();
                }
            }
        }
    }
}

#[rstest]
#[case(Lie::No, None)]
#[case(Lie::Loses, Some("lost"))]
#[case(Lie::Doubles, Some("doubled"))]
#[case(Lie::Swaps, Some("overtaken"))]
#[case(Lie::NeverAcks, Some("unanswered"))]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_lies_is_found_out(#[case] lie: Lie, #[case] what: Option<&str>) {
    let url = liar(lie).await;
    // 120 messages: the last that is swapped has others after it.
    let room = ["--server", "raw", "--users", "2", "--rooms", "1", "--members", "2", "--drain", "2"];
    let (output, report) = load(&url, &[&room[..], &["fanout", "--senders", "1", "--rate", "48"]].concat()).await;
    let verdict = &report["verdict"];
    for name in ["lost", "doubled", "overtaken", "unanswered"] {
        assert_eq!(verdict[name].as_u64() > Some(0), what == Some(name), "{lie:?} {name}: {verdict}");
    }
    assert_eq!(output.status.success(), what.is_none(), "{}", said(&output));
}
