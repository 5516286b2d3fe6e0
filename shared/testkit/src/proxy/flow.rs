//! One direction of one connection: chunks that wait for their moment, in the order they came.
//!
//! The invariant: what waits here is bounded; while it is not passed on, the sender is not read.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Lines, Order, Way, Weather, mixed};

/// The most that is read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// The most that waits here.
const WAITING_BYTES: usize = 256 * 1024;
/// A direction without a byte at so many looks in a row is between two messages. One long look would
/// not do: on a busy machine, time also passes while nobody here could see the bytes that came.
const QUIET_LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// How long to wait for such a moment.
const QUIET_LIMIT: Duration = Duration::from_secs(1);
/// From the garbage to the reset.
const SPOILED: Duration = Duration::from_millis(200);

/// Why a flow cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The sender's side is broken.
    Sender,
    /// The receiver's side is broken; news of that travels the other way.
    Receiver(Way),
    /// It was spoilt here.
    OnPurpose,
}

/// Bytes under way from one side to the other.
pub(super) struct Flow<'a> {
    way: Way,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    passed_bytes: &'a AtomicU64,
    weather: watch::Receiver<Weather>,
    now: Weather,
    orders: watch::Receiver<Order>,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    waiting_bytes: usize,
    /// When the last byte will have left, at a limited rate.
    free_at: Instant,
    /// How often nothing was under way since the last byte came or went.
    quiet_looks: u32,
    /// The sender has closed.
    ended: bool,
    /// Since when garbage is due, and its seed.
    garbage: Option<(Instant, u64)>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(
        way: Way,
        from: ReadHalf<'a>,
        to: WriteHalf<'a>,
        lines: &'a Lines,
        orders: watch::Receiver<Order>,
    ) -> Self {
        let passed_bytes = match way {
            Way::ToServer => &lines.towards_server_bytes,
            Way::ToClient => &lines.towards_client_bytes,
        };
        let mut weather = lines.weather.subscribe();
        let (now, at) = (*weather.borrow_and_update(), Instant::now());
        let (waiting, waiting_bytes) = (VecDeque::new(), 0);
        let (free_at, quiet_looks, ended, garbage) = (at, 0, false, None);
        let mut flow = Self {
            way,
            from,
            to,
            passed_bytes,
            weather,
            now,
            orders,
            waiting,
            waiting_bytes,
            free_at,
            quiet_looks,
            ended,
            garbage,
        };
        flow.ordered();
        flow
    }

    /// Passes bytes on until the sender's end was passed on.
    pub(super) async fn run(mut self) -> Result<(), Broken> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let held = self.now.holds(self.way);
            if !held {
                self.pass_on().await?;
                if self.ended && self.waiting.is_empty() {
                    return self.end().await;
                }
            }
            let may_read = !held && !self.ended && self.waiting_bytes < WAITING_BYTES;
            let most = self.chunk_bytes();
            let due = if held { None } else { self.waiting.front().map(|(due, _)| *due) };
            if self.is_time_for_garbage() {
                return self.spoil().await;
            }
            tokio::select! {
                // What is rare comes first; bytes that came already are no quiet.
                biased;
                Ok(()) = self.weather.changed() => self.weather_changed(),
                Ok(()) = self.orders.changed() => self.ordered(),
                count = self.from.read(&mut buffer[..most]), if may_read => self.take(&buffer[..count.map_err(|_| Broken::Sender)?]),
                () = moment(due), if due.is_some() => {}
                () = sleep(BETWEEN_LOOKS), if self.garbage.is_some() => self.look(),
            }
        }
    }

    /// Small chunks on a slow line: they trickle instead of coming in lumps.
    fn chunk_bytes(&self) -> usize {
        match self.now {
            Weather::Slow { bytes_per_s, .. } if bytes_per_s > 0 => (bytes_per_s as usize / 20).clamp(16, CHUNK_BYTES),
            _ => CHUNK_BYTES,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        self.quiet_looks = 0;
        if bytes.is_empty() {
            self.ended = true;
            return;
        }
        let due = match self.now {
            Weather::Slow { delay, bytes_per_s } => {
                let under_way = Duration::from_secs(bytes.len() as u64).checked_div(bytes_per_s).unwrap_or_default();
                self.free_at = self.free_at.max(now) + under_way;
                self.free_at + delay
            }
            _ => now,
        };
        self.waiting_bytes += bytes.len();
        self.waiting.push_back((due, bytes.to_vec()));
    }

    async fn pass_on(&mut self) -> Result<(), Broken> {
        while let Some((due, _)) = self.waiting.front()
            && *due <= Instant::now()
        {
            let (_, chunk) = self.waiting.pop_front().expect("there is a front");
            self.waiting_bytes -= chunk.len();
            let written = self.to.write_all(&chunk).await;
            written.map_err(|_| Broken::Receiver(self.way.back()))?;
            self.passed_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            self.quiet_looks = 0;
        }
        Ok(())
    }

    /// Passes the sender's end on. Who is gone already does not miss it.
    async fn end(mut self) -> Result<(), Broken> {
        drop(self.to.shutdown().await);
        Ok(())
    }

    fn weather_changed(&mut self) {
        self.now = *self.weather.borrow_and_update();
        if !matches!(self.now, Weather::Slow { .. }) {
            let now = Instant::now();
            self.free_at = now;
            self.waiting.iter_mut().for_each(|(due, _)| *due = now);
        }
    }

    fn ordered(&mut self) {
        if let Order::Corrupt { way, seed } = *self.orders.borrow_and_update()
            && way == self.way
        {
            self.garbage = Some((Instant::now(), seed));
            self.quiet_looks = 0;
        }
    }

    fn look(&mut self) {
        let is_quiet = self.waiting.is_empty();
        self.quiet_looks = if is_quiet { self.quiet_looks + 1 } else { 0 };
    }

    fn is_time_for_garbage(&self) -> bool {
        let is_overdue = |since: Instant| since + QUIET_LIMIT <= Instant::now();
        self.garbage.is_some_and(|(since, _)| self.quiet_looks >= QUIET_LOOKS || is_overdue(since))
    }

    async fn spoil(mut self) -> Result<(), Broken> {
        let seed = self.garbage.map_or(0, |(_, seed)| seed);
        if !self.now.holds(self.way) {
            // A side that takes no bytes now shall not delay the reset.
            drop(timeout(SPOILED, self.to.write_all(&garbage(seed))).await);
        }
        sleep(SPOILED).await;
        Err(Broken::OnPurpose)
    }
}

/// Waits for it; without one, returns at once.
async fn moment(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at).await;
    }
}

/// Bytes that no parser takes for a beginning: 0xFF is no AMQP or Postgres frame, no HTTP method and
/// no WebSocket opcode, all lengths that follow are too long, and the unbalanced quote before the line's
/// end is what a Redis refuses in an inline command.
fn garbage(seed: u64) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    for (place, byte) in bytes[16..28].iter_mut().enumerate() {
        *byte = 0x80 | mixed(seed.wrapping_add(place as u64)) as u8;
    }
    bytes[28..].copy_from_slice(b"\"\xff\r\n");
    bytes
}
