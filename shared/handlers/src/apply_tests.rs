//! Tests of how a batch is cut, with no engine.

use super::*;
use domain::{RoomId, UserId};
use protocol::wire;
use uuid::Uuid;

fn job(change: Change) -> Job {
    let event = VerifiedEnvelope {
        job_id: JobId::generate(),
        kind: EventKind::MemberAdd,
        room_id: RoomId(Uuid::from_u128(1)),
        actor: UserId(Uuid::from_u128(2)),
        device_id: String::new(),
        accepted_at: Timestamp(0),
        traceparent: None,
        change,
    };
    Job { event, redelivered: false, first_failed_at: None, last_attempt: false }
}

fn add(people: usize) -> Job {
    job(Change::MemberAdd(wire::MemberAdd { user_ids: vec![String::new(); people], role: String::new() }))
}

fn send(content_bytes: usize) -> Job {
    job(Change::MessageSend(wire::MessageSend { content: "x".repeat(content_bytes), ..Default::default() }))
}

fn cut(jobs: &[Job]) -> Vec<usize> {
    let jobs: Vec<&Job> = jobs.iter().collect();
    portions(&jobs).iter().map(|portion| portion.len()).collect()
}

#[test]
fn a_batch_is_cut_into_transactions_by_what_it_weighs() {
    let light: Vec<Job> = (0..200).map(|_| send(200)).collect();
    assert_eq!(cut(&light), [200]);
    let crowds: Vec<Job> = (0..5).map(|_| add(900)).collect();
    assert_eq!(cut(&crowds), [2, 2, 1]);
    let heavy: Vec<Job> = (0..10).map(|_| send(250 * 1024)).collect();
    assert_eq!(cut(&heavy), [7, 3]);
    assert_eq!(cut(&[add(1), add(100_000), add(1)]), [1, 1, 1], "one event is never cut");
    assert_eq!(cut(&[]), [] as [usize; 0]);
}
