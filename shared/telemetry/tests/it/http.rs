//! What the HTTP server of all services promises.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{Server, read_answer};
use ::http::StatusCode;
use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::IntoResponse as _;
use axum::routing::get;
use hyper_util::rt::TokioIo;
use runtime::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

#[tokio::test]
async fn handlers_learn_the_peers_address() {
    let router =
        Router::new().route("/", get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string()));
    let server = Server::start(router).await;
    assert_eq!(server.get("/").await, (200, "127.0.0.1".to_owned()));
    assert_eq!(server.get("/nowhere").await.0, 404);
    assert!(server.ended().await);
}

async fn panicking() -> &'static str {
    panic!("a detail of the inside")
}

#[tokio::test]
async fn a_panic_is_an_answer_without_detail_and_harms_nobody_else() {
    let router = Router::new().route("/panic", get(panicking)).route("/fine", get(async || "fine"));
    let server = Server::start(router).await;
    let (status, body) = server.get("/panic").await;
    assert!(status == 500 && !body.contains("detail") && body.contains("INTERNAL"), "{status} {body}");
    assert_eq!(server.get("/fine").await.0, 200);
    assert!(server.ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_finish_its_headers_is_closed() {
    let server = Server::start(Router::new()).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: te").await.expect("sent");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(15), slow.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "closed after 10 s");
}

#[tokio::test]
async fn a_stop_finishes_open_requests_and_refuses_new_connections() {
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (in_handler, in_test) = ((Arc::clone(&started), Arc::clone(&finish)), (started, finish));
    let slow = async move || {
        in_handler.0.notify_one();
        in_handler.1.notified().await;
        "done"
    };
    let server = Server::start(Router::new().route("/slow", get(slow))).await;
    let mut open = server.connect().await;
    open.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.expect("sent");
    in_test.0.notified().await;
    server.shutdown.request();
    while tokio::net::TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    in_test.1.notify_one();
    assert_eq!(read_answer(&mut open).await, (200, "done".to_owned()));
    assert!(server.ended().await);
}

async fn switch_protocol(request: Request) -> axum::response::Response {
    // The socket lives on in a task of its own, as a gateway's session does, and says all back.
    let upgrade = hyper::upgrade::on(request);
    Tasks::new(Shutdown::new()).detach("socket", async move {
        let socket = TokioIo::new(upgrade.await.expect("upgraded"));
        let (mut from, mut to) = tokio::io::split(socket);
        // It ends when the test does.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "test")]).into_response()
}

#[tokio::test]
async fn an_upgraded_socket_outlives_the_stop_and_does_not_hold_it_up() {
    let server = Server::start(Router::new().route("/socket", get(switch_protocol))).await;
    let mut socket = server.connect().await;
    let request = b"GET /socket HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n";
    socket.write_all(request).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    assert!(server.ended().await, "the HTTP side is done with it");
    socket.write_all(b"still here").await.expect("sent");
    let mut echo = [0; 10];
    socket.read_exact(&mut echo).await.expect("said back");
    assert_eq!(&echo, b"still here");
}
