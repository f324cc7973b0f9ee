//! Large collections are filled in steps: parts under a temporary name, which the fill renames.

use super::Step;
use crate::cache::{TORN, Version};
use crate::rules::Rule;
use crate::scenario::{KEYS, READERS, Scenario, Shape};
use crate::state::{Reading, STAGES, Staged, State};

/// The collection among the keys.
const COLLECTION: usize = 1;

impl Scenario {
    /// The place of what a reader stages.
    fn place(&self, reader: usize) -> usize {
        if self.rules.keep(Rule::StagedNameIsUnique) {
            reader
        } else {
            // No reader's own, so that readers stay interchangeable.
            READERS - 1
        }
    }

    /// Whether a reader with `versions` from the store stages the collection.
    fn stages(&self, state: &State, reader: usize, versions: [Version; KEYS]) -> bool {
        let version = versions[COLLECTION];
        self.large
            && self.reads(reader).any(|key| key == COLLECTION)
            && state.shape(self, COLLECTION, version) != Shape::Absent
    }

    /// What a reader that has loaded sends next.
    pub(super) fn fill_step(&self, state: &State, reader: usize) -> Step {
        let stages = match state.readers[reader] {
            Reading::Loaded(versions)
            | Reading::Joined(versions, _)
            | Reading::Untold(versions) => self.stages(state, reader, versions),
            _ => false,
        };
        if stages && (state.staged[reader].sent as usize) < STAGES {
            Step::Stage(reader)
        } else {
            Step::Fill(reader)
        }
    }

    /// The next part: the first begins anew, the others add to what is there.
    pub(super) fn stage(&self, state: &mut State, reader: usize) {
        let (Reading::Loaded(versions) | Reading::Joined(versions, _) | Reading::Untold(versions)) =
            state.readers[reader]
        else {
            return;
        };
        let part = state.staged[reader].sent as usize;
        state.staged[reader].sent += 1;
        let parts = &mut state.staged[self.place(reader)].parts;
        if part == 0 {
            *parts = Default::default();
        } else if parts[0].is_none() && self.rules.keep(Rule::StageNeedsFirstStep) {
            return;
        }
        parts[part] = Some(versions[COLLECTION]);
    }

    /// The version that the content of `key` really has when a reader fills it with `versions`.
    pub(super) fn staged(
        &self,
        state: &State,
        reader: usize,
        key: usize,
        versions: [Version; KEYS],
    ) -> Option<Version> {
        let version = versions[key];
        if key != COLLECTION || !self.stages(state, reader, versions) {
            return Some(version);
        }
        let parts = state.staged[self.place(reader)].parts;
        if parts.iter().all(Option::is_none) {
            return None;
        }
        let complete = parts.iter().all(Option::is_some);
        if !complete && self.rules.keep(Rule::StagedIsCounted) {
            return None;
        }
        let right = parts.iter().all(|part| *part == Some(version));
        Some(if right { version } else { TORN })
    }

    /// The temporary name has gone: renamed, or deleted.
    pub(super) fn unstage(&self, state: &mut State, reader: usize) {
        state.staged[reader].sent = 0;
        if self.large {
            state.staged[self.place(reader)].parts = Default::default();
        }
    }

    /// The cache has lost all that was staged.
    pub(super) fn lose_staged(&self, state: &mut State) {
        for staged in &mut state.staged {
            staged.parts = Default::default();
        }
    }

    pub(super) fn staging_faults(&self, state: &State, reader: usize, steps: &mut Vec<Step>) {
        let there = state.staged[reader] != Staged::default();
        if state.left.staged > 0 && there {
            steps.push(Step::EvictStaged(reader));
        }
    }

    pub(super) fn evict_staged(&self, state: &mut State, reader: usize) {
        state.left.staged -= 1;
        state.staged[self.place(reader)].parts = Default::default();
    }
}
