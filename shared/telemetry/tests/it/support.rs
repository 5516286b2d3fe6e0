//! A running server and the plainest of clients.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use runtime::{Shutdown, Tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server on a free port and what ends it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) tasks: Tasks,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        Self::start_with(router, Tasks::new(Shutdown::new())).await
    }

    pub(crate) async fn start_with(router: Router, tasks: Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shutdown = tasks.shutdown().clone();
        telemetry::http::serve(listener, router, &tasks);
        Self { address, shutdown, tasks }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Status and body of one request on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        read_answer(&mut stream).await
    }

    pub(crate) async fn ended(self) -> bool {
        self.tasks.shutdown().request();
        self.tasks.drained(Duration::from_secs(5)).await && !self.tasks.failed()
    }
}

/// Reads to the end of the connection.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
