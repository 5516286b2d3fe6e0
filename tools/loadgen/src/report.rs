//! What a step and a run came to, as people and as programs read it.
//!
//! Knows no connection. The invariant: latencies are milliseconds from the intended time, memory is bytes, CPU is
//! seconds, and the generator's own share stands apart.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::book::{Book, Row};
use crate::judge::Verdict;
use crate::processes::Usage;

/// A distribution, milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(all: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        let at = |quantile| ms(all.value_at_quantile(quantile));
        Self { count: all.len(), p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: ms(all.max()) }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.2}, p99 {:.2}, max {:.1} ms", self.p50, self.p99, self.max)
    }
}

/// What one process used.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Share {
    /// Within the measured window.
    pub(crate) cpu_seconds: f64,
    /// The same per 1,000 messages that were sent.
    pub(crate) cpu_seconds_per_thousand: f64,
    /// At the end.
    pub(crate) rss_bytes: u64,
    /// What it grew by since before the connections, for each of them.
    pub(crate) rss_bytes_per_connection: f64,
}

/// One step.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepReport {
    pub(crate) mode: &'static str,
    pub(crate) server: &'static str,
    pub(crate) dialect: &'static str,
    pub(crate) connections: u64,
    /// Commands that were due each second.
    pub(crate) rate: f64,
    /// Length of the measured window.
    pub(crate) seconds: f64,
    pub(crate) sent_per_second: f64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) acks: Latency,
    pub(crate) deliveries: Latency,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) openings: Latency,
    #[serde(skip_serializing_if = "is_empty")]
    pub(crate) resumptions: Latency,
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Commands nobody could send.
    pub(crate) skipped: u64,
    /// Connections that ended by themselves.
    pub(crate) ended: u64,
    /// Deliveries that were owed and had not come when waiting for them ended.
    pub(crate) missing: i64,
    pub(crate) doubled: u64,
    pub(crate) overtaken: u64,
    pub(crate) processes: BTreeMap<String, Share>,
    /// All processes together, the generator left out.
    pub(crate) cpu_seconds_per_thousand: f64,
    pub(crate) generator_cpu_seconds: f64,
    /// The latency that was asked for was kept, and nothing is missing, doubled or out of order.
    pub(crate) is_kept: bool,
    #[serde(skip)]
    pub(crate) course: Course,
}

/// How a step went, row by row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    pub(crate) row_seconds: f64,
    pub(crate) rows: Vec<Row>,
    /// Of each process at each row: CPU as a share of one core, and memory.
    pub(crate) usage: Vec<Vec<Usage>>,
    pub(crate) names: Vec<String>,
}

/// A run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunReport {
    pub(crate) steps: Vec<StepReport>,
    pub(crate) verdict: Verdict,
    /// The highest rate whose step was kept.
    pub(crate) highest_kept: Option<f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_empty(latency: &Latency) -> bool {
    latency.count == 0
}

/// What several workers wrote down, as one book.
pub(crate) fn merged(books: Vec<Book>) -> Option<Book> {
    books.into_iter().reduce(|mut all, book| {
        let add = |to: &mut Histogram<u64>, from: &Histogram<u64>| to.add(from).expect("all have the same bounds");
        add(&mut all.acks, &book.acks);
        add(&mut all.tolds, &book.tolds);
        add(&mut all.openings, &book.openings);
        add(&mut all.resumptions, &book.resumptions);
        for (row, other) in all.rows.iter_mut().zip(&book.rows) {
            row.sent += other.sent;
            row.told += other.told;
            add(&mut row.acks, &other.acks);
            add(&mut row.tolds, &other.tolds);
        }
        for (code, count) in book.refusals {
            *all.refusals.entry(code).or_default() += count;
        }
        all
    })
}

impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {} {}: {} connections, {:.0} s",
            self.server, self.dialect, self.mode, self.connections, self.seconds
        )?;
        if self.rate > 0.0 {
            writeln!(
                f,
                "  {:.0}/s due, {:.0}/s sent, {:.0} deliveries/s",
                self.rate, self.sent_per_second, self.deliveries_per_second
            )?;
        }
        let lines =
            [("ack", self.acks), ("told", self.deliveries), ("open", self.openings), ("resumed", self.resumptions)];
        for (name, latency) in lines.iter().filter(|(_, latency)| latency.count > 0) {
            writeln!(f, "  {name}: {latency} ({})", latency.count)?;
        }
        for (name, share) in &self.processes {
            writeln!(
                f,
                "  {name}: {:.2} CPU s ({:.3} per 1,000), {:.1} MiB, {:.0} bytes per connection",
                share.cpu_seconds,
                share.cpu_seconds_per_thousand,
                share.rss_bytes as f64 / 1_048_576.0,
                share.rss_bytes_per_connection
            )?;
        }
        if !self.processes.is_empty() {
            writeln!(
                f,
                "  together {:.3} CPU s per 1,000; the generator {:.2} CPU s",
                self.cpu_seconds_per_thousand, self.generator_cpu_seconds
            )?;
        }
        for (code, count) in &self.refusals {
            writeln!(f, "  {count} refused: {code}")?;
        }
        write!(
            f,
            "  {}: {} missing, {} doubled, {} overtaken, {} skipped, {} ended",
            if self.is_kept { "kept" } else { "NOT KEPT" },
            self.missing,
            self.doubled,
            self.overtaken,
            self.skipped,
            self.ended
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages queued, {} deliveries owed: {} lost, {} doubled, {} overtaken, {} unanswered",
            self.queued, self.owed, self.lost, self.doubled, self.overtaken, self.unanswered
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Window;

    #[test]
    fn books_of_several_workers_become_one() {
        let window = Window { start: 0, end: 2_000_000, row: 1_000_000 };
        let book = |late: u64, code: &str| {
            let mut book = Book::new(window);
            book.sent(1_500_000);
            book.told(1_500_000, 1_500_000 + late);
            book.refused(code.to_owned());
            book
        };
        let all = merged(vec![book(1_000, "A"), book(3_000, "A"), book(2_000, "B")]).expect("there are books");
        let latency = Latency::from(&all.tolds);
        assert_eq!((latency.count, latency.p50.round(), latency.max.round()), (3, 2.0, 3.0));
        assert_eq!((all.rows[0].told, all.rows[1].told, all.rows[1].sent), (0, 3, 3));
        assert_eq!(all.refusals["A"], 2);
    }
}
