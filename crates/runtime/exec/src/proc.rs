//! Who a process is, beyond its number: numbers are used again, start times within one boot are not.
//! From Linux's `/proc`; elsewhere nothing is known, and so nothing found is ever touched.

use std::fs;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::handle::Handle;

/// The variable by which the processes of a run are known, whatever their group.
pub(crate) const RUN_MARK: &str = "WATCHBELL_RUN";

/// A process, surely: its number and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Process id; 0 where it is not known.
    pub(crate) pid: i32,
    /// Start, in ticks since boot.
    pub(crate) started: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// It has ended, and waits to be collected.
    pub(crate) zombie: bool,
    /// Its process group.
    pub(crate) group: i32,
    /// Start, in ticks since boot.
    pub(crate) started: u64,
}

/// A name of this boot of the machine.
pub(crate) fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Looks at a process; `None` when there is none.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name stands in parentheses and may hold anything, parentheses too.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl Identity {
    /// Of a process that exists.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|s| Self { pid, started: s.started })
    }

    /// Whether that very process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|s| s.started == self.started && !s.zombie)
    }

    /// A handle on that very process, while it runs: never on another with the same number, for it
    /// is looked at again once the handle is open.
    pub(crate) fn open(&self) -> Option<Handle> {
        let handle = Handle::open(Pid::from_raw(self.pid)?).ok()?;
        self.is_alive().then_some(handle)
    }
}

/// Every process of a run that still runs: its leader, what is in the leader's group and bears the
/// run's mark, and, where the leader is not known, whatever bears the mark.
pub(crate) fn members(leader: Identity, run: &str) -> Vec<(i32, Handle)> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let me = i32::try_from(std::process::id()).unwrap_or_default();
    pids.filter(|pid| *pid != me)
        .filter_map(|pid| {
            let stat = stat(pid).filter(|s| !s.zombie)?;
            let itself = pid == leader.pid && stat.started == leader.started;
            let near = leader.pid == 0 || stat.group == leader.pid;
            if !(itself || near && has_mark(pid, run)) {
                return None;
            }
            let handle = Identity { pid, started: stat.started }.open()?;
            Some((pid, handle))
        })
        .collect()
}

fn has_mark(pid: i32, run: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { return false };
    let mark = format!("{RUN_MARK}={run}");
    environment.split(|b| *b == 0).any(|entry| entry == mark.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let text = "42 (a) b (c) S 1 41 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(parse_stat(text), Some(Stat { zombie: false, group: 41, started: 987_654 }));
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[tokio::test]
    async fn this_process_is_known_and_another_start_is_another_process() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive() && me.open().is_some());
        let other = Identity { started: me.started + 1, ..me };
        assert!(!other.is_alive() && other.open().is_none());
        assert!(boot().is_some());
    }
}
