//! One run: people come and talk, faults strike, everything calms down and is judged.
//!
//! The invariant: a run that has begun ends by itself, whatever the system does, and with a report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use runtime::{Shutdown, Tasks};
use testkit::client::line::Kind;
use testkit::cluster::panic_in;
use tokio::time::Instant;

use crate::check::{self, Evidence, Judgement, Lateness, Violation};
use crate::device::{Device, Notes, SWITCHED_OFF, SWITCHED_ON};
use crate::fault::Fault;
use crate::history::{Answer, Incident, Reach, Sender};
use crate::plan::{CLOCK_MOST_S, Pace, Plan, Step};
use crate::quiet;
use crate::report::{Counts, Report, SHOWN};
use crate::stage::{Shape, Stage};
use crate::steward::Steward;
use crate::truth::Truth;
use crate::world::{Scale, World};

/// How long everybody may take to be connected and caught up.
const UP_LIMIT: Duration = Duration::from_secs(90);
/// How long programs may take to be ready after a fault was undone.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// How long everything may take to be stored and told once nothing is wrong any more.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// What a delivery may take in calm. Programs without optimisation on a busy machine take their time.
pub const LATE_AFTER: Duration = Duration::from_secs(if cfg!(debug_assertions) { 8 } else { 5 });
/// How devices are connected, by turns.
const KINDS: [Kind; 4] = [Kind::Native, Kind::SocketIo, Kind::Native, Kind::Polling];
/// Faults may last longer than all leases in runs that are longer than that.
const OUTLASTS_FROM: Duration = Duration::from_mins(10);

/// What to run.
#[derive(Debug, Clone)]
pub struct Spec {
    /// How the system is built.
    pub shape: Shape,
    /// Decides people, what they do, and the faults.
    pub seed: u64,
    /// How long faults strike.
    pub length: Duration,
    /// At least so many faults, however long that takes.
    pub faults_least: usize,
    /// How many people and rooms.
    pub scale: Scale,
    /// A defect that the programs were built with.
    pub defect: Option<String>,
    /// In the end leases are awaited, and whether anything stays behind.
    pub quiet: bool,
    /// Where logs and data are copied to when a promise was broken.
    pub keep: Option<PathBuf>,
    /// Says what happens on standard error.
    pub verbose: bool,
}

struct Run {
    spec: Spec,
    stage: Stage,
    world: Arc<World>,
    tasks: Tasks,
    /// Each device's user and notes.
    devices: Vec<(usize, Arc<Mutex<Notes>>)>,
    incidents: Vec<Incident>,
    violations: Vec<Violation>,
    traces: Vec<Vec<String>>,
}

/// Runs it to its end.
pub async fn run(spec: Spec) -> anyhow::Result<Report> {
    let stage = Stage::set(spec.shape, spec.defect.as_deref(), spec.length).await;
    let world = World::make(&stage.system, spec.scale, spec.seed, spec.length).await?;
    let (tasks, world) = (Tasks::new(Shutdown::new()), Arc::new(world));
    let (devices, incidents, violations, traces) = Default::default();
    let mut run = Run { spec, stage, world, tasks, devices, incidents, violations, traces };
    run.gather().await;
    run.strike().await;
    run.calm().await;
    run.tasks.shutdown().request();
    run.tasks.drained(Duration::from_secs(5)).await;
    run.say("everybody left");
    let (counts, lateness) = match run.judge().await {
        Ok(judged) => judged,
        Err(error) => {
            run.wrong("harness", format!("what the system holds cannot be read: {error:#}"));
            Default::default()
        }
    };
    if run.spec.quiet {
        let leaks = quiet::check(&run.stage, &run.world, run.spec.shape).await;
        for what in leaks {
            run.wrong("i", what);
        }
    }
    run.look_for_panics();
    if let Some(folder) = run.spec.keep.as_deref().filter(|_| !run.violations.is_empty()) {
        let disk = run.stage.disk().map(|disk| disk.path().to_owned());
        let what = [run.stage.system.folder().to_owned()].into_iter().chain(disk);
        drop(std::fs::create_dir_all(folder));
        let copied = tokio::process::Command::new("cp").arg("-r").args(what).arg(folder).status();
        if !copied.await.is_ok_and(|it| it.success()) {
            let what = format!("cannot copy to {}", folder.display());
            run.wrong("harness", what);
        }
    }
    Ok(run.report(counts, lateness))
}

impl Run {
    #[allow(clippy::print_stderr, reason = "a long run says how far it is")]
    fn say(&self, what: &str) {
        if self.spec.verbose {
            eprintln!("{:>8} ms  {what}", self.world.clock.now().0);
        }
    }

    fn wrong(&mut self, promise: &'static str, what: impl Into<String>) {
        let what = what.into();
        if self.violations.len() < SHOWN {
            self.say(&format!("VIOLATION {what}"));
        }
        self.violations.push(Violation { promise, what });
    }

    /// Lets everybody come; half of them with two devices, of all kinds by turns.
    async fn gather(&mut self) {
        let owners: Vec<usize> = (0..self.world.users.len()).chain((0..self.world.users.len()).step_by(2)).collect();
        for (number, user) in owners.into_iter().enumerate() {
            let kind = KINDS[number % KINDS.len()];
            let device = Device::new(&self.world, number, user, kind, self.spec.seed);
            self.devices.push((user, device.notes()));
            self.tasks.detach("device", device.live(self.tasks.shutdown().clone()));
        }
        for room in 0..self.world.rooms.len() {
            let steward = Steward::new(&self.world, room, self.spec.seed);
            self.tasks.detach("steward", steward.live(self.tasks.shutdown().clone()));
        }
        if !self.within(UP_LIMIT, |run| run.world.up.load(Ordering::SeqCst) == run.devices.len()).await {
            let up = self.world.up.load(Ordering::SeqCst);
            self.wrong("harness", format!("{up} of {} devices came in", self.devices.len()));
        }
        self.say("everybody is there");
        if self.spec.shape == Shape::AllInOne && self.stage.disk().is_none() {
            self.say("no disk may be mounted here: files are kept from growing instead");
        }
    }

    async fn within(&self, limit: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + limit;
        while !holds(self) {
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }

    async fn strike(&mut self) {
        let end = Instant::now() + self.spec.length;
        let mut done = 0;
        let pace = Pace { rest: LATE_AFTER + self.clocks_err_by(), outlasts: self.spec.length > OUTLASTS_FROM };
        for step in Plan::new(self.spec.shape, pace, self.spec.seed) {
            if Instant::now() >= end && done >= self.spec.faults_least {
                return;
            }
            done += self.strike_once(step).await;
        }
    }

    /// How many faults there were.
    async fn strike_once(&mut self, step: Step) -> usize {
        tokio::time::sleep(step.calm).await;
        let what = step.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
        self.say(&format!("{what} for {} ms", step.hold.as_millis()));
        let from = self.world.clock.now();
        let mut struck = Vec::new();
        for fault in step.faults {
            match fault.begin(&mut self.stage).await {
                Ok(true) => struck.push(fault),
                Ok(false) => self.say(&format!("{fault}: there was nothing to strike")),
                Err(error) => {
                    self.wrong("harness", format!("cannot do {fault}: {error:#}"));
                    struck.push(fault);
                }
            }
        }
        let lasted = join_all(struck.iter().map(|fault| fault.last(&self.stage, step.hold))).await;
        for (fault, lasted) in struck.iter().zip(&lasted) {
            match lasted {
                Ok(true) => {}
                Ok(false) => self.say(&format!("{fault}: there was nothing to strike")),
                Err(error) => self.wrong("harness", format!("{what}: {error:#}")),
            }
        }
        for fault in &struck {
            if let Err(error) = fault.end(&mut self.stage).await {
                self.wrong("harness", format!("cannot undo {fault}: {error:#}"));
            }
        }
        let to = self.world.clock.now();
        let (ended, is_ready) = self.stage.recover(READY_LIMIT).await;
        for what_ended in ended {
            self.wrong("harness", format!("{what_ended}, after {what}"));
        }
        let ready = is_ready.then(|| self.world.clock.now());
        if !is_ready {
            self.wrong("h", format!("not ready within {} s after {what}", READY_LIMIT.as_secs()));
        }
        let reach = |of: fn(Fault) -> Reach| struck.iter().map(|fault| of(*fault)).fold(Reach::Nobody, Reach::and);
        let (delays, blinds) = (reach(Fault::delays), reach(Fault::blinds));
        let (refuses, silences) = (reach(Fault::refuses), reach(Fault::silences));
        self.incidents.push(Incident { what, delays, blinds, refuses, silences, from, to, ready });
        lasted.iter().filter(|it| matches!(it, Ok(true))).count()
    }

    /// Lets everything that was asked for be answered, stored and told.
    async fn calm(&mut self) {
        self.say("calming down");
        self.world.is_talking.store(false, Ordering::SeqCst);
        if !self.within(SETTLE_LIMIT, |run| run.world.in_hand() == 0).await {
            let left = self.world.in_hand();
            self.wrong("h", format!("{left} messages were not acked though nothing was wrong any more"));
        }
        if !self.within(SETTLE_LIMIT, |run| run.world.stewards.load(Ordering::SeqCst) == 0).await {
            self.wrong("h", "changes of members were not accepted though nothing was wrong any more");
        }
        if !quiet::drained(&self.stage, SETTLE_LIMIT).await {
            self.wrong("h", "the queues did not become empty");
        }
        let end = Instant::now() + SETTLE_LIMIT;
        while !self.is_settled().await {
            if Instant::now() >= end {
                return self.say("not everybody has everything");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // Read marks have no number by which anybody could tell that they are all there.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    /// Every device has what the store holds, as far as it is a member.
    async fn is_settled(&self) -> bool {
        let Ok(truth) = Truth::rows(&self.stage.system, &self.world).await else { return false };
        self.devices.iter().all(|(user, notes)| {
            let me = self.world.user_id(*user).to_owned();
            let has = |(room, view): (&usize, &crate::view::View)| {
                let is_member = truth.members.contains_key(&(*room, me.clone()));
                let has_all = || truth.heads.get(room).is_some_and(|head| head.1 == view.rev());
                !is_member || !view.is_off() && has_all()
            };
            notes.lock().views.iter().all(has)
        })
    }

    async fn judge(&mut self) -> anyhow::Result<(Counts, Lateness)> {
        let (truth, silence) = Truth::read(&self.stage.system, &self.world, self.stage.management().as_ref()).await?;
        if let Some(silence) = silence {
            self.wrong("d", format!("the owner of the rooms is not told of them: {silence}"));
        }
        let take = |notes: &Arc<Mutex<Notes>>| std::mem::take(&mut *notes.lock());
        let devices: Vec<(usize, Notes)> = self.devices.iter().map(|(user, notes)| (*user, take(notes))).collect();
        let senders: Vec<Sender> = self.world.senders.iter().map(|it| std::mem::take(&mut *it.lock())).collect();
        let evidence = Evidence {
            world: &self.world,
            senders: &senders,
            devices: &devices,
            truth: &truth,
            incidents: &self.incidents,
            late_after_ms: (LATE_AFTER + self.clocks_err_by()).as_millis() as u64,
            clocks_ms: self.clocks_err_by().as_millis() as u64,
        };
        let Judgement { violations, lateness, changes_in_order } = check::judge(&evidence);
        for violation in violations {
            self.wrong(violation.promise, violation.what);
        }
        if changes_in_order == 0 {
            self.wrong("harness", "of no edit, deletion or reaction the order could be judged");
        }
        let traces = devices.iter().map(|(_, notes)| notes.log.trace.clone());
        self.traces = traces.filter(|trace| !trace.is_empty()).collect();
        let mut noted: BTreeMap<String, u64> = BTreeMap::new();
        for (what, count) in devices.iter().flat_map(|(_, notes)| &notes.log.counts) {
            *noted.entry(what.clone()).or_default() += count;
        }
        self.demand_activity(&senders, &noted);
        Ok((Counts::of(&senders, &devices, &truth, noted), lateness))
    }

    /// A run in which nothing of a kind happened shows nothing about it.
    fn demand_activity(&mut self, senders: &[Sender], noted: &BTreeMap<String, u64>) {
        let mut queued: BTreeMap<&str, usize> = BTreeMap::new();
        for sender in senders {
            let is_queued = |answer: &Answer| usize::from(matches!(answer, Answer::Queued { .. }));
            let messages = sender.messages.iter().map(|message| ("message.delivered", &message.answer));
            let changes = sender.changes.iter().map(|change| (change.wish.event(), &change.answer));
            for (what, answer) in messages.chain(changes) {
                *queued.entry(what).or_default() += is_queued(answer);
            }
        }
        for what in [
            "message.delivered",
            "message.edited",
            "message.deleted",
            "message.reaction",
            "room.updated",
            "room.memberLeft",
            "room.memberJoined",
        ] {
            if queued.get(what).is_none_or(|count| *count == 0) {
                self.wrong("harness", format!("there was not one {what}"));
            }
        }
        for what in [SWITCHED_ON, SWITCHED_OFF] {
            if !noted.contains_key(what) {
                self.wrong("harness", format!("there were no {what}"));
            }
        }
    }

    /// In the logs of all programs, those included that were taken away.
    fn look_for_panics(&mut self) {
        let folder = self.stage.system.folder().to_owned();
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
        if logs.is_empty() {
            self.wrong("harness", format!("no logs in {}", folder.display()));
        }
        for path in logs {
            let log = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            if let Some(line) = panic_in(&log) {
                self.wrong("harness", format!("{}: {line}", path.display()));
            }
        }
    }

    /// Stored times come from processors, whose clock is the one that is moved in an all-in-one.
    fn clocks_err_by(&self) -> Duration {
        Duration::from_secs(if self.spec.shape == Shape::AllInOne { CLOCK_MOST_S as u64 } else { 0 })
    }

    fn report(self, counts: Counts, lateness: Lateness) -> Report {
        Report {
            seed: self.spec.seed,
            shape: self.spec.shape,
            scale: self.spec.scale,
            faults_ms: self.spec.length.as_millis() as u64,
            defect: self.spec.defect,
            lasted_ms: self.world.clock.now().0,
            counts,
            lateness,
            incidents: self.incidents,
            violations: self.violations,
            traces: self.traces,
        }
    }
}
