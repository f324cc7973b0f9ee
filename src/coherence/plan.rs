//! What the calls of a batch need, and what they do on what was loaded.

use std::collections::BTreeMap;

use ahash::AHashMap;

use super::lane::Job;
use super::once::Tokens;
use super::run::{Runner, is_held};
use super::{Answer, Refusal, Step, Unit};
use crate::cache;
use crate::engine::{self, Need, Needs, Workspace};
use crate::model::{Effect, Event, EventClasses, Key, UnixMs, Version};
use crate::script::Deed;
use crate::store::{Advance, Change, Kept, LoadRequest, Locked, RowState};

/// The effects of a batch, sorted by key, with what is known of each row.
pub(super) struct Plan {
    pub(super) replies: Vec<Answer>,
    pub(super) changes: Vec<(Key, Effect, RowState)>,
    /// For each change, the number of what its row holds.
    pub(super) contents: Vec<Option<i64>>,
    /// Keys that were loaded and not changed.
    pub(super) seen: Vec<(Key, Version)>,
    pub(super) events: Vec<Event>,
    /// What scripts want done once it is committed.
    pub(super) deeds: Vec<Deed>,
    /// Keys without a row, not changed, that must not come to be meanwhile.
    pub(super) held: Vec<Key>,
    pub(super) now: UnixMs,
    /// Whether a call needed more than was loaded.
    pub(super) is_short: bool,
    /// Replies to keep with their tokens; or why the batch must not commit.
    pub(super) kept: Result<Vec<Kept>, Refusal>,
    /// What calls turned out to need besides, for the next attempt.
    pub(super) wanted: Vec<(Key, Need)>,
    /// Whether the cache only forgets its keys: they are not the cache's.
    pub(super) is_unshown: bool,
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
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    needs: Vec<(Key, Need)>,
    /// How often an attempt fell short of each key.
    shorts: AHashMap<Key, u32>,
    /// Attempts that fell short.
    rounds: u32,
}

/// So many elements of each key of a script are loaded ahead: all, if it is small.
const SCRIPT_ELEMENTS: u64 = 32;

impl Wanted {
    /// Notes what an attempt fell short of.
    pub(super) fn add(&mut self, more: Vec<(Key, Need)>) {
        let mut keys: Vec<&Key> = more.iter().map(|(key, _)| key).collect();
        keys.dedup();
        for key in keys {
            *self.shorts.entry(key.clone()).or_default() += 1;
        }
        self.needs.extend(more);
        self.rounds += 1;
    }

    /// Attempts that fell short.
    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }
}

/// Whether a unit of them runs a script.
pub(super) fn runs_scripts(jobs: &[Job]) -> bool {
    units(jobs).any(|unit| unit.scripted.is_some())
}

/// What a step tells of its needs before it runs.
pub(super) fn step_needs(step: &Step) -> Needs {
    match &step.script {
        None => engine::needs(&step.call, step.db),
        Some(_) => script_keys(step).collect(),
    }
}

fn script_keys(step: &Step) -> impl Iterator<Item = (Key, Need)> + '_ {
    let keys = step.call.keys(step.db);
    keys.map(|key| (key, Need::first(SCRIPT_ELEMENTS)))
}

/// What is known besides of what a unit with scripts needs.
fn scripted_needs(unit: &Unit) -> impl Iterator<Item = (Key, Need)> + '_ {
    let scripted = unit.scripted.iter();
    scripted.flat_map(|scripted| {
        let hints = scripted.hints.iter();
        let hints = hints.map(|(key, need)| (key.clone(), need.clone()));
        let effects = scripted.done.iter().flat_map(|done| &done.effects);
        hints.chain(effects.map(|(key, _)| (key.clone(), Need::header())))
    })
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
        for step in &unit.steps {
            for (key, need) in step_needs(step) {
                needs.entry(key).or_default().add(need);
            }
            if looks_for_keys {
                for key in step.call.keys(step.db) {
                    needs.entry(key).or_default();
                }
            }
        }
        for (key, need) in scripted_needs(unit) {
            needs.entry(key).or_default().add(need);
        }
        for (key, _) in &unit.watched {
            needs.entry(key.clone()).or_default();
        }
    }
    if !needs.is_empty() || has_tokens(jobs) {
        for step in units(jobs).flat_map(|unit| &unit.steps) {
            for key in step.call.keys(step.db) {
                needs.entry(key).or_default();
            }
        }
    }
    let is_scripted = runs_scripts(jobs);
    for (key, need) in &wanted.needs {
        let known = needs.entry(key.clone()).or_default();
        known.add(need.clone());
        // Scripts come to one key after the other: each has its own rounds.
        let rounds = match is_scripted {
            true => wanted.shorts.get(key).copied().unwrap_or(0),
            false => wanted.rounds,
        };
        known.whole |= rounds >= ROUNDS_MAX;
    }
    needs
}

/// Whether nothing has to be looked at in the store before the batch is written, and
/// nothing can turn out to have to be.
pub(super) fn is_blind(jobs: &[Job], needs: &BTreeMap<Key, Need>) -> bool {
    needs.is_empty() && !has_tokens(jobs) && !runs_scripts(jobs)
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
pub(super) type Known<'a> = AHashMap<&'a Key, &'a Locked>;

/// Runs every unit in order on one workspace. `rounds` attempts fell short before.
pub(super) fn run(
    jobs: &[Job],
    workspace: Workspace,
    (requests, locked): (&[LoadRequest], &[Locked]),
    tokens: Tokens,
    now: UnixMs,
    rounds: u32,
) -> Plan {
    let known: Known<'_> = requests.iter().map(|r| &r.key).zip(locked).collect();
    let tells = jobs.iter().any(|job| job.events.is_active());
    let mut runner = Runner::new((workspace, tokens), &known, now, tells, rounds);
    let replies: Vec<Answer> = jobs.iter().flat_map(|job| runner.job(job)).collect();
    let Runner {
        mut workspace,
        tokens,
        events,
        deeds,
        touched,
        is_disturbed,
        ..
    } = runner;
    let is_short = workspace.is_short() || is_disturbed;
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
    let ran = units(jobs).zip(&replies).zip(&touched);
    let ran = ran.filter_map(|(unit, touched)| Some((unit, touched.as_ref()?)));
    let held = held(ran, &known, is_changed);
    Plan {
        replies,
        changes,
        contents,
        seen,
        events: events.unwrap_or_default(),
        deeds,
        held,
        now,
        is_short,
        wanted,
        kept: tokens.into_new(),
        is_unshown: advances(jobs).next().is_some(),
    }
}

/// How far the batch brings the journal.
pub(super) fn advances(jobs: &[Job]) -> impl Iterator<Item = &Advance> {
    units(jobs).filter_map(|unit| unit.advance.as_deref())
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

/// A row that is missing locks nothing. A unit over several keys that relies on one
/// of them being absent would see half of another proxy's unit that creates it,
/// or commit beside it: such keys are held by placeholder rows.
fn held<'a>(
    ran: impl Iterator<Item = ((&'a Unit, &'a Answer), &'a Vec<Key>)>,
    known: &Known<'_>,
    is_changed: impl Fn(&Key) -> bool,
) -> Vec<Key> {
    let mut held = Vec::new();
    for ((unit, answer), touched) in ran {
        let is_done = matches!(answer, Answer::Done(_));
        if !is_done || known.is_empty() || !is_held(unit, touched) {
            continue;
        }
        let needed = unit.steps.iter().flat_map(step_needs);
        let watched = unit.watched.iter().map(|(key, _)| key.clone());
        let keys = needed.map(|(key, _)| key).chain(watched);
        let keys: Vec<Key> = keys.chain(touched.iter().cloned()).collect();
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
    cache::is_reserved(&key.name)
}
