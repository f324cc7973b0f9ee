//! What the calls of a batch need, and what they do on what was loaded.

use std::collections::BTreeMap;

use ahash::AHashMap;

use super::lane::Job;
use super::once::Tokens;
use super::{Answer, Refusal, Seen, Step, Unit};
use crate::cache::RESERVED_PREFIX;
use crate::engine::{self, Need, Workspace};
use crate::model::{Effect, Event, EventClasses, Key, UnixMs, Version};
use crate::store::{Change, Kept, LoadRequest, Locked, RowState};

/// The effects of a batch, sorted by key, with what is known of each row.
pub(super) struct Plan {
    pub(super) replies: Vec<Answer>,
    pub(super) changes: Vec<(Key, Effect, RowState)>,
    /// For each change, the number of what its row holds.
    pub(super) contents: Vec<Option<i64>>,
    /// Keys that were loaded and not changed.
    pub(super) seen: Vec<(Key, Version)>,
    pub(super) events: Vec<Event>,
    /// Keys without a row, not changed, that must not come to be meanwhile.
    pub(super) held: Vec<Key>,
    pub(super) now: UnixMs,
    /// Whether a call needed more than was loaded.
    pub(super) is_short: bool,
    /// Replies to keep with their tokens; or why the batch must not commit.
    pub(super) kept: Result<Vec<Kept>, Refusal>,
    /// What calls turned out to need besides, for the next attempt.
    pub(super) wanted: Vec<(Key, Need)>,
}

impl Plan {
    pub(super) fn stored(&self) -> Vec<Change<'_>> {
        self.changes
            .iter()
            .zip(&self.contents)
            .map(|((key, effect, row), content_id)| Change {
                key,
                effect,
                row: *row,
                content_id: *content_id,
            })
            .collect()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.changes.iter().map(|(key, ..)| key.clone()).collect()
    }
}

/// After so many attempts that fell short, the whole is loaded of what they fell short of.
const ROUNDS_MAX: u32 = 3;

/// What the calls of a batch turned out to need besides what they tell of themselves.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    needs: Vec<(Key, Need)>,
    /// Attempts that fell short.
    rounds: u32,
}

impl Wanted {
    /// Notes what an attempt fell short of.
    pub(super) fn add(&mut self, more: Vec<(Key, Need)>) {
        self.needs.extend(more);
        self.rounds += 1;
    }
}

/// What must be loaded, `wanted` besides. If anything must, all keys of
/// the batch are locked, so that every transaction takes its locks in key order. A unit that is
/// made once looks at its keys: a repeat tells of them, and the cache must hear how new they are.
pub(super) fn needs(jobs: &[Job], wanted: &Wanted) -> BTreeMap<Key, Need> {
    let mut needs: BTreeMap<Key, Need> = BTreeMap::new();
    // Whether a key is new, or has ended, is known only if it is looked for.
    let looks_for_keys = jobs.iter().map(|job| job.events).any(|classes| {
        let is_wanted = |class| classes.contains(class);
        classes.is_active()
            && [EventClasses::NEW, EventClasses::EXPIRED]
                .into_iter()
                .any(is_wanted)
    });
    for unit in units(jobs) {
        for Step { db, call } in &unit.steps {
            for (key, need) in engine::needs(call, *db) {
                needs.entry(key).or_default().add(need);
            }
            if looks_for_keys {
                for key in call.keys(*db) {
                    needs.entry(key).or_default();
                }
            }
        }
        for (key, _) in &unit.watched {
            needs.entry(key.clone()).or_default();
        }
    }
    if !needs.is_empty() || has_tokens(jobs) {
        for Step { db, call } in units(jobs).flat_map(|unit| &unit.steps) {
            for key in call.keys(*db) {
                needs.entry(key).or_default();
            }
        }
    }
    for (key, need) in &wanted.needs {
        let known = needs.entry(key.clone()).or_default();
        known.add(need.clone());
        known.whole |= wanted.rounds >= ROUNDS_MAX;
    }
    needs
}

/// Whether nothing has to be looked at in the store before the batch is written.
pub(super) fn is_blind(jobs: &[Job], needs: &BTreeMap<Key, Need>) -> bool {
    needs.is_empty() && !has_tokens(jobs)
}

/// The tokens that the batch uses, sorted, each once.
pub(super) fn tokens(jobs: &[Job]) -> Vec<&[u8]> {
    let once = units(jobs).filter_map(|unit| unit.once.as_ref());
    let mut tokens: Vec<&[u8]> = once.map(|once| once.token.bytes()).collect();
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

fn has_tokens(jobs: &[Job]) -> bool {
    units(jobs).any(|unit| unit.once.is_some())
}

pub(super) fn units(jobs: &[Job]) -> impl Iterator<Item = &Unit> {
    jobs.iter().flat_map(|job| &job.units)
}

/// What was loaded of each key.
type Known<'a> = AHashMap<&'a Key, &'a Locked>;

/// Runs every unit in order on one workspace.
pub(super) fn run(
    jobs: &[Job],
    mut workspace: Workspace,
    requests: &[LoadRequest],
    locked: &[Locked],
    mut tokens: Tokens,
    now: UnixMs,
) -> Plan {
    let known: Known<'_> = requests.iter().map(|r| &r.key).zip(locked).collect();
    let mut events = None;
    if jobs.iter().any(|job| job.events.is_active()) {
        events = Some(Vec::new());
    }
    let mut replies: Vec<Answer> = Vec::new();
    // Those that ran, and are no repeats.
    let mut ran: Vec<bool> = Vec::new();
    for unit in units(jobs) {
        let repeated = unit.once.as_ref().and_then(|once| tokens.answer(once));
        ran.push(repeated.is_none());
        replies.push(repeated.unwrap_or_else(|| {
            let before = workspace.changes();
            let answer = run_unit(unit, &mut workspace, &known, now, events.as_mut());
            if let Some(once) = &unit.once {
                tokens.keep(once, &answer, workspace.changes() != before);
            }
            answer
        }));
    }
    let is_short = workspace.is_short();
    let wanted = workspace.take_wanted().into_vec();
    let mut changes: Vec<(Key, Effect, RowState)> = workspace
        .take_effects()
        .into_iter()
        .map(|(key, effect)| {
            let row = match known.get(&key) {
                Some(locked) if !locked.has_row => RowState::Missing,
                _ => RowState::LockedOrBlind,
            };
            (key, effect, row)
        })
        .collect();
    changes.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let contents = changes
        .iter()
        .map(|(key, ..)| known.get(key).and_then(|locked| locked.content_id))
        .collect();
    let is_changed = |key: &Key| changes.binary_search_by(|(held, ..)| held.cmp(key)).is_ok();
    let seen = requests
        .iter()
        .zip(locked)
        .filter(|(request, _)| !is_changed(&request.key))
        .map(|(request, locked)| (request.key.clone(), locked.loaded.version))
        .collect();
    let answered = units(jobs).zip(&replies).zip(ran);
    let answered = answered.filter_map(|(answered, ran)| ran.then_some(answered));
    let held = held(answered, &known, is_changed);
    Plan {
        replies,
        changes,
        contents,
        seen,
        events: events.unwrap_or_default(),
        held,
        now,
        is_short,
        wanted,
        kept: tokens.into_new(),
    }
}

/// The client that changed each key; none where it may have been several.
pub(super) fn authors(jobs: &[Job]) -> AHashMap<Key, Option<u64>> {
    let mut authors: AHashMap<Key, Option<u64>> = AHashMap::new();
    for unit in units(jobs) {
        let author = (unit.client != 0).then_some(unit.client);
        for key in unit.steps.iter().flat_map(|s| s.call.keys(s.db)) {
            authors
                .entry(key)
                .and_modify(|known| *known = (*known).filter(|_| *known == author))
                .or_insert(author);
        }
    }
    authors
}

fn run_unit(
    unit: &Unit,
    workspace: &mut Workspace,
    known: &Known<'_>,
    now: UnixMs,
    mut events: Option<&mut Vec<Event>>,
) -> Answer {
    let holds = |(key, seen): &(Key, Seen)| {
        seen.allows(workspace.effect(key)) && known.get(key).is_some_and(|l| seen.holds(l))
    };
    if !unit.watched.iter().all(holds) {
        return Answer::Unwatched;
    }
    let replies = unit.steps.iter();
    let replies = replies.map(|Step { db, call }| match &mut events {
        Some(events) => engine::execute_telling(call, *db, workspace, now, events),
        None => engine::execute(call, *db, workspace, now),
    });
    Answer::Done(replies.collect())
}

/// A row that is missing locks nothing. A unit over several keys that relies on one
/// of them being absent would see half of another proxy's unit that creates it,
/// or commit beside it: such keys are held by placeholder rows.
fn held<'a>(
    answered: impl Iterator<Item = (&'a Unit, &'a Answer)>,
    known: &Known<'_>,
    is_changed: impl Fn(&Key) -> bool,
) -> Vec<Key> {
    let mut held = Vec::new();
    for (unit, answer) in answered {
        let several = || {
            unit.steps
                .iter()
                .any(|s| s.call.key_indices().nth(1).is_some())
        };
        if !matches!(answer, Answer::Done(_)) || known.is_empty() || !(unit.is_block() || several())
        {
            continue;
        }
        let needed = unit.steps.iter().flat_map(|s| engine::needs(&s.call, s.db));
        let watched = unit.watched.iter().map(|(key, _)| key.clone());
        let keys: Vec<Key> = needed.map(|(key, _)| key).chain(watched).collect();
        if unit.is_block() || keys.iter().any(&is_changed) {
            let is_free = |key: &Key| known.get(key).is_some_and(|locked| !locked.has_row);
            held.extend(
                keys.into_iter()
                    .filter(|key| is_free(key) && !is_changed(key)),
            );
        }
    }
    held.sort_unstable();
    held.dedup();
    held
}

pub(super) fn is_reserved(key: &Key) -> bool {
    key.name.starts_with(RESERVED_PREFIX)
}
