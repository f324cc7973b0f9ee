//! `[[route]]`: what applies to the keys of a pattern.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::de::DeTable;

use super::reader::{Place, Reader};
use super::setting::{self, ByteSize, OnDelete, Setting, Shape};
use super::{Difference, TakesEffect, hours, secs};
use crate::model::glob;

/// Routes at most: each has labels of its own in the metrics.
const ROUTES_MAX: usize = 256;

/// Bytes of a pattern at most.
const PATTERN_BYTES_MAX: usize = 1024;

/// Per cent of a life that jitter may take away at most.
const JITTER_MAX: u16 = 90;

/// What happens to the writes and reads of a route's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Acknowledged when the store has committed and the cache has confirmed.
    #[default]
    Atomic,
    /// Acknowledged when the store has committed; the cache is told in the background.
    Eventual,
    /// Acknowledged by the journal's server; the store is written in the background.
    WriteBehind,
    /// Kept by the cache alone.
    CacheOnly,
    /// Not written by clients.
    ReadOnly,
    /// Written by SQL, and not by clients.
    Cdc,
    /// Rows of a table that is not Freshet's (see [`Mapped`]).
    Mapped,
}

impl Strategy {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::Eventual => "eventual",
            Self::WriteBehind => "write-behind",
            Self::CacheOnly => "cache-only",
            Self::ReadOnly => "read-only",
            Self::Cdc => "cdc",
            Self::Mapped => "mapped",
        }
    }
}

impl Setting for Strategy {
    fn from_text(text: &str) -> Result<Self, String> {
        const THERE_ARE: &str = "atomic, eventual, write-behind, cache-only, read-only, cdc";
        match text {
            "atomic" => Ok(Self::Atomic),
            "eventual" => Ok(Self::Eventual),
            "write-behind" => Ok(Self::WriteBehind),
            "cache-only" => Ok(Self::CacheOnly),
            "read-only" => Ok(Self::ReadOnly),
            "cdc" => Ok(Self::Cdc),
            "mapped" => Err("is what a route with `table` is: name none beside it".to_owned()),
            _ => Err(format!("must be one of {THERE_ARE}, not `{text}`")),
        }
    }
}

/// A pattern of keys, as Redis's `KEYS` reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern written so.
    ///
    /// # Errors
    /// It is empty, too long or not complete.
    pub fn new(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether no key that `other` matches can be left for `other` behind this one.
    /// (It may be so where this says no.)
    fn covers(&self, other: &Self) -> bool {
        let mine = glob::literal_prefix(self.0.as_bytes());
        let theirs = glob::literal_prefix(other.0.as_bytes());
        !other.0.is_empty()
            && (self == other || mine.rest == b"*" && theirs.text.starts_with(&mine.text))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for Pattern {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("must not be empty: \"*\" matches every key".to_owned());
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("must not be longer than {PATTERN_BYTES_MAX} bytes"));
        }
        if !glob::is_complete(text.as_bytes()) {
            return Err(format!(
                "must close its [ and have a character behind its last \\, unlike `{text}`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A rule for the keys of a pattern. What is `None` is as for keys without a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    /// The line on which it begins.
    pub line: usize,
    /// The keys that it is for, unless a route before matches them.
    pub pattern: Pattern,
    /// What happens to them.
    pub strategy: Strategy,
    /// The longest life in the cache; of keys that only the cache has, the life of those that
    /// were given none.
    pub ttl: Option<Duration>,
    /// Per cent by which that life is shortened at random at most.
    pub ttl_jitter: u16,
    /// How long the cache remembers that a key does not exist.
    pub absent_ttl: Option<Duration>,
    /// Longer values are not kept in the cache.
    pub fill_limit: Option<ByteSize>,
    /// Of `Strategy::Mapped`: the table.
    pub mapped: Option<Mapped>,
}

/// A table whose rows are the keys of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The form of the keys, with columns in braces: `user:{id}`.
    pub template: String,
    /// Its name, with its schema.
    pub table: String,
    /// What a row is.
    pub shape: Shape,
    /// The column that is shown, of `Shape::Column`.
    pub column: Option<String>,
    /// What `DEL` does.
    pub on_delete: OnDelete,
}

impl Mapped {
    /// The pattern of the keys of `template`: any text in the place of columns.
    fn pattern(template: &str) -> Result<Pattern, String> {
        if template.contains(['*', '?', '[', '\\']) {
            return Err("must have columns in braces and no *, ?, [ or \\".to_owned());
        }
        let mut glob = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            if before.is_empty() {
                return Err("must have text before each column, as in user:{id}".to_owned());
            }
            let Some((column, behind)) = after.split_once('}') else {
                return Err("must close its {".to_owned());
            };
            if column.is_empty() || column.contains('{') {
                return Err("must have the name of a column in its braces".to_owned());
            }
            glob.push_str(before);
            glob.push('*');
            rest = behind;
        }
        if glob.is_empty() || rest.contains('}') {
            return Err("must name the columns of the key, as in user:{id}".to_owned());
        }
        glob.push_str(rest);
        Pattern::new(&glob)
    }
}

/// All routes, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub struct RouteList(Vec<Route>);

/// By what they say, wherever it stands.
impl PartialEq for RouteList {
    fn eq(&self, other: &Self) -> bool {
        let unplaced = |route: &Route| Route {
            line: 0,
            ..route.clone()
        };
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(one, two)| unplaced(one) == unplaced(two))
    }
}

impl FromIterator<Route> for RouteList {
    fn from_iter<T: IntoIterator<Item = Route>>(routes: T) -> Self {
        Self(routes.into_iter().collect())
    }
}

impl std::ops::Deref for RouteList {
    type Target = [Route];

    fn deref(&self) -> &[Route] {
        &self.0
    }
}

impl RouteList {
    pub(super) const SECTION: &'static str = "route";

    #[cfg(test)]
    pub(super) const NAMES: &'static [&'static str] = &[];

    pub(super) fn read(&mut self, reader: &mut Reader<'_>) {
        let tables = reader.tables(Self::SECTION, ROUTES_MAX);
        for (index, (line, table)) in tables.into_iter().enumerate() {
            self.0.push(read_route(reader, index, line, table));
        }
        for (index, route) in self.0.iter().enumerate() {
            let covers = |earlier: &Route| earlier.pattern.covers(&route.pattern);
            if let Some(before) = self.0[..index].iter().position(covers) {
                let (name, before) = (name(index), name(before));
                let text = format!("is never reached: {before} matches the same keys before it");
                reader.report_setting(&format!("{name}.match"), text);
            }
        }
    }

    pub(super) fn differences(&self, new: &Self, found: &mut Vec<Difference>) {
        if self != new {
            found.push(Difference {
                section: Self::SECTION,
                name: "match",
                takes_effect: TakesEffect::Live,
            });
        }
    }

    pub(super) fn take_live(&mut self, new: &Self) {
        self.clone_from(new);
    }

    /// The places of the write-behind routes.
    pub fn write_behind(&self) -> impl Iterator<Item = usize> {
        let all = self.0.iter().enumerate();
        all.filter(|(_, route)| route.strategy == Strategy::WriteBehind)
            .map(|(index, _)| index)
    }

    /// Tells which keys are write-behind: two lists with the same text have the same. Empty: none are.
    pub fn behind_digest(&self) -> String {
        let Some(last) = self.write_behind().last() else {
            return String::new();
        };
        let mut digest = Sha256::new();
        for route in &self.0[..=last] {
            let is_behind = route.strategy == Strategy::WriteBehind;
            let pattern = route.pattern.as_str();
            digest.update((pattern.len() as u64).to_le_bytes());
            digest.update(pattern);
            digest.update([u8::from(is_behind)]);
        }
        digest.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The first route of `self` whose keys `new` might take out of the cache's sole
    /// care, which would lose sight of them. `None`: none does for certain.
    pub fn abandons(&self, new: &Self) -> Option<&Route> {
        self.0.iter().enumerate().find_map(|(index, old)| {
            (old.strategy == Strategy::CacheOnly && !new.keeps(old, &self.0[..index]))
                .then_some(old)
        })
    }

    /// Whether the keys of the cache-only route `old`, which came behind `before`, are still
    /// those of a cache-only route.
    fn keeps(&self, old: &Route, before: &[Route]) -> bool {
        for route in &self.0 {
            let is_same_strategy = route.strategy == Strategy::CacheOnly;
            if route.pattern == old.pattern {
                return is_same_strategy;
            }
            // What this one takes must have been out of reach of `old` before.
            let was_before = || before.iter().any(|other| other.pattern == route.pattern);
            if !is_same_strategy && !was_before() && route.pattern.meets(&old.pattern) {
                return false;
            }
        }
        false
    }
}

impl Pattern {
    /// Whether both may match the same key: not if their literal beginnings differ.
    fn meets(&self, other: &Self) -> bool {
        let mine = glob::literal_prefix(self.0.as_bytes()).text;
        let theirs = glob::literal_prefix(other.0.as_bytes()).text;
        let length = mine.len().min(theirs.len());
        mine[..length] == theirs[..length]
    }
}

/// As mistakes name it; routes are counted from 1.
fn name(index: usize) -> String {
    format!("route[{}]", index + 1)
}

fn read_route<'s>(reader: &mut Reader<'s>, index: usize, line: usize, table: DeTable<'s>) -> Route {
    let name = name(index);
    let mut route = Route {
        line,
        ..Route::default()
    };
    let within = |life: &Option<Duration>, most| {
        life.map_or(Ok(()), |life| setting::within(&life, &(secs(1)..=most)))
    };
    let mut section = reader.open(name.clone(), table);
    section.read("match", &mut route.pattern, |_| Ok(()));
    section.read("strategy", &mut route.strategy, |_| Ok(()));
    section.read("ttl", &mut route.ttl, |ttl| within(ttl, hours(24 * 30)));
    section.read("ttl_jitter", &mut route.ttl_jitter, |jitter| {
        setting::within(jitter, &(0..=JITTER_MAX))
    });
    section.read("absent_ttl", &mut route.absent_ttl, |ttl| {
        within(ttl, hours(24))
    });
    section.read("fill_limit", &mut route.fill_limit, |limit| {
        let range = ByteSize::kb(1)..=ByteSize::mb(512);
        limit.map_or(Ok(()), |limit| setting::within(&limit, &range))
    });
    let mut mapped = Mapped {
        template: route.pattern.as_str().to_owned(),
        table: String::new(),
        shape: Shape::Hash,
        column: None,
        on_delete: OnDelete::Refuse,
    };
    let mut table: Option<String> = None;
    section.read("table", &mut table, |_| Ok(()));
    section.read("as", &mut mapped.shape, |_| Ok(()));
    section.read("column", &mut mapped.column, |_| Ok(()));
    section.read("delete", &mut mapped.on_delete, |_| Ok(()));
    section.finish();
    check_mapped(reader, &name, table, mapped, &mut route);
    if !reader.is_written(&format!("{name}.match")) {
        let text = "needs a setting `match`: the pattern of its keys".to_owned();
        reader.report(Place::Line(line), &name, text);
    }
    if route.strategy == Strategy::WriteBehind {
        for setting in ["ttl", "ttl_jitter", "absent_ttl", "fill_limit"] {
            let setting = format!("{name}.{setting}");
            if reader.is_written(&setting) {
                let text = "means nothing for write-behind keys: the cache does not have them";
                reader.report_setting(&setting, text);
            }
        }
    }
    if route.strategy == Strategy::CacheOnly {
        for setting in ["absent_ttl", "fill_limit"].map(|word| format!("{name}.{word}")) {
            if reader.is_written(&setting) {
                let text = "means nothing for cache-only keys: they are not in PostgreSQL";
                reader.report_setting(&setting, text);
            }
        }
        if route.ttl_jitter > 0 && route.ttl.is_none() {
            let text = "needs ttl beside it: cache-only keys end by themselves only with one";
            reader.report_setting(&format!("{name}.ttl_jitter"), text);
        }
    }
    route
}

/// A route with a table is one of strategy `Mapped`.
fn check_mapped(
    reader: &mut Reader<'_>,
    name: &str,
    table: Option<String>,
    mut mapped: Mapped,
    route: &mut Route,
) {
    let setting = |word: &str| format!("{name}.{word}");
    let Some(table) = table else {
        for word in ["as", "column", "delete"].map(setting) {
            if reader.is_written(&word) {
                reader.report_setting(&word, "needs table beside it");
            }
        }
        return;
    };
    if reader.is_written(&setting("strategy")) {
        let text = "means nothing beside table: SQL and clients both change its rows";
        reader.report_setting(&setting("strategy"), text);
    }
    if (mapped.shape == Shape::Column) != mapped.column.is_some() {
        let text = "must be there with as = \"string\", and only then";
        reader.report_setting(&setting("column"), text);
    }
    match Mapped::pattern(&mapped.template) {
        Ok(pattern) => route.pattern = pattern,
        Err(text) => reader.report_setting(&setting("match"), text),
    }
    mapped.table = table;
    route.strategy = Strategy::Mapped;
    route.mapped = Some(mapped);
}
