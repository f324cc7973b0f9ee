//! Which history of the store this proxy works on. A promoted standby, a restored backup or another
//! server altogether may lack what was committed, and shown, before.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_postgres::{Client, Row};

/// Where a server's history is: which cluster, on which timeline, how far. PostgreSQL's documentation,
/// "Continuous Archiving and Point-in-Time Recovery", tells of timelines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// `system_identifier` of the cluster.
    pub system: i64,
    /// Its timeline: a promoted or restored server begins a new one.
    pub timeline: i32,
    /// The end of its write-ahead log, in bytes.
    pub lsn: i64,
}

impl History {
    /// What `freshet.server()` says, in the columns from `first` on; `None` if the server does not tell.
    pub(super) fn of_row(row: &Row, first: usize) -> Result<Option<Self>, tokio_postgres::Error> {
        let system: Option<i64> = row.try_get(first)?;
        let timeline: Option<i32> = row.try_get(first + 1)?;
        let lsn: Option<i64> = row.try_get(first + 2)?;
        Ok(match (system, timeline, lsn) {
            (Some(system), Some(timeline), Some(lsn)) => Some(Self {
                system,
                timeline,
                lsn,
            }),
            _ => None,
        })
    }

    /// Whether all that was committed when the history was at `earlier` is part of it, as far as
    /// these numbers can tell: the same cluster and timeline, and no way back.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.is_like(earlier) && self.lsn >= earlier.lsn
    }

    fn is_like(&self, other: &Self) -> bool {
        self.system == other.system && self.timeline == other.timeline
    }

    fn is_before(&self, other: &Self) -> bool {
        self.system == other.system && self.timeline < other.timeline
    }
}

/// As in the log, and in the note that the cache keeps.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.system, self.timeline, self.lsn)
    }
}

impl FromStr for History {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(());
        let history = Self {
            system: next()?.parse().map_err(drop)?,
            timeline: next()?.parse().map_err(drop)?,
            lsn: next()?.parse().map_err(drop)?,
        };
        Ok(history)
    }
}

/// What a new connection's server means for a proxy that knows a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same history, or the first one.
    Accepted,
    /// It may be used only after the cache was given up.
    Other(History),
}

/// The history that connections must belong to.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    accepted: Option<History>,
    /// One that a connection came upon.
    other: Option<History>,
}

impl Known {
    fn reach(&mut self, seen: History) {
        match &mut self.accepted {
            Some(accepted) if seen.continues(accepted) => *accepted = seen,
            Some(_) => {}
            None => self.accepted = Some(seen),
        }
    }
}

impl Lineage {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges the server of a new connection, which was asked after the accepted history was seen
    /// to be at `before`. Where the URL names `hosts` more than one, an earlier timeline is that of a
    /// primary which was replaced, and came back.
    pub fn judge(&self, found: Option<History>, before: Option<History>, hosts: usize) -> Verdict {
        let Some(found) = found else {
            return Verdict::Accepted;
        };
        let mut known = self.known();
        let Some(accepted) = known.accepted else {
            known.accepted = Some(found);
            return Verdict::Accepted;
        };
        let earlier = before.filter(|before| before.is_like(&accepted));
        if found.is_like(&accepted) && earlier.is_none_or(|earlier| found.lsn >= earlier.lsn) {
            known.reach(found);
            return Verdict::Accepted;
        }
        if hosts > 1 && found.is_before(&accepted) {
            tracing::error!(%found, %accepted, "a host of [postgres] url was replaced, and takes writes: stop it");
        } else {
            known.other = Some(found);
        }
        Verdict::Other(found)
    }

    /// Notes how far the accepted history was seen to go.
    pub fn reached(&self, seen: History) {
        self.known().reach(seen);
    }

    /// The accepted history as far as it was seen.
    pub fn accepted(&self) -> Option<History> {
        self.known().accepted
    }

    /// Another history that was come upon and is not accepted yet.
    pub fn other(&self) -> Option<History> {
        self.known().other
    }

    /// From now on `history` is the one.
    pub fn turn_to(&self, history: History) {
        let mut known = self.known();
        known.accepted = Some(history);
        known.other = None;
    }
}

/// Asks the server of a new connection. Before the schema is there, nothing is known.
pub(super) async fn ask(client: &Client) -> Result<Option<History>, tokio_postgres::Error> {
    let there = client
        .query_one(
            "SELECT to_regprocedure('freshet.server()') IS NOT NULL",
            &[],
        )
        .await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client
        .query_one("SELECT system, timeline, lsn FROM freshet.server()", &[])
        .await?;
    History::of_row(&row, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(system: i64, timeline: i32, lsn: i64) -> History {
        History {
            system,
            timeline,
            lsn,
        }
    }

    #[test]
    fn another_timeline_a_way_back_and_another_cluster_are_other_histories() {
        let known = at(1, 1, 100);
        assert!(at(1, 1, 100).continues(&known));
        assert!(at(1, 1, 101).continues(&known));
        assert!(!at(1, 1, 99).continues(&known));
        assert!(!at(1, 2, 200).continues(&known));
        assert!(!at(2, 1, 200).continues(&known));
        assert_eq!(known.to_string().parse(), Ok(known));
        assert_eq!("1:2".parse::<History>(), Err(()));
    }

    #[test]
    fn connections_to_another_history_are_refused_until_it_is_turned_to() {
        let lineage = Lineage::default();
        let judge = |found| lineage.judge(Some(found), lineage.accepted(), 1);
        assert_eq!(lineage.judge(None, None, 1), Verdict::Accepted);
        assert_eq!(judge(at(1, 1, 100)), Verdict::Accepted);
        let before = lineage.accepted();
        lineage.reached(at(1, 1, 150));
        // Asked before the other was seen: no way back.
        let late = lineage.judge(Some(at(1, 1, 120)), before, 1);
        assert_eq!(late, Verdict::Accepted);
        assert_eq!(lineage.accepted(), Some(at(1, 1, 150)));
        assert_eq!(judge(at(1, 1, 120)), Verdict::Other(at(1, 1, 120)));
        assert_eq!(lineage.other(), Some(at(1, 1, 120)));
        lineage.turn_to(at(1, 1, 120));
        assert_eq!(lineage.other(), None);
        assert_eq!(judge(at(1, 1, 121)), Verdict::Accepted);
    }

    #[test]
    fn a_primary_that_was_replaced_is_not_turned_to() {
        let lineage = Lineage::default();
        lineage.turn_to(at(1, 2, 100));
        let replaced = at(1, 1, 500);
        let verdict = lineage.judge(Some(replaced), lineage.accepted(), 2);
        assert_eq!(verdict, Verdict::Other(replaced));
        assert_eq!(lineage.other(), None);
    }
}
