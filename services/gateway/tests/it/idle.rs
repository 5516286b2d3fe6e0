//! What a connection that does nothing costs: its one task and a few KiB.

use crate::house::{House, figure};
use crate::sleeper::{people, resident_bytes, sleepers};

/// Measured: 6.0 KiB in a debug build, the client's socket and what glibc keeps of the handshake included.
const IDLE_BYTES: usize = 10 * 1024;
/// What comes and goes: requests under way, upkeep.
const SPARE_TASKS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_costs_one_task_and_a_few_kib() {
    const SLEEPERS: usize = 1_000;
    let house = House::open().await;
    let (early, users) = (people(&house, 100).await, people(&house, SLEEPERS).await);
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // The first ones pay for what all share.
    let _early = sleepers(&house, &early).await;
    let (tasks_before, bytes_before) = (tasks(), resident_bytes());
    let _sleepers = sleepers(&house, &users).await;
    testkit::until(testkit::PATIENCE, async || tasks() <= tasks_before + SLEEPERS + SPARE_TASKS).await;
    let each = (resident_bytes() - bytes_before) / SLEEPERS;
    figure(&format!("tasks: {} for {SLEEPERS}, resident memory: {each} bytes each", tasks() - tasks_before));
    assert!(each <= IDLE_BYTES, "{each} bytes each");
}
