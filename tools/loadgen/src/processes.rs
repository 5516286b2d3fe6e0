//! CPU seconds and resident memory of processes and whatever they started, from `/proc`.
//!
//! Knows nothing of the load. The invariant: a process that ended keeps what it had used, by its parent's count.

use std::collections::HashMap;
use std::fs;

use serde::Serialize;

/// Clock ticks per second: what Linux tells user space everywhere.
const TICKS_PER_S: f64 = 100.0;

/// A process that is watched, with its descendants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

/// What a process and its descendants use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    /// Since they began, seconds.
    pub(crate) cpu_seconds: f64,
    /// Now, bytes.
    pub(crate) rss_bytes: u64,
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or_else(|| format!("{text} is not NAME=PID"))?;
        let pid = pid.parse().map_err(|_| format!("{pid} is no process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

struct Line {
    parent: u32,
    own_ticks: u64,
    reaped_ticks: u64,
    rss_pages: u64,
}

/// What each of them uses now; one that is gone uses nothing.
pub(crate) fn usage(watched: &[Watched]) -> Vec<Usage> {
    if watched.is_empty() {
        return Vec::new();
    }
    let all = lines();
    watched.iter().map(|it| tree(it.pid, &all)).collect()
}

fn lines() -> HashMap<u32, Line> {
    let folder = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = folder.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, line(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// `/proc/PID/stat`: the name stands in brackets and may hold anything.
fn line(text: &str) -> Option<Line> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Line {
        parent: number(1)? as u32,
        own_ticks: number(11)? + number(12)?,
        reaped_ticks: number(13)? + number(14)?,
        rss_pages: number(21)?,
    })
}

fn tree(root: u32, all: &HashMap<u32, Line>) -> Usage {
    let mut usage = Usage::default();
    let mut waiting = vec![root];
    while let Some(pid) = waiting.pop() {
        let Some(line) = all.get(&pid) else { continue };
        usage.cpu_seconds += (line.own_ticks + line.reaped_ticks) as f64 / TICKS_PER_S;
        usage.rss_bytes += line.rss_pages * 4096;
        waiting.extend(all.iter().filter(|(_, it)| it.parent == pid).map(|(pid, _)| *pid));
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name_is() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 50 25 10 5 20 0 1 0 100 1000 33 1844674407";
        let line = line(text).expect("this is a line");
        assert_eq!((line.parent, line.own_ticks, line.reaped_ticks, line.rss_pages), (7, 75, 15, 33));
    }

    #[test]
    fn descendants_count_with_their_root() {
        let one = |parent, ticks, pages| Line { parent, own_ticks: ticks, reaped_ticks: 0, rss_pages: pages };
        let all = HashMap::from([(1, one(0, 1, 1)), (2, one(1, 100, 2)), (3, one(2, 50, 3)), (4, one(1, 7, 9))]);
        assert_eq!(tree(2, &all), Usage { cpu_seconds: 1.5, rss_bytes: 5 * 4096 });
        assert_eq!(tree(9, &all), Usage::default());
    }

    #[test]
    fn this_very_process_uses_memory() {
        let me = Watched { name: "me".to_owned(), pid: std::process::id() };
        assert!(usage(&[me])[0].rss_bytes > 100_000);
    }
}
