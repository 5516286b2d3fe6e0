//! A small TCP proxy in front of one address: bad weather between two programs, on command.
//!
//! It knows bytes and no protocol. The invariant: what comes out of a connection is the beginning of
//! what went in, in order and without a hole; only `corrupt` adds bytes, and nothing follows these.

mod flow;
mod line;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Shutdown, Tasks};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How bytes fare between the two sides of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They arrive.
    Fine,
    /// Every connection is reset; new ones are accepted and reset at once.
    Cut,
    /// Every chunk arrives late. Order is kept, and at most 256 KiB wait here per direction; beyond
    /// that the sender waits.
    Slow {
        /// How long a byte is under way.
        delay: Duration,
        /// How many bytes leave per second and direction; 0: as many as come.
        bytes_per_s: u32,
    },
    /// Connections stay, new ones come about, and nothing arrives in the directions that are set, not
    /// even the end of a connection. Bytes are held back, not lost: the sender's kernel takes some
    /// megabytes, then its writes wait. So when the weather changes, connections go on where they
    /// were. Kernels still answer one another: only a program's own heartbeat notices.
    HalfOpen {
        /// What clients send does not arrive.
        towards_server: bool,
        /// What the server sends does not arrive.
        towards_client: bool,
    },
}

impl Weather {
    fn holds(self, way: Way) -> bool {
        match (self, way) {
            (Self::HalfOpen { towards_server, .. }, Way::ToServer) => towards_server,
            (Self::HalfOpen { towards_client, .. }, Way::ToClient) => towards_client,
            _ => false,
        }
    }
}

/// Which of the open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// One of them, chosen by the seed.
    One,
    /// All of them.
    All,
}

/// What went through a proxy so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections that clients opened, those included that were reset at once.
    pub opened: u64,
    /// Those of them that are open now.
    pub open: usize,
    /// Bytes that went on to the server.
    pub towards_server_bytes: u64,
    /// Bytes that went on to clients.
    pub towards_client_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

impl Way {
    fn back(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

/// What one connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Carry,
    Corrupt { way: Way, seed: u64 },
    Reset,
}

/// What a proxy's connections share.
#[derive(Debug)]
struct Lines {
    target: Mutex<String>,
    weather: watch::Sender<Weather>,
    open: Mutex<BTreeMap<u64, watch::Sender<Order>>>,
    opened: AtomicU64,
    towards_server_bytes: AtomicU64,
    towards_client_bytes: AtomicU64,
    stop: Shutdown,
}

/// A proxy on a free port of loopback. Dropping it resets its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    lines: Arc<Lines>,
}

impl Proxy {
    /// A proxy in front of `target` (`host:port`), in fine weather. While nobody listens there,
    /// connections are accepted and reset.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let stop = Shutdown::new();
        let lines = Arc::new(Lines {
            target: Mutex::new(target.to_owned()),
            weather: watch::Sender::new(Weather::Fine),
            open: Mutex::default(),
            opened: AtomicU64::new(0),
            towards_server_bytes: AtomicU64::new(0),
            towards_client_bytes: AtomicU64::new(0),
            stop: stop.clone(),
        });
        let tasks = Tasks::new(stop);
        tasks.own("proxy", line::accept(listener, Arc::clone(&lines), tasks.clone()));
        Self { port, lines }
    }

    /// A proxy in front of the server that `url` names; without a port, the scheme's usual one.
    pub async fn before(url: &str) -> Self {
        Self::start(&target_of(url)).await
    }

    /// Sends new connections elsewhere (`host:port`) from now on.
    pub fn retarget(&self, target: &str) {
        target.clone_into(&mut self.lines.target.lock());
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL with this proxy's host and port instead of its own; the rest stays.
    pub fn in_front_of(&self, url: &str) -> String {
        let (start, end) = host_and_port(url);
        format!("{}{}{}", &url[..start], self.address(), &url[end..])
    }

    /// Changes the weather, for the connections there are and for new ones, within milliseconds.
    pub fn set(&self, weather: Weather) {
        self.lines.weather.send_replace(weather);
        if weather == Weather::Cut {
            self.reset_all();
        }
    }

    /// The weather now.
    pub fn weather(&self) -> Weather {
        *self.lines.weather.borrow()
    }

    /// Resets every open connection; new ones pass. Returns how many these were.
    pub fn reset_all(&self) -> usize {
        let open = self.lines.open.lock();
        for orders in open.values() {
            orders.send_replace(Order::Reset);
        }
        open.len()
    }

    /// Puts 32 bytes that no protocol knows between two messages: in one direction, chosen by `seed`,
    /// as soon as that was quiet for some milliseconds (after a second at the latest: then perhaps
    /// within a message). Nothing follows them there, and 200 ms later the connection is reset.
    /// Returns in how many connections.
    pub fn corrupt(&self, seed: u64, whom: Whom) -> usize {
        let open = self.lines.open.lock();
        let chosen = |place: usize| whom == Whom::All || place as u64 == mixed(seed) % open.len() as u64;
        let mut count = 0;
        for (_, (number, orders)) in open.iter().enumerate().filter(|(place, _)| chosen(*place)) {
            let seed = mixed(seed ^ number.rotate_left(32));
            let way = if seed & 1 == 0 { Way::ToServer } else { Way::ToClient };
            let order = Order::Corrupt { way, seed };
            let taken = orders.send_if_modified(|now| {
                let obeys = *now == Order::Carry;
                if obeys {
                    *now = order;
                }
                obeys
            });
            count += usize::from(taken);
        }
        count
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            opened: self.lines.opened.load(Ordering::Relaxed),
            open: self.lines.open.lock().len(),
            towards_server_bytes: self.lines.towards_server_bytes.load(Ordering::Relaxed),
            towards_client_bytes: self.lines.towards_client_bytes.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lines.stop.request();
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): neighbouring seeds give unrelated numbers.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where host and port lie in a URL (RFC 3986, section 3.2).
fn host_and_port(url: &str) -> (usize, usize) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    (url[start..end].rfind('@').map_or(start, |at| start + at + 1), end)
}

/// The `host:port` that a URL names.
pub(crate) fn target_of(url: &str) -> String {
    let (start, end) = host_and_port(url);
    let target = &url[start..end];
    if target.rfind(':').is_some_and(|colon| target.rfind(']').is_none_or(|bracket| bracket < colon)) {
        return target.to_owned();
    }
    let port = match url.split(':').next() {
        Some("postgres" | "postgresql") => 5432,
        Some("redis") => 6379,
        Some("amqp") => 5672,
        _ => 80,
    };
    format!("{target}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_a_url_names_is_found() {
        assert_eq!(target_of("postgres://app:p@ss@db.example:1234/name?sslmode=disable"), "db.example:1234");
        assert_eq!(target_of("redis://127.0.0.1:6380/0"), "127.0.0.1:6380");
        assert_eq!(target_of("redis://cache"), "cache:6379");
        assert_eq!(target_of("postgres://[::1]/x"), "[::1]:5432");
        assert_eq!(target_of("amqp://app:secret@[::1]:5000/%2f"), "[::1]:5000");
        assert_eq!(target_of("127.0.0.1:80"), "127.0.0.1:80");
    }

    #[tokio::test]
    async fn only_host_and_port_of_a_url_change() {
        let proxy = Proxy::start("127.0.0.1:1").await;
        let url = proxy.in_front_of("amqp://app:p@ss@broker:5672/%2f?heartbeat=4#x");
        assert_eq!(url, format!("amqp://app:p@ss@{}/%2f?heartbeat=4#x", proxy.address()));
        assert_eq!(proxy.in_front_of("http://host"), format!("http://{}", proxy.address()));
    }
}
