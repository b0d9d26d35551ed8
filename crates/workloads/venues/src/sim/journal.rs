//! What the simulator was asked and what it answered: a bounded ring for operators and tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use watchbell_core::Time;

use super::market::lock;

/// How many entries are kept.
const ROOM: usize = 8_192;

/// One request and its answer, or one event of a stream connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalEntry {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// Simulated time at the answer.
    pub at: Time,
    /// `GET` for a request; `WS` for an event of a stream connection.
    pub method: &'static str,
    /// Path and query; for a stream what happened.
    pub target: String,
    /// Status of the answer; 0 when the connection was cut or left without one.
    pub status: u16,
    /// Rows of a list answer.
    pub rows: usize,
    /// Bytes of the body.
    pub bytes: usize,
    /// Weight used by the address in this minute, after this request.
    pub used_weight: u32,
    /// The faults that took part, in the script's words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// A handle on the ring.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<JournalEntry>,
    last: u64,
}

impl Journal {
    /// The entries after a sequence number, oldest first; those that fell out of the ring are gone.
    #[must_use]
    pub fn after(&self, seq: u64) -> Vec<JournalEntry> {
        let ring = lock(&self.0);
        let skip = ring.entries.partition_point(|e| e.seq <= seq);
        ring.entries.iter().skip(skip).cloned().collect()
    }

    /// The newest sequence number, 0 before the first entry.
    #[must_use]
    pub fn last(&self) -> u64 {
        lock(&self.0).last
    }

    /// Appends; `seq` is given here.
    pub(super) fn note(&self, mut entry: JournalEntry) {
        let mut ring = lock(&self.0);
        ring.last += 1;
        entry.seq = ring.last;
        if ring.entries.len() == ROOM {
            ring.entries.pop_front();
        }
        ring.entries.push_back(entry);
    }

    /// Appends what happened to a stream connection.
    pub(super) fn note_stream(&self, at: Time, what: String) {
        self.note(JournalEntry {
            seq: 0,
            at,
            method: "WS",
            target: what,
            status: 0,
            rows: 0,
            bytes: 0,
            used_weight: 0,
            faults: Vec::new(),
        });
    }
}
