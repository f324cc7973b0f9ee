//! What a run found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::compare::{Difference, Kind};
use crate::model::Key;

/// A key that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which.
    #[serde(flatten, serialize_with = "key")]
    pub key: Key,
    /// In which way.
    pub kind: Kind,
    /// In what.
    pub detail: String,
    /// The key's version in the store.
    pub version: i64,
    /// When a run first saw it so, as ISO 8601.
    pub first_seen: String,
    /// When the last run that looked at every key before that began: it was not so then.
    pub not_seen_at: Option<String>,
    /// Whether it was taken out of the cache.
    pub repaired: bool,
}

impl Finding {
    /// Not repaired yet.
    pub(super) fn new(key: Key, difference: Difference, since: (String, Option<String>)) -> Self {
        Self {
            key,
            kind: difference.kind,
            detail: difference.detail,
            version: difference.version.0,
            first_seen: since.0,
            not_seen_at: since.1,
            repaired: false,
        }
    }
}

/// As `db`, and `key` with what is not printable ASCII escaped.
fn key<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry("db", &key.db.index())?;
    map.serialize_entry("key", &key.name.escape_ascii().to_string())?;
    map.end()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (db, name) = (self.key.db.index(), self.key.name.escape_ascii());
        write!(
            f,
            "db {db} \"{name}\": {}: {}",
            self.kind.name(),
            self.detail
        )?;
        write!(
            f,
            "; version {}; first seen {}",
            self.version, self.first_seen
        )?;
        if let Some(before) = &self.not_seen_at {
            write!(f, ", not yet {before}")?;
        }
        f.write_str(if self.repaired { "; repaired" } else { "" })
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Keys that were looked at: those of which the cache shows anything.
    pub keys: u64,
    /// Keys that differ.
    pub differences: u64,
    /// The same by kind; kinds of which there are none are left out.
    pub by_kind: BTreeMap<Kind, u64>,
    /// Those of them that were taken out of the cache.
    pub repaired: u64,
    /// Keys that were changed whenever they were looked at.
    pub undecided: u64,
    /// Keys too large to be loaded.
    pub too_large: u64,
    /// How long it took.
    pub seconds: f64,
    /// The first of the differences, up to a bound.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Differences that a report tells of one by one; the others are only counted.
    pub const FINDINGS_MAX: usize = 10_000;

    pub(super) fn add(&mut self, finding: Finding) {
        self.differences += 1;
        self.repaired += u64::from(finding.repaired);
        *self.by_kind.entry(finding.kind).or_default() += 1;
        if self.findings.len() < Self::FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let hidden = self.differences - self.findings.len() as u64;
        if hidden > 0 {
            writeln!(f, "and {hidden} more")?;
        }
        write!(
            f,
            "{} keys in the cache compared in {:.1} s: {} differ, {} repaired, {} undecided, {} too large",
            self.keys,
            self.seconds,
            self.differences,
            self.repaired,
            self.undecided,
            self.too_large
        )
    }
}
