//! The dedupe claim.

use domain::JobId;
use rstest::rstest;

use super::world::{Kind, World};

#[rstest]
#[tokio::test]
async fn a_job_is_new_to_one_only(#[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind) {
    let world = World::new(kind).await;
    let jobs: Vec<JobId> = (0..4).map(|_| JobId::generate()).collect();
    let claim = async |jobs: &[JobId]| world.realtime.claim(jobs).await.expect("an answer");
    assert_eq!(claim(&[jobs[0], jobs[1], jobs[0]]).await, [true, true, false]);
    assert_eq!(claim(&jobs).await, [false, false, true, true]);
    assert!(claim(&[]).await.is_empty());
}

#[rstest]
#[tokio::test]
async fn of_many_who_claim_a_job_at_once_one_is_first(
    #[values(Kind::Redis, Kind::Cluster, Kind::Embedded)] kind: Kind,
) {
    let world = World::new(kind).await;
    let jobs: Vec<JobId> = (0..1500).map(|_| JobId::generate()).collect();
    let (one, two, three) =
        tokio::join!(world.realtime.claim(&jobs), world.realtime.claim(&jobs), world.realtime.claim(&jobs));
    let all = [one, two, three].map(|answer| answer.expect("an answer"));
    for number in 0..jobs.len() {
        assert_eq!(all.iter().filter(|answer| answer[number]).count(), 1);
    }
}

#[rstest]
#[tokio::test]
async fn a_redis_claim_ends_by_itself(#[values(Kind::Redis, Kind::Cluster)] kind: Kind) {
    let world = World::new(kind).await;
    let job = JobId::generate();
    world.realtime.claim(&[job]).await.expect("an answer");
    assert!(world.ask_number(&format!("PTTL chat:claim:{job}")).await > 0);
}
