//! One program as a child process: what is done to it, and what it says of itself.
//!
//! It keeps its port, its folder and its proxies over restarts.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rustix::process::Signal;

use super::launch::{Launch, NodeSpec};
use super::links::{Links, Service};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::wait::holds_within;
use crate::{PATIENCE, until};

/// How long a program may take to answer a question about itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How long the kernel may take to end a killed process on a busy machine.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// A running program.
#[derive(Debug)]
pub struct Node {
    label: String,
    process: RwLock<Process>,
    spec: RwLock<NodeSpec>,
    launch: Launch,
    links: Links,
    is_paused: AtomicBool,
    http: reqwest::Client,
}

impl Node {
    /// Starts it without waiting for anything.
    pub(super) fn spawn(spec: NodeSpec, launch: Launch) -> Self {
        Self {
            label: spec.program.to_owned(),
            process: RwLock::new(launch.spawn(&spec)),
            spec: RwLock::new(spec),
            launch,
            links: Links::default(),
            is_paused: AtomicBool::new(false),
            http: reqwest::Client::new(),
        }
    }

    /// The same with the name that a system gave it and the proxies it was started behind.
    pub(super) fn behind(self, label: String, links: Links) -> Self {
        Self { label, links, ..self }
    }

    /// What the system calls it: `gateway-0`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The port it serves on, the same after a restart.
    pub fn port(&self) -> u16 {
        self.spec.read().env["PORT"].parse().expect("the port is a number")
    }

    /// `http://127.0.0.1:PORT`, always without a proxy.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// Where clients find it: through its proxy, when it has one.
    pub fn clients_url(&self) -> String {
        self.proxy(Service::Clients).map_or_else(|| self.url(), |proxy| proxy.in_front_of(&self.url()))
    }

    /// Its proxy for a service.
    pub fn proxy(&self, service: Service) -> Option<&Proxy> {
        self.links.get(service)
    }

    /// All its proxies.
    pub fn proxies(&self) -> impl Iterator<Item = (Service, &Proxy)> {
        self.links.all()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.read().id()
    }

    /// The status of `/readyz`; `None` when it does not answer.
    pub async fn readyz(&self) -> Option<u16> {
        let request = self.http.get(format!("{}/readyz", self.url())).timeout(ANSWER_LIMIT);
        request.send().await.ok().map(|answer| answer.status().as_u16())
    }

    /// Waits until `/readyz` says 200; panics with the log when the program ends instead.
    pub async fn wait_ready(&self) {
        until(2 * PATIENCE, || async {
            let ended = self.process.read().ended();
            assert!(ended.is_none(), "{} ended at start: {ended:?}\n{}", self.label, self.log_tail());
            self.readyz().await == Some(200)
        })
        .await;
    }

    /// Waits until `/readyz` says 200: false when it does not within `limit`, and at once when the
    /// program has ended or is paused.
    pub async fn try_wait_ready(&self, limit: Duration) -> bool {
        let is_idle = || self.is_paused() || self.ended().is_some();
        let is_settled = || async { is_idle() || self.readyz().await == Some(200) };
        holds_within(limit, is_settled).await && !is_idle()
    }

    /// The value of a metric summed over the series whose labels hold all of `labels` (`class="high"`);
    /// 0 when there is none or the program does not answer: to wait for more of it. Who claims that it
    /// is 0 asks `try_metric`, which tells that from a name that nobody has any more.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.try_metric(name, labels).await.unwrap_or(0.0)
    }

    /// Like `metric`, but `None` when the program does not answer or has no such series.
    pub async fn try_metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let request = self.http.get(format!("{}/metrics", self.url())).timeout(ANSWER_LIMIT);
        let text = request.send().await.ok()?.text().await.ok()?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines()
            .filter(of_name)
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .reduce(|sum, value| sum + value)
    }

    /// SIGKILL.
    pub async fn kill9(&self) {
        self.process.read().signal(Signal::KILL);
        self.wait_ended(KILL_LIMIT).await;
    }

    /// SIGTERM; returns how it ended within `limit`. A paused one goes on, because it could not obey.
    pub async fn terminate(&self, limit: Duration) -> ExitStatus {
        self.process.read().signal(Signal::TERM);
        self.resume();
        self.wait_ended(limit).await
    }

    /// Like `terminate`, but `None` when it still runs after `limit`.
    pub async fn try_terminate(&self, limit: Duration) -> Option<ExitStatus> {
        self.process.read().signal(Signal::TERM);
        self.resume();
        holds_within(limit, || async { self.ended().is_some() }).await;
        self.ended()
    }

    async fn wait_ended(&self, limit: Duration) -> ExitStatus {
        until(limit, || async { self.ended().is_some() }).await;
        self.ended().expect("it has ended")
    }

    /// Stops it for a while with SIGSTOP.
    pub fn pause(&self) {
        self.process.read().pause();
        self.is_paused.store(true, Ordering::SeqCst);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.read().resume();
        self.is_paused.store(false, Ordering::SeqCst);
    }

    /// True between `pause` and `resume` while it lives.
    pub fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::SeqCst) && self.ended().is_none()
    }

    /// Starts it again after it ended, with the same environment, port and folder.
    pub async fn start_again(&self) {
        self.spawn_again();
        self.wait_ready().await;
    }

    /// Like `start_again`, without waiting until it is ready. The size of its files is not limited any
    /// more; its clock stays where it was moved, and its proxies have the weather they had.
    pub fn spawn_again(&self) {
        let process = self.launch.spawn(&self.spec.read());
        *self.process.write() = process;
        self.is_paused.store(false, Ordering::SeqCst);
    }

    /// Changes an environment variable of its next start. The address of a service stays behind its
    /// proxy, which leads to the new one at once.
    pub fn set_env(&self, name: &str, value: &str) {
        let value = self.links.through(name, value);
        self.spec.write().env.insert(name.to_owned(), value);
    }

    /// Moves its wall clock, which then runs so many seconds ahead (negative: behind); the monotonic
    /// clock goes on as it was. Holds from its next look at the clock on, over restarts too. Panics
    /// without `SystemSpec::movable_clocks`.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.launch.set_clock_ahead(seconds);
    }

    /// Limits the size of every file it writes to, in bytes: a write fails with EFBIG from there on, be it
    /// over what lies in the file already, so that with 0 none succeeds. A disk that is full is another
    /// thing (`folder::small_disk`): there it is ENOSPC, and what lies in a file can be written over.
    /// `None` lifts the limit, and so does a restart. Panics without `SystemSpec::limitable_files`.
    pub fn limit_file_size(&self, bytes: Option<u64>) {
        assert!(self.launch.limitable, "`SystemSpec::limitable_files` was not asked for");
        self.process.read().limit_file_size(bytes);
    }

    /// All it has logged, over all its starts.
    pub fn log(&self) -> String {
        self.process.read().log()
    }

    /// The log's end.
    pub fn log_tail(&self) -> String {
        self.process.read().log_tail()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.process.read().ended()
    }
}
