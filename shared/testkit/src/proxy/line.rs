//! One connection through a proxy: two flows of bytes, and the ways in which it ends.
//!
//! The invariant: it ends as one. Once a side is broken or a reset is ordered, both sides are reset;
//! only when both sides have closed in good order is it closed in good order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use runtime::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::flow::{Broken, Flow};
use super::{Lines, Order, Way, Weather};

/// How long the server's kernel may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait when no descriptor is left for one more connection.
const BREATH: Duration = Duration::from_millis(20);

/// Takes connections until the proxy is dropped.
pub(super) async fn accept(listener: TcpListener, lines: Arc<Lines>, tasks: Tasks) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => tasks.detach_light(serve(client, Arc::clone(&lines))),
                Err(_) => tokio::time::sleep(BREATH).await,
            },
            () = lines.stop.requested() => return,
        }
    }
}

/// An entry among the open connections, as long as it lives.
struct Entry {
    lines: Arc<Lines>,
    number: u64,
    orders: watch::Receiver<Order>,
}

impl Entry {
    fn new(lines: Arc<Lines>) -> Self {
        let number = lines.opened.fetch_add(1, Ordering::Relaxed);
        let (sender, orders) = watch::channel(Order::Carry);
        lines.open.lock().insert(number, sender);
        Self { lines, number, orders }
    }

    /// Waits until this connection must be reset.
    async fn torn(&self) {
        let (mut weather, mut orders) = (self.lines.weather.subscribe(), self.orders.clone());
        tokio::select! {
            _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
            _ = orders.wait_for(|order| *order == Order::Reset) => {}
            () = self.lines.stop.requested() => {}
        }
    }

    /// Waits until bytes pass that way again.
    async fn passable(&self, way: Way) {
        let mut weather = self.lines.weather.subscribe();
        drop(weather.wait_for(|weather| !weather.holds(way)).await);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.lines.open.lock().remove(&self.number);
    }
}

async fn serve(mut client: TcpStream, lines: Arc<Lines>) {
    let entry = Entry::new(lines);
    let reached = tokio::select! {
        biased;
        () = entry.torn() => None,
        server = connect(&entry.lines) => server,
    };
    let Some(mut server) = reached else { return reset(client) };
    let broken = tokio::select! {
        () = entry.torn() => Broken::OnPurpose,
        carried = carry(&mut client, &mut server, &entry) => match carried {
            Ok(()) => return,
            Err(broken) => broken,
        },
    };
    if let Broken::Receiver(way) = broken {
        tokio::select! {
            () = entry.torn() => {}
            () = entry.passable(way) => {}
        }
    }
    reset(client);
    reset(server);
}

async fn connect(lines: &Lines) -> Option<TcpStream> {
    let target = lines.target.lock().clone();
    tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(target)).await.ok()?.ok()
}

/// Carries bytes both ways until both sides have closed or one is broken.
async fn carry(client: &mut TcpStream, server: &mut TcpStream, entry: &Entry) -> Result<(), Broken> {
    // It fails on a socket that is broken already, which reading will show.
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = Flow::new(Way::ToServer, from_client, to_server, &entry.lines, entry.orders.clone());
    let back = Flow::new(Way::ToClient, from_server, to_client, &entry.lines, entry.orders.clone());
    tokio::try_join!(there.run(), back.run()).map(drop)
}

/// Closes with RST instead of FIN; what was not sent yet is thrown away.
fn reset(stream: TcpStream) {
    // It fails on a socket that is broken already; closing that needs no RST.
    drop(stream.set_zero_linger());
    drop(stream);
}
