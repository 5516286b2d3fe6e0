//! One client: a connection, what it has sent and waits for, and what it saw.
//!
//! Knows no schedule. The invariants: an idle client keeps no buffer, all of a worker's share one; whatever a
//! client is told passes the judgement of [`Seen`], live or caught up.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::book::{Counts, Fate, now_us};
use crate::catching::{Catching, Recovery};
use crate::dialect::{Command, Dialect, Heard, Pass};
use crate::frames::{self, Message, Opcode, Reader};
use crate::mark::Mark;
use crate::net::{Io, NoConnection};
use crate::position::{self, Position};
use crate::seen::{News, Seen};
use crate::standings;
use crate::worker::{Setting, Worker};

/// Reads of one client before the others have their turn.
const READS: usize = 16;

/// A room as a client knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) room: Uuid,
    /// What this client says there.
    pub(crate) stream: u32,
    /// How many connections of this run hear it.
    pub(crate) listeners: u32,
}

/// What an ack is waited for.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    Message { mark: Mark, listeners: u32 },
    Presence { intended: u64 },
    Sync { began: u64 },
    Beginning,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// We ended it.
    Ours,
    /// The server did, or something between.
    Theirs { retry_after: Option<u64> },
}

/// One of a worker's clients.
pub(crate) struct Client {
    pub(crate) number: u32,
    pub(crate) places: Vec<Place>,
    token: String,
    io: RefCell<Option<Io>>,
    out: RefCell<Vec<u8>>,
    reader: RefCell<Reader>,
    waker: RefCell<Option<Waker>>,
    is_ready: Cell<bool>,
    is_leaving: Cell<bool>,
    next_id: Cell<u32>,
    waiting: RefCell<HashMap<u32, Waiting>>,
    seen: RefCell<HashMap<u32, Seen>>,
    recovery: RefCell<Recovery>,
    /// It has come back and does not know yet what it missed.
    catching: RefCell<Option<Catching>>,
    /// How far it is in its rooms, by `seq`; known where clients come back.
    positions: RefCell<Vec<(Uuid, i64)>>,
    hint: Cell<Option<u64>>,
    changed: Notify,
}

impl Client {
    pub(crate) fn new(worker: &Worker, number: u32) -> Rc<Self> {
        let cast = &worker.cast;
        let stream = number * cast.rooms_per_user();
        let places = cast.rooms_of(number).enumerate().map(|(index, room)| Place {
            room: cast.room(room),
            stream: stream + index as u32,
            listeners: worker.listeners(room),
        });
        Rc::new(Self {
            number,
            places: places.collect(),
            token: cast.token(number),
            io: RefCell::default(),
            out: RefCell::default(),
            reader: RefCell::default(),
            waker: RefCell::default(),
            is_ready: Cell::new(false),
            is_leaving: Cell::new(false),
            next_id: Cell::new(1),
            waiting: RefCell::default(),
            seen: RefCell::default(),
            recovery: RefCell::default(),
            catching: RefCell::default(),
            positions: RefCell::default(),
            hint: Cell::new(None),
            changed: Notify::new(),
        })
    }

    /// True while commands can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready.get()
    }

    /// Ready when it is, or when its connection ended before.
    pub(crate) async fn settled(&self) -> bool {
        loop {
            let changed = self.changed.notified();
            if self.is_ready.get() || self.io.borrow().is_none() {
                return self.is_ready.get();
            }
            changed.await;
        }
    }

    /// Opens a connection as far as its handshake.
    pub(crate) async fn connect(&self, worker: &Worker) -> Result<(), NoConnection> {
        let dialect = worker.dialect;
        let room = self.places.first().map(|place| place.room);
        let device = format!("loadgen-{}", self.number);
        let path = dialect.path(&Pass { token: &self.token, device: &device, room, recovery: None });
        let (io, rest) = worker.target(self.number).open(&path, dialect.subprotocol()).await?;
        *self.io.borrow_mut() = Some(io);
        *self.reader.borrow_mut() = Reader::default();
        self.out.borrow_mut().clear();
        self.hint.set(None);
        self.is_leaving.set(false);
        self.recovery.borrow_mut().is_recovered = false;
        if dialect == Dialect::Raw {
            self.ready(worker);
        }
        self.take(worker, &rest);
        Ok(())
    }

    /// Serves the connection until it ends.
    pub(crate) async fn serve(&self, worker: &Worker) -> End {
        poll_fn(|cx| self.poll(cx, worker)).await;
        let was_ours = self.is_leaving.get();
        self.io.borrow_mut().take();
        if self.is_ready.replace(false) {
            worker.counts.open.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
        self.changed.notify_waiters();
        if was_ours { End::Ours } else { End::Theirs { retry_after: self.hint.get() } }
    }

    /// Ends the connection, as a network that fails does.
    pub(crate) fn leave(&self) {
        self.is_leaving.set(true);
        self.wake();
    }

    /// Ends the connection in good order.
    pub(crate) fn say_goodbye(&self) {
        self.write(Opcode::Close, &1000_u16.to_be_bytes());
        self.leave();
    }

    /// Sends a message into one of its rooms.
    pub(crate) fn send_message(&self, worker: &Worker, place: Place, intended: u64) {
        let number = worker.book.borrow_mut().next_number(place.stream);
        let mark = Mark { run: worker.run, stream: place.stream, number, intended };
        let text = mark.text(worker.text_bytes);
        let command = Command::Send { room: place.room, name: Setting::name(mark), text: &text };
        self.command(worker, command, Waiting::Message { mark, listeners: place.listeners }, intended);
    }

    fn stands(&self, worker: &Worker, user: Uuid, status: &str) {
        let Some(standings) = &worker.standings else { return };
        let Some(partner) = standings.partner(self.number) else { return };
        if worker.cast.user(partner) == user
            && let Some(intended) = standings.told(self.number, status)
        {
            Counts::one(&worker.counts.told);
            worker.book.borrow_mut().told(intended, now_us());
        }
    }

    /// Says how it stands.
    pub(crate) fn set_presence(&self, worker: &Worker, status: &str, intended: u64) {
        self.command(worker, Command::SetPresence { status }, Waiting::Presence { intended }, intended);
    }

    /// Stands from now on as everybody does in the beginning, however it stood before.
    fn begin_presence(&self, worker: &Worker) {
        self.command(worker, Command::SetPresence { status: standings::STATUSES[0] }, Waiting::Beginning, 0);
    }

    fn command(&self, worker: &Worker, command: Command<'_>, waiting: Waiting, intended: u64) {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        self.waiting.borrow_mut().insert(id, waiting);
        if !matches!(waiting, Waiting::Sync { .. } | Waiting::Beginning) {
            Counts::one(&worker.counts.sent);
            worker.book.borrow_mut().sent(intended);
        }
        let opcode = if worker.dialect.is_binary() { Opcode::Binary } else { Opcode::Text };
        self.write(opcode, &worker.dialect.say(id, command));
    }

    fn write(&self, opcode: Opcode, payload: &[u8]) {
        let mut out = self.out.borrow_mut();
        let was_empty = out.is_empty();
        frames::write(&mut out, opcode, payload, rand::random());
        if was_empty && let Some(io) = self.io.borrow().as_ref() {
            let written = io.try_write(&out).unwrap_or(0);
            out.drain(..written);
        }
        if out.is_empty() {
            // A client that said something once does not keep the room for it.
            *out = Vec::new();
        } else {
            drop(out);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn poll(&self, cx: &mut Context<'_>, worker: &Worker) -> Poll<()> {
        let is_known = self.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !is_known {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        if self.poll_write(cx).is_err() || self.is_leaving.get() {
            return Poll::Ready(());
        }
        for _ in 0..READS {
            let mut buffer = worker.buffer.borrow_mut();
            let mut read = ReadBuf::new(&mut buffer);
            let result = match self.io.borrow_mut().as_mut() {
                Some(io) => Pin::new(io).poll_read(cx, &mut read),
                None => return Poll::Ready(()),
            };
            match result {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => self.take(worker, read.filled()),
                Poll::Ready(_) => return Poll::Ready(()),
            }
            if self.is_leaving.get() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_write(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut out = self.out.borrow_mut();
        let mut io = self.io.borrow_mut();
        let Some(io) = io.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        while !out.is_empty() {
            match Pin::new(&mut *io).poll_write(cx, &out) {
                Poll::Ready(written) => drop(out.drain(..written?)),
                Poll::Pending => return Ok(()),
            }
        }
        match Pin::new(io).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn take(&self, worker: &Worker, bytes: &[u8]) {
        let mut reader = self.reader.take();
        let broken = reader.read(bytes, &mut |message| match message {
            Message::Data(payload) => self.heard(worker, payload),
            Message::Ping(payload) => self.write(Opcode::Pong, payload),
            // The end of the stream follows.
            Message::Close(_) => {}
        });
        self.reader.replace(reader);
        if broken.is_err() {
            worker.complain("what came is no WebSocket frame");
            self.leave();
        }
    }

    fn heard(&self, worker: &Worker, payload: &[u8]) {
        match worker.dialect.hear(payload) {
            Heard::Delivered { offset } => {
                self.told_live(worker, payload);
                if worker.comes_back {
                    self.note(&position::read(worker.dialect, payload));
                    if let Some(offset) = offset {
                        self.recovery.borrow_mut().offset = Some(offset.to_owned());
                    }
                }
            }
            Heard::Ack { id, refused } => self.acked(worker, id, refused, payload),
            Heard::Opened => self.ask_in(worker),
            Heard::Connected { pid } => {
                let mut recovery = self.recovery.borrow_mut();
                recovery.is_recovered = pid.is_some() && pid == recovery.pid;
                recovery.pid = pid;
                drop(recovery);
                self.ready(worker);
            }
            Heard::Ready { offset } => {
                if worker.comes_back && !self.recovery.borrow().is_known() {
                    self.note(&position::read(worker.dialect, payload));
                    self.recovery.borrow_mut().offset = offset.map(str::to_owned);
                }
                // On Socket.IO CONNECT is what counts.
                if !worker.dialect.needs_connect() {
                    self.ready(worker);
                }
            }
            Heard::Ping => self.write(Opcode::Text, b"3"),
            Heard::Presence { user, status } => self.stands(worker, user, &status),
            Heard::Failed { name } => {
                worker.book.borrow_mut().refused("FAILED".to_owned());
                if let Some((stream, number)) = name.and_then(|name| worker.named(name)) {
                    worker.decide(stream, number, Fate::Refused, self.listeners(stream));
                }
            }
            Heard::Refused { code, retry_after } => {
                worker.book.borrow_mut().refused(code);
                self.hint.set(retry_after);
            }
            Heard::Other => {}
        }
    }

    fn listeners(&self, stream: u32) -> u32 {
        self.places.iter().find(|place| place.stream == stream).map_or(0, |place| place.listeners)
    }

    fn ask_in(&self, worker: &Worker) {
        let recovery = self.recovery.borrow();
        let device = format!("loadgen-{}", self.number);
        let pass = Pass {
            token: &self.token,
            device: &device,
            room: None,
            recovery: recovery.pid.as_deref().zip(recovery.offset.as_deref()),
        };
        let connect = Dialect::connect(&pass);
        drop(recovery);
        debug_assert!(worker.dialect.needs_connect(), "only Socket.IO opens");
        self.write(Opcode::Text, connect.as_bytes());
    }

    fn ready(&self, worker: &Worker) {
        if !self.is_ready.replace(true) {
            Counts::one(&worker.counts.open);
            Counts::one(&worker.counts.opened);
            if worker.standings.as_ref().is_some_and(|standings| standings.is_new(self.number)) {
                self.begin_presence(worker);
            }
        }
        self.changed.notify_waiters();
    }

    fn acked(&self, worker: &Worker, id: u32, refused: Option<String>, payload: &[u8]) {
        let Some(waiting) = self.waiting.borrow_mut().remove(&id) else { return };
        let now = now_us();
        let is_taken = refused.is_none();
        match waiting {
            Waiting::Sync { began } => return self.synced(worker, payload, began),
            Waiting::Beginning => return,
            Waiting::Presence { intended } => worker.book.borrow_mut().acked(intended, now),
            Waiting::Message { mark, listeners } => {
                worker.book.borrow_mut().acked(mark.intended, now);
                let fate = if is_taken { Fate::Queued } else { Fate::Refused };
                worker.decide(mark.stream, mark.number, fate, listeners);
            }
        }
        Counts::one(if is_taken { &worker.counts.taken } else { &worker.counts.refused });
        if let Some(code) = refused {
            worker.book.borrow_mut().refused(code);
        }
    }

    fn told_live(&self, worker: &Worker, payload: &[u8]) {
        let now = now_us();
        let mut catching = self.catching.borrow_mut();
        for mark in marks(worker, payload) {
            match catching.as_mut() {
                Some(catching) => catching.hear(mark, now),
                None => self.told(worker, mark, now),
            }
        }
    }

    fn told(&self, worker: &Worker, mark: Mark, at: u64) {
        let mut seen = self.seen.borrow_mut();
        let seen = seen.entry(mark.stream).or_default();
        let overtaken = seen.overtaken;
        match seen.note(mark.number) {
            News::New => {
                Counts::one(&worker.counts.told);
                worker.book.borrow_mut().told(mark.intended, at);
            }
            News::Doubled => Counts::one(&worker.counts.doubled),
        }
        if seen.overtaken > overtaken {
            Counts::one(&worker.counts.overtaken);
        }
    }

    /// From now on it has to catch up; how far it is in its rooms. What it hears live after a loss is no proof of
    /// what came before.
    pub(crate) fn begin_to_catch_up(&self) -> Vec<(Uuid, i64)> {
        self.catching.replace(Some(Catching::default()));
        self.positions.borrow().clone()
    }

    /// After a loss of the connection: asks for what was missed since it was at `positions`, unless Socket.IO told it
    /// by itself.
    pub(crate) fn catch_up(&self, worker: &Worker, positions: &[(Uuid, i64)], began: u64) {
        if self.recovery.borrow().is_recovered || !worker.dialect.can_sync() {
            return self.resumed(worker, began);
        }
        self.ask_for(worker, positions, began);
    }

    fn ask_for(&self, worker: &Worker, rooms: &[(Uuid, i64)], began: u64) {
        self.command(worker, Command::Sync { rooms }, Waiting::Sync { began }, began);
    }

    fn synced(&self, worker: &Worker, payload: &[u8], began: u64) {
        let now = now_us();
        for mark in marks(worker, payload) {
            self.told(worker, mark, now);
            if let Some(catching) = self.catching.borrow_mut().as_mut() {
                catching.learn(mark);
            }
        }
        let positions = position::read(worker.dialect, payload);
        self.note(&positions);
        let incomplete: Vec<(Uuid, i64)> =
            positions.iter().filter(|it| !it.is_complete).map(|it| (it.room, it.seq)).collect();
        if incomplete.is_empty() {
            self.resumed(worker, began);
        } else {
            self.ask_for(worker, &incomplete, began);
        }
    }

    /// It is up to date again.
    fn resumed(&self, worker: &Worker, began: u64) {
        let late = now_us().saturating_sub(began).max(1);
        worker.book.borrow_mut().resumptions.saturating_record(late);
        Counts::one(&worker.counts.resumed);
        for (mark, at) in self.catching.take().into_iter().flat_map(Catching::news) {
            self.told(worker, mark, at);
        }
    }

    /// Remembers how far it is in its rooms.
    fn note(&self, news: &[Position]) {
        let mut positions = self.positions.borrow_mut();
        for news in news {
            match positions.iter_mut().find(|(room, _)| *room == news.room) {
                Some((_, seq)) => *seq = news.seq.max(*seq),
                None => positions.push((news.room, news.seq)),
            }
        }
    }

    /// What it saw of each stream.
    pub(crate) fn seen(&self) -> HashMap<u32, Seen> {
        self.seen.borrow().clone()
    }
}

/// Those of this run.
fn marks<'a>(worker: &'a Worker, payload: &'a [u8]) -> impl Iterator<Item = Mark> + 'a {
    worker.marks.all(payload).filter(|mark| mark.run == worker.run)
}
