//! Refusals: kept for a time, then forgotten.

use domain::{JobId, Timestamp};
use protocol::Code;
use store::Scope;
use uuid::Uuid;

use crate::bench::{Bench, Draft, NOW, on_both};

on_both!(
    what_a_user_was_refused_can_be_told_later,
    only_old_refusals_are_forgotten,
    what_an_operator_must_mend_is_transient
);

async fn only_old_refusals_are_forgotten(bench: Bench) {
    let ann = bench.user().await;
    let room = bench.group(&[ann]).await;
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let jobs: Vec<JobId> = (0..3).map(|_| JobId::generate()).collect();
    for job in &jobs {
        draft.refuse(*job, Code::Forbidden);
    }
    batch.commit(draft.finish()).await.expect("commits");

    assert_eq!(bench.store.forget_refused(NOW, 10).await, Ok(0), "none is older");
    let later = Timestamp(NOW.0 + 1);
    assert_eq!(bench.store.forget_refused(later, 2).await, Ok(2), "a slice");
    assert_eq!(bench.store.forget_refused(later, 2).await, Ok(1));
    let scope = Scope { jobs, ..Scope::default() };
    assert!(bench.store.begin(&scope).await.expect("begins").loaded.receipts.is_empty());
}

async fn what_a_user_was_refused_can_be_told_later(bench: Bench) {
    let (ann, ben) = (bench.user().await, bench.user().await);
    let room = bench.group(&[ann, ben]).await;
    let batch = bench.begin(room, &[ann]).await;
    let mut draft = Draft::of(&batch, room);
    let mut jobs: Vec<JobId> = (0..4).map(|_| JobId::generate()).collect();
    jobs.sort_unstable();
    for (number, job) in jobs.iter().enumerate() {
        // The last two of Ann's at the same moment.
        let at = Timestamp(NOW.0 + number.min(1) as i64);
        draft.refuse_at(if number == 3 { ben } else { ann }, *job, Code::Forbidden, at);
    }
    batch.commit(draft.finish()).await.expect("commits");

    let told = async |user, mut after, limit| {
        let mut all = Vec::new();
        loop {
            let page = bench.store.refusals_of(user, after, limit).await.expect("an answer");
            let Some((last, _)) = page.last() else { return all };
            after = *last;
            all.extend(page.into_iter().map(|(_, failure)| failure.message_id));
        }
    };
    let names = |jobs: &[JobId]| jobs.iter().map(ToString::to_string).collect::<Vec<_>>();
    let nobody = JobId(Uuid::nil());
    for limit in [1, 2, 10] {
        assert_eq!(told(ann, (NOW, nobody), limit).await, names(&jobs[..3]), "in pages of {limit}");
        assert_eq!(told(ann, (Timestamp(NOW.0 + 1), nobody), limit).await, names(&jobs[1..3]), "not what is older");
    }
    assert_eq!(told(ben, (NOW, nobody), 10).await, names(&jobs[3..]));
}

async fn what_an_operator_must_mend_is_transient(bench: Bench) {
    bench.execute("ALTER TABLE refused_jobs RENAME TO mislaid").await;
    let error = bench.store.forget_refused(NOW, 1).await.expect_err("a table is missing");
    assert!(error.is_transient(), "{error}");
    bench.execute("ALTER TABLE mislaid RENAME TO refused_jobs").await;
    assert_eq!(bench.store.forget_refused(NOW, 1).await, Ok(0));
}
