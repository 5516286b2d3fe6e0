//! A short run on each engine: at least fifteen faults each, and every promise kept.

use std::time::Duration;

use torture::run::{Spec, run};
use torture::stage::Shape;
use torture::world::Scale;

/// Long enough for the faults; another one by `TORTURE_SEED`.
fn spec(shape: Shape, length_s: u64, faults_least: usize) -> Spec {
    let seed = std::env::var("TORTURE_SEED").ok().map(|seed| seed.parse().expect("a number"));
    Spec {
        shape,
        seed: seed.unwrap_or(4),
        length: Duration::from_secs(length_s),
        faults_least,
        scale: Scale { users: 12, rooms: 4, members: 6 },
        defect: None,
        quiet: true,
        keep: None,
        verbose: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distributed_system_keeps_its_promises_while_it_is_struck() {
    let report = run(spec(Shape::Distributed, 40, 15)).await.expect("it ends with a report");
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_all_in_one_keeps_its_promises_while_it_is_struck() {
    let report = run(spec(Shape::AllInOne, 25, 15)).await.expect("it ends with a report");
    assert!(report.is_clean(), "{report}");
}
