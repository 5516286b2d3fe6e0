//! A Postgres behind a network that swallows everything and tells nobody: sockets stay open.

use std::time::Duration;

use domain::UserId;
use store::{Store, StoreSettings};
use testkit::services::fresh_postgres;
use testkit::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::bench::{begin, new_group, new_user};

/// How soon the store works again once the network does.
const RECOVERY_LIMIT: Duration = Duration::from_secs(8);
const CONNECTIONS: u32 = 4;

/// A wire to a server. A connection lives as long as the epoch in which it was made, if that is even;
/// afterwards nothing passes it in either direction, for ever.
struct Network {
    epoch: watch::Sender<u64>,
    port: u16,
}

impl Network {
    async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (epoch, now) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                tokio::spawn(forward(client, server, now.clone()));
            }
        });
        Self { epoch, port }
    }

    fn swallow(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Forwards again, on new connections.
    fn heal(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }
}

async fn forward(client: TcpStream, server: TcpStream, now: watch::Receiver<u64>) {
    let born = *now.borrow();
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let pump = async |mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf| {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if born % 2 == 1 || *now.borrow() != born {
                std::future::pending::<()>().await;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(pump(client_in, server_out), pump(server_in, client_out));
}

/// A store that reaches its server through the network, and a user.
async fn behind() -> (Network, Store, UserId) {
    let url = fresh_postgres().await;
    let (user_info, rest) = url.rsplit_once('@').expect("a URL with a user");
    let (server, database) = rest.split_once('/').expect("a URL with a database");
    let network = Network::before(server.to_owned()).await;
    let url = format!("{user_info}@127.0.0.1:{}/{database}", network.port);
    let store = Store::open(StoreSettings::Postgres { url, max_connections: CONNECTIONS }).await.expect("opens");
    store.migrate().await.expect("migrates");
    let ann = UserId::generate();
    store.create_user(&new_user(ann, "ann@example.com")).await.expect("made");
    (network, store, ann)
}

/// True when as many transactions as there may be connections are open at once.
async fn all_connections_work(store: &Store, ann: UserId) -> bool {
    let begun = (0..CONNECTIONS).map(|_| async {
        let room = new_group(domain::RoomId::generate(), &[ann]);
        begin(store, room.id, &[ann]).await
    });
    let begun = futures_util::future::join_all(begun).await;
    begun.iter().all(Result::is_ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_gave_up_while_nothing_answered_cost_no_connection() {
    let (network, store, ann) = behind().await;
    // Connections that wait in the pool, trusted for a moment.
    let calls = (0..CONNECTIONS).map(|_| store.user(ann));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    network.swallow();
    for _ in 0..3 {
        let calls = (0..CONNECTIONS).map(|_| tokio::time::timeout(Duration::from_millis(300), store.user(ann)));
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().all(|answer| !matches!(answer, Ok(Ok(_)))), "nothing answers");
    }
    network.heal();
    until(RECOVERY_LIMIT, || all_connections_work(&store, ann)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_under_way_when_nothing_answers_any_more_costs_no_connection() {
    let (network, store, ann) = behind().await;
    let (stop, stopped) = watch::channel(false);
    let callers = (0..16).map(|_| {
        let (store, stopped) = (store.clone(), stopped.clone());
        tokio::spawn(async move {
            while !*stopped.borrow() {
                // What it says does not matter here.
                let _answer = tokio::time::timeout(Duration::from_secs(1), store.user(ann)).await;
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        network.swallow();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        network.heal();
        until(RECOVERY_LIMIT, || async { store.user(ann).await.is_ok() }).await;
    }
    stop.send_replace(true);
    futures_util::future::join_all(callers).await;
    until(RECOVERY_LIMIT, || all_connections_work(&store, ann)).await;
}
