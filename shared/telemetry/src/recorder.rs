//! The recorder behind every metric of this process, and its text for `/metrics`.
//!
//! Knows the metrics only by their table. The invariant: one process, one recorder.

use std::sync::OnceLock;
use std::time::Duration;

pub use metrics_exporter_prometheus::PrometheusHandle;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use runtime::Tasks;

use crate::Histogram;
use crate::metric::{begin_all, describe_all};

/// Without upkeep a process that nobody scrapes would keep every value it ever measured.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder; from the second call on it returns the same one.
pub fn install() -> PrometheusHandle {
    HANDLE
        .get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another recorder was installed before: /metrics will be empty");
            }
            describe_all();
            begin_all();
            handle
        })
        .clone()
}

/// Keeps the recorder's memory small as long as the service runs.
pub fn keep_up(handle: &PrometheusHandle, tasks: &Tasks) {
    let (handle, shutdown) = (handle.clone(), tasks.shutdown().clone());
    tasks.own("metrics", async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(UPKEEP_EVERY) => handle.run_upkeep(),
                () = shutdown.requested() => return,
            }
        }
    });
}

fn builder() -> PrometheusBuilder {
    Histogram::ALL.iter().fold(PrometheusBuilder::new(), |builder, metric| {
        builder
            .set_buckets_for_metric(Matcher::Full(metric.name().to_owned()), metric.buckets())
            .expect("every metric's buckets are a list that is not empty")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counter, Gauge};

    #[test]
    fn metrics_appear_with_their_meaning_and_buckets() {
        let handle = install();
        Counter::DeliveriesQueued.add(3);
        Gauge::DependencyUp.set_with("store", 1.0);
        Histogram::ConfirmSeconds.record(0.004);
        let text = install().render();
        let sorted = |text: &str| text.lines().map(ToOwned::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(sorted(&text), sorted(&handle.render()), "one recorder");
        for line in [
            "chat_deliveries_queued_total 3",
            "chat_deliveries_forged_total 0",
            "chat_dependency_up{dependency=\"store\"} 1",
            "chat_confirm_seconds_bucket{le=\"0.005\"} 1",
            "# TYPE chat_confirm_seconds histogram",
            "# HELP chat_deliveries_queued_total Deliveries that gateways put into outboxes of sessions.",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
