//! One thread's share of the clients, and what they have in common.
//!
//! The invariant: a worker's clients live on one thread, so nothing between them is locked; between workers only
//! counters are shared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::book::{Book, Counts, Fate, Window, now_us};
use crate::cast::Cast;
use crate::client::{Client, End};
use crate::dialect::Dialect;
use crate::mark::{Mark, Marks};
use crate::net::{NoConnection, Target};
use crate::seen::Seen;
use crate::standings::Standings;

/// What is read at a time.
const BUFFER_BYTES: usize = 256 * 1024;
/// Handshakes of a worker that are under way at a time.
const HANDSHAKES: usize = 256;
/// For how long a client tries to come in.
const PATIENCE: Duration = Duration::from_mins(1);
/// Complaints that are printed.
const COMPLAINTS: u64 = 5;

/// What all workers share and nobody changes.
pub(crate) struct Setting {
    pub(crate) cast: Cast,
    pub(crate) dialect: Dialect,
    pub(crate) targets: Vec<Target>,
    /// Drawn at the start: whose messages these are.
    pub(crate) run: u32,
    pub(crate) text_bytes: usize,
    pub(crate) threads: u32,
    /// Clients that lose their connection open another one.
    pub(crate) comes_back: bool,
    pub(crate) counts: Counts,
    pub(crate) standings: Option<Standings>,
    /// How many connections of this run are in each room.
    pub(crate) listeners: Vec<u32>,
    pub(crate) complaints: AtomicU64,
}

/// A worker.
pub(crate) struct Worker {
    pub(crate) setting: Arc<Setting>,
    pub(crate) clients: RefCell<Vec<Rc<Client>>>,
    pub(crate) book: RefCell<Book>,
    pub(crate) buffer: RefCell<Box<[u8]>>,
    pub(crate) marks: Marks,
    handshakes: Semaphore,
    /// The connections.
    kept: RefCell<JoinSet<()>>,
}

impl std::ops::Deref for Worker {
    type Target = Setting;

    fn deref(&self) -> &Setting {
        &self.setting
    }
}

impl Setting {
    /// Where a client connects.
    pub(crate) fn target(&self, client: u32) -> &Target {
        &self.targets[client as usize % self.targets.len()]
    }

    /// How many connections of this run hear a room.
    pub(crate) fn listeners(&self, room: u32) -> u32 {
        self.listeners.get(room as usize).copied().unwrap_or_default()
    }

    /// The name (`clientMsgId`) of a message, from which it is known again.
    pub(crate) fn name(mark: Mark) -> Uuid {
        let run_and_stream = u128::from(mark.run) << 32 | u128::from(mark.stream);
        Uuid::from_u128(run_and_stream << 64 | u128::from(mark.number))
    }

    /// The stream and the number of a message of this run, by its name.
    pub(crate) fn named(&self, name: Uuid) -> Option<(u32, u32)> {
        let bits = name.as_u128();
        ((bits >> 96) as u32 == self.run).then_some(((bits >> 64) as u32, bits as u32))
    }

    /// Says what should not be, a few times.
    #[allow(clippy::print_stderr, reason = "the terminal is where its user looks")]
    pub(crate) fn complain(&self, what: &str) {
        if self.complaints.fetch_add(1, Ordering::Relaxed) < COMPLAINTS {
            eprintln!("\rloadgen: {what}");
        }
    }
}

impl Worker {
    pub(crate) fn new(setting: Arc<Setting>, index: u32) -> Rc<Self> {
        let worker = Rc::new(Self {
            clients: RefCell::default(),
            book: RefCell::new(Book::new(Window { start: 0, end: 0, row: 1 })),
            buffer: RefCell::new(vec![0; BUFFER_BYTES].into()),
            marks: Marks::new(),
            handshakes: Semaphore::new(HANDSHAKES),
            kept: RefCell::default(),
            setting,
        });
        let mine = (index..worker.cast.connections).step_by(worker.threads as usize);
        let clients = mine.map(|number| Client::new(&worker, number)).collect();
        *worker.clients.borrow_mut() = clients;
        worker
    }

    /// Notes what became of a message, and what is owed to its recipients.
    pub(crate) fn decide(&self, stream: u32, number: u32, fate: Fate, listeners: u32) {
        let before = self.book.borrow_mut().decide(stream, number, fate);
        match (before, fate) {
            (Some(Fate::Waiting), Fate::Queued) => {
                self.counts.owed.fetch_add(listeners.into(), Ordering::Relaxed);
            }
            (Some(Fate::Queued), Fate::Refused) => {
                self.counts.owed.fetch_sub(listeners.into(), Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Opens all clients, so many a second (0: as fast as the handshakes go), and waits until all of them are
    /// ready or have given up.
    pub(crate) async fn open_all(self: &Rc<Self>, per_second: f64) {
        let clients = self.clients.borrow().clone();
        let (start, began) = (Instant::now(), now_us());
        let mut openings = JoinSet::new();
        for (index, client) in clients.into_iter().enumerate() {
            let due = Duration::from_secs_f64(if per_second > 0.0 { index as f64 / per_second } else { 0.0 });
            sleep_until(start + due).await;
            let intended = if per_second > 0.0 { began + due.as_micros() as u64 } else { 0 };
            openings.spawn_local(Rc::clone(self).open(client, intended));
        }
        openings.join_all().await;
    }

    fn keep_in_sight(self: &Rc<Self>, client: &Rc<Client>) {
        let mut kept = self.kept.borrow_mut();
        while kept.try_join_next().is_some() {}
        kept.spawn_local(Rc::clone(self).keep(Rc::clone(client)));
    }

    /// Opens one client, again and again until it is in. `intended` is when it was due, microseconds since
    /// 1970; 0: as soon as it has its turn.
    pub(crate) async fn open(self: Rc<Self>, client: Rc<Client>, intended: u64) {
        let turn = self.handshakes.acquire().await;
        let intended = if intended == 0 { now_us() } else { intended };
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(200);
        while Instant::now() < deadline {
            match client.connect(&self).await {
                Ok(()) => {
                    self.keep_in_sight(&client);
                    if client.settled().await {
                        let late = now_us().saturating_sub(intended).max(1);
                        self.book.borrow_mut().openings.saturating_record(late);
                        drop(turn);
                        return;
                    }
                    Counts::one(&self.counts.failed);
                }
                Err(error) => {
                    Counts::one(&self.counts.failed);
                    self.complain(&match error {
                        NoConnection::Answered(status) => format!("a handshake was answered with {status}"),
                        NoConnection::Failed(error) => format!("no connection: {error}"),
                    });
                }
            }
            sleep(pause.mul_f64(rand::rng().random_range(0.5..1.5))).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        self.complain("a client gave up");
    }

    /// Serves a client's connection; what comes after its end is the mode's.
    async fn keep(self: Rc<Self>, client: Rc<Client>) {
        let was_ready = client.is_ready();
        let end = client.serve(&self).await;
        if let End::Theirs { .. } = end
            && was_ready
        {
            Counts::one(&self.counts.ended);
            self.complain("a connection ended that nobody here ended");
        }
    }

    /// Begins a step; the notes of the one before.
    pub(crate) fn turn_page(&self, window: Window) -> Book {
        let fates = std::mem::take(&mut self.book.borrow_mut().fates);
        let mut book = Book::new(window);
        // Numbers go on: recipients know what came before.
        book.fates = fates;
        self.book.replace(book)
    }

    /// One of the clients that are ready, from a place drawn at random; none if none is.
    pub(crate) fn somebody(&self, among: usize) -> Option<Rc<Client>> {
        let clients = self.clients.borrow();
        let among = among.min(clients.len());
        if among == 0 {
            return None;
        }
        let start = rand::rng().random_range(0..among);
        let mut order = (start..among).chain(0..start);
        order.find(|at| clients[*at].is_ready()).map(|at| Rc::clone(&clients[at]))
    }

    /// Ends all connections in good order.
    pub(crate) async fn close_all(&self) {
        for client in self.clients.borrow().iter() {
            client.say_goodbye();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && self.clients.borrow().iter().any(|client| client.is_ready()) {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What each client saw.
    pub(crate) fn seen(&self) -> Vec<(u32, HashMap<u32, Seen>)> {
        self.clients.borrow().iter().map(|client| (client.number, client.seen())).collect()
    }
}
