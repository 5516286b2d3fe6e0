//! Who is applied with whom, and what each is told.

use domain::{JobId, MessageId, Timestamp};
use protocol::{Change, SignedEnvelope, wire};

use super::*;
use crate::bench::Bench;

/// A message of its own to a new room, believed.
async fn job(bench: &Bench, text: &str) -> Job {
    let (room_id, id) = (bench.new_room().await, MessageId::of(bench.ann, text));
    let send = wire::MessageSend {
        room_id: room_id.to_string(),
        content: text.to_owned(),
        client_msg_id: text.to_owned(),
        ..wire::MessageSend::default()
    };
    let event = protocol::envelope::NewEvent {
        job_id: JobId::from(id),
        room_id,
        actor: bench.ann,
        device_id: String::new(),
        accepted_at: Timestamp(1),
        correlation_id: None,
        traceparent: None,
        change: Change::MessageSend(send),
    };
    let event =
        SignedEnvelope::seal(event, &bench.parts.keys).to_unverified().verify(&bench.parts.keys).expect("our own");
    Job { event, redelivered: false, first_failed_at: None, last_attempt: false }
}

struct Scene {
    joiner: Joiner,
    job: Job,
    answers: Vec<oneshot::Receiver<(Vec<Job>, Applied)>>,
    _bench: Bench,
}

impl Scene {
    async fn new() -> Self {
        let bench = Bench::over(&[]).await;
        let (_, joiner) = Joint::new(bench.parts.handlers.clone());
        Self { joiner, job: job(&bench, "one").await, answers: Vec::new(), _bench: bench }
    }

    /// So many batches of so many events come.
    fn come(&mut self, batches: usize, events: usize) {
        for _ in 0..batches {
            let (answer, answered) = oneshot::channel();
            self.answers.push(answered);
            let since = self.joiner.last_start;
            self.joiner.take(Waiting { since, jobs: vec![self.job.clone(); events], answer });
        }
    }

    /// How many batches would be applied together, so much after the last ones, others being under way.
    fn joined(&mut self, running: usize, after: Duration) -> usize {
        let now = self.joiner.last_start + after;
        self.joiner.next(running, now).map_or(0, |together| together.len())
    }
}

#[tokio::test]
async fn while_little_comes_each_batch_is_applied_at_once_and_by_itself() {
    let mut scene = Scene::new().await;
    scene.come(2, 1);
    assert_eq!(scene.joined(0, Duration::ZERO), 1);
    assert_eq!(scene.joined(1, Duration::ZERO), 1);
    assert_eq!(scene.joined(2, Duration::ZERO), 0, "nothing waits");
}

#[tokio::test]
async fn when_much_comes_batches_wait_for_the_rhythm_and_for_what_is_under_way_and_go_together() {
    let mut scene = Scene::new().await;
    scene.come(60, 1);
    assert_eq!(scene.joined(0, Duration::ZERO), 0, "not before the rhythm");
    assert_eq!(scene.joined(1, RHYTHM), 0, "something is under way");
    assert_eq!(scene.joined(0, RHYTHM), 60);
}

#[tokio::test]
async fn who_comes_first_waits_for_what_was_sent_with_him() {
    let mut scene = Scene::new().await;
    scene.come(120, 1);
    assert_eq!(scene.joined(0, RHYTHM), 120);
    scene.come(1, 1);
    scene.joiner.waiting[0].since += 2 * RHYTHM;
    assert_eq!(scene.joined(0, 2 * RHYTHM), 0);
    assert_eq!(scene.joined(0, 2 * RHYTHM + GATHER), 1);
}

#[tokio::test]
async fn many_wait_for_nobody_but_not_without_bound() {
    let mut scene = Scene::new().await;
    scene.come(10, 100);
    assert_eq!(scene.joined(JOINT_LIMIT, Duration::ZERO), 0, "enough are under way");
    assert_eq!(scene.joined(1, Duration::ZERO), 4, "no more than are good for a transaction");
    scene.joiner.waiting.clear();
    scene.come(1, MOST + 1);
    assert_eq!(scene.joined(0, RHYTHM), 1, "one is never too large");
}

#[tokio::test]
async fn who_does_not_wait_any_more_is_left_out() {
    let mut scene = Scene::new().await;
    scene.come(80, 1);
    scene.answers.truncate(60);
    assert_eq!(scene.joined(0, RHYTHM), 60);
    scene.come(1, 1);
    scene.answers.clear();
    assert_eq!(scene.joined(0, RHYTHM), 0);
}

#[tokio::test]
async fn everybody_gets_the_outcomes_of_his_own_events() {
    let bench = Bench::over(&[]).await;
    let (first, second) = (job(&bench, "first").await, job(&bench, "second").await);
    let ids = |jobs: &[Job]| jobs.iter().map(|job| job.event.job_id).collect::<Vec<_>>();
    let handlers = &bench.parts.handlers;
    let (brought, mut answers): (Vec<Waiting>, Vec<_>) = [vec![first.clone()], vec![first, second]]
        .into_iter()
        .map(|jobs| {
            let (answer, answered) = oneshot::channel();
            (Waiting { since: Instant::now(), jobs, answer }, answered)
        })
        .unzip();
    apply(handlers, brought).await;
    let (jobs, applied) = answers.remove(0).await.expect("answered");
    assert_eq!((jobs.len(), applied.expect("known").expect("there")), (1, vec![Outcome::Stored]));
    let (jobs, applied) = answers.remove(0).await.expect("answered");
    assert_eq!(applied.expect("known").expect("there"), [Outcome::Duplicate, Outcome::Stored]);
    assert_eq!(ids(&jobs).len(), 2);
}

#[tokio::test]
async fn when_something_goes_wrong_with_them_together_nobody_is_told_an_outcome() {
    let bench = Bench::over(&[]).await;
    let joint = bench.parts.joint.clone();
    let jobs = vec![job(&bench, "good").await, job(&bench, "unanswered").await];
    let (jobs, applied) = joint.apply(jobs).await.expect("the joiner runs");
    assert_eq!((jobs.len(), applied.is_none()), (2, true));
}

#[tokio::test]
async fn without_a_joiner_nothing_is_said_to_be_done() {
    let bench = Bench::over(&[]).await;
    let (joint, joiner) = Joint::new(bench.parts.handlers.clone());
    drop(joiner);
    assert!(joint.apply(vec![job(&bench, "in vain").await]).await.is_err());
}
