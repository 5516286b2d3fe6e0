//! One run: people come and talk, faults strike, everything calms down and is judged.
//!
//! The invariant: a run ends by itself, whatever the system does, and always with a report.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::{Shutdown, Tasks};
use testkit::client::line::Kind;
use tokio::time::Instant;

use crate::check::{self, Evidence, Lateness, Violation};
use crate::device::{Device, Notes};
use crate::history::{Incident, Sender};
use crate::plan::{CLOCK_MOST_S, Plan, Step};
use crate::quiet;
use crate::report::{Counts, Report};
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
const LATE_AFTER: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 5 });

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
    let stage = Stage::set(spec.shape, spec.defect.as_deref()).await;
    let world = World::make(&stage.system, spec.scale, spec.seed).await?;
    let (tasks, world) = (Tasks::new(Shutdown::new()), Arc::new(world));
    let (devices, incidents, violations, traces) = Default::default();
    let mut run = Run { spec, stage, world, tasks, devices, incidents, violations, traces };
    run.gather().await;
    run.strike().await;
    run.calm().await;
    let (counts, lateness) = run.judge().await?;
    run.tasks.shutdown().request();
    run.tasks.drained(Duration::from_secs(5)).await;
    if let Some(folder) = run.spec.keep.as_deref().filter(|_| !run.violations.is_empty()) {
        let copied = tokio::process::Command::new("cp").arg("-r").arg(run.stage.system.folder()).arg(folder).status();
        anyhow::ensure!(copied.await?.success(), "cannot copy to {}", folder.display());
    }
    run.say("everybody left");
    let leaks = if run.spec.quiet { quiet::check(&run.stage, run.spec.shape).await } else { Vec::new() };
    run.violations.extend(leaks.into_iter().map(|what| Violation { promise: "i", what }));
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
        self.say(&format!("VIOLATION {what}"));
        self.violations.push(Violation { promise, what });
    }

    /// Lets everybody come; half of them with two devices, of both kinds by turns.
    async fn gather(&mut self) {
        let owners: Vec<usize> = (0..self.world.users.len()).chain((0..self.world.users.len()).step_by(2)).collect();
        for (number, user) in owners.into_iter().enumerate() {
            let kind = if number % 2 == 0 { Kind::Native } else { Kind::SocketIo };
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
        for step in Plan::new(self.spec.shape, self.spec.seed) {
            if Instant::now() >= end && done >= self.spec.faults_least {
                return;
            }
            done += step.faults.len();
            self.strike_once(step).await;
        }
    }

    async fn strike_once(&mut self, step: Step) {
        tokio::time::sleep(step.calm).await;
        let what = step.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ");
        self.say(&format!("{what} for {} ms", step.hold.as_millis()));
        let from = self.world.clock.now();
        for fault in &step.faults {
            if let Err(error) = fault.begin(&mut self.stage).await {
                self.wrong("harness", format!("cannot do {fault}: {error:#}"));
            }
        }
        tokio::time::sleep(step.hold).await;
        for fault in &step.faults {
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
        self.incidents.push(Incident { what, from, to, ready });
    }

    /// Lets everything that was asked for be answered, stored and told.
    async fn calm(&mut self) {
        self.say("calming down");
        self.world.is_talking.store(false, Ordering::SeqCst);
        if !self.within(SETTLE_LIMIT, |run| run.world.in_hand() == 0).await {
            let left = self.world.in_hand();
            self.wrong("h", format!("{left} messages were not acked though nothing was wrong any more"));
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
                !is_member || truth.heads.get(room).is_some_and(|head| head.1 == view.rev())
            };
            notes.lock().views.iter().all(has)
        })
    }

    async fn judge(&mut self) -> anyhow::Result<(Counts, Lateness)> {
        let truth = Truth::read(&self.stage.system, &self.world, self.stage.management().as_ref()).await?;
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
        };
        let (found, lateness) = check::judge(&evidence);
        for violation in found {
            self.wrong(violation.promise, violation.what);
        }
        let traces = devices.iter().map(|(_, notes)| notes.log.trace.clone());
        self.traces = traces.filter(|trace| !trace.is_empty()).collect();
        for node in self.stage.system.all() {
            let log = node.log();
            if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
                self.violations.push(Violation { promise: "harness", what: format!("{}: {line}", node.label()) });
            }
        }
        let mut noted: BTreeMap<String, u64> = BTreeMap::new();
        for (what, count) in devices.iter().flat_map(|(_, notes)| &notes.log.counts) {
            *noted.entry(what.clone()).or_default() += count;
        }
        Ok((Counts::of(&senders, &devices, &truth, noted), lateness))
    }

    /// Stored times come from processors, whose clock is the one that is moved in an all-in-one.
    fn clocks_err_by(&self) -> Duration {
        Duration::from_secs(if self.spec.shape == Shape::AllInOne { CLOCK_MOST_S as u64 } else { 0 })
    }

    fn report(self, counts: Counts, lateness: Lateness) -> Report {
        Report {
            seed: self.spec.seed,
            shape: self.spec.shape,
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
