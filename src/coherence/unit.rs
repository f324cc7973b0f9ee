//! What commits together, and what must not have changed before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;

use super::Once;
use crate::command::{Call, Token};
use crate::engine::{Content, Need};
use crate::model::{Db, Effect, Event, Key, Reply, Version};
use crate::script::{Deed, Invocation};
use crate::store::{Advance, Locked};

/// One command of a unit, and where it runs.
#[derive(Clone, Debug)]
pub struct Step {
    /// The database.
    pub db: Db,
    /// The command.
    pub call: Call,
    /// The script that it runs, if it is one of the class `Script`.
    pub script: Option<Arc<Invocation>>,
}

impl Step {
    /// A command that runs no script.
    pub fn new(db: Db, call: Call) -> Self {
        Self {
            db,
            call,
            script: None,
        }
    }
}

/// When a unit's client is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// When the cache has confirmed it, too.
    #[default]
    Applied,
    /// When the store has committed it.
    Committed,
}

/// Commands that commit together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// One command, or those of a MULTI block.
    pub steps: SmallVec<[Step; 1]>,
    /// Keys that must be as they were seen, or nothing is done.
    pub watched: Vec<(Key, Seen)>,
    /// The client that sent them; 0: none.
    pub client: u64,
    /// Under which token it is made once, if it is.
    pub once: Option<Box<Once>>,
    /// More of one that runs scripts.
    pub(super) scripted: Option<Arc<Scripted>>,
    /// When that is answered.
    pub acknowledge: Acknowledge,
    /// How far the journal is written when it is committed; nobody is told of its keys.
    pub(super) advance: Option<Arc<Advance>>,
}

/// What is kept of a unit that runs scripts.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    /// The lane has put it off: it takes too long, or does what cannot be done there.
    pub(super) is_deferred: AtomicBool,
    /// What a run of it turned out to need.
    pub(super) hints: BTreeMap<Key, Need>,
    /// What a run beside the lane came to: it is not run again.
    pub(super) done: Option<Done>,
}

/// What a unit came to that ran beside the lane, on keys as they were seen.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) replies: SmallVec<[Reply; 1]>,
    pub(super) effects: Vec<(Key, Effect)>,
    pub(super) events: Vec<Event>,
    pub(super) deeds: Vec<Deed>,
}

/// What a unit came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A reply for each step.
    Done(SmallVec<[Reply; 1]>),
    /// Nothing was done, because a watched key had changed.
    Unwatched,
    /// Nothing was done: this error is the reply to the unit as a whole.
    Refused(Reply),
    /// Nothing was done: the unit, or one before it, is put off, or must run again.
    Deferred,
}

impl Answer {
    /// The replies to the steps of a unit that watches nothing; to one that was refused, one.
    pub fn replies(self) -> SmallVec<[Reply; 1]> {
        match self {
            Self::Done(replies) => replies,
            Self::Unwatched | Self::Deferred => SmallVec::new(),
            Self::Refused(reply) => SmallVec::from_buf([reply]),
        }
    }
}

/// A key as WATCH saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its version.
    pub version: Version,
    /// Whether it was there (and had not expired).
    pub is_present: bool,
    /// Whether its end had passed, and nobody was told of that yet.
    pub has_ended: bool,
}

impl Done {
    /// Whether nothing has to be committed or told.
    pub(super) fn is_nothing(&self) -> bool {
        self.effects.is_empty() && self.events.is_empty() && self.deeds.is_empty()
    }
}

impl Unit {
    /// What became of keys of the journal.
    pub(super) fn drained(effects: Vec<(Key, Effect)>, advance: Advance) -> Self {
        let done = Done {
            effects,
            ..Done::default()
        };
        Self {
            scripted: Some(Arc::new(Scripted {
                done: Some(done),
                ..Scripted::default()
            })),
            advance: Some(Arc::new(advance)),
            ..Self::default()
        }
    }

    /// A command by itself.
    pub fn single(db: Db, call: Call) -> Self {
        Self::of_one(Step::new(db, call))
    }

    /// One step by itself, made once if its call has a token.
    pub fn of_one(mut step: Step) -> Self {
        let token = step.call.token.take();
        Self::of([step], token)
    }

    /// Steps of which some may run scripts; made once if there is a token.
    pub fn of(steps: impl IntoIterator<Item = Step>, token: Option<Token>) -> Self {
        let steps: SmallVec<[Step; 1]> = steps.into_iter().collect();
        let runs_scripts = steps.iter().any(|step| step.script.is_some());
        Self {
            once: token.map(|token| Box::new(Once::new(token, &steps))),
            steps,
            scripted: runs_scripts.then(Arc::default),
            ..Self::default()
        }
    }

    /// Puts it off: the lane does not run it, nor what its connection sent after it.
    pub(super) fn defer(&self) {
        if let Some(scripted) = &self.scripted {
            scripted.is_deferred.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was put off.
    pub(super) fn is_deferred(&self) -> bool {
        let scripted = self.scripted.as_ref();
        scripted.is_some_and(|scripted| scripted.is_deferred.load(Ordering::Relaxed))
    }

    /// What it came to beside the lane.
    pub(super) fn done(&self) -> Option<&Done> {
        self.scripted.as_ref()?.done.as_ref()
    }

    /// The same, as sent by that client.
    pub fn by(self, client: u64) -> Self {
        Self { client, ..self }
    }

    /// The same, answered then.
    pub fn acknowledged(self, acknowledge: Acknowledge) -> Self {
        Self {
            acknowledge,
            ..self
        }
    }

    /// Whether it came from MULTI and EXEC.
    pub(super) fn is_block(&self) -> bool {
        self.steps.len() != 1 || !self.watched.is_empty()
    }

    /// The bytes of its requests.
    pub fn bytes(&self) -> usize {
        let requests = self.steps.iter().map(|step| step.call.request.raw().len());
        requests.sum()
    }
}

impl Seen {
    /// Whether the key, under its row lock, is still as it was seen. One that
    /// was there and has expired since is not. Of one that was not there and has no
    /// row, the version says nothing: it is that of whatever was purged last.
    /// (If it came and went by a flush since, it is as it was.) One whose end had passed
    /// may have been deleted for that since: the next version, and still absent.
    pub(super) fn holds(self, now: &Locked) -> bool {
        let is_present = now.loaded.content != Content::Absent;
        let is_same = now.loaded.version == self.version;
        match (self.is_present, is_present) {
            (true, true) => is_same,
            (false, false) => {
                let is_told = || now.loaded.version == Version(self.version.0 + 1);
                is_same || !now.has_row || self.has_ended && is_told()
            }
            _ => false,
        }
    }

    /// Whether it may still be as it was seen although units before it in the same
    /// batch had this effect: they count as any other writer.
    pub(super) fn allows(self, effect: Option<&Effect>) -> bool {
        match effect {
            None => true,
            Some(Effect::Delete) => self.has_ended,
            Some(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Loaded;
    use crate::model::Kind;

    fn locked(version: i64, content: Content, has_row: bool) -> Locked {
        let loaded = Loaded {
            version: Version(version),
            content,
            expires_at: None,
        };
        Locked {
            loaded,
            has_row,
            content_id: None,
        }
    }

    #[test]
    fn a_watched_key_holds_while_version_and_presence_are_the_same() {
        let there = |version| locked(version, Content::Header(Kind::String), true);
        let seen = |version, is_present| Seen {
            version: Version(version),
            is_present,
            has_ended: false,
        };
        assert!(seen(5, true).holds(&there(5)));
        assert!(!seen(5, true).holds(&there(6)));
        // It expired: the row has the same version.
        assert!(!seen(5, true).holds(&locked(5, Content::Absent, true)));
        // Created, or created and deleted again.
        assert!(!seen(5, false).holds(&there(6)));
        assert!(!seen(5, false).holds(&locked(7, Content::Absent, true)));
        // Still not there; its tombstone was purged, and others'.
        assert!(seen(5, false).holds(&locked(5, Content::Absent, true)));
        assert!(seen(5, false).holds(&locked(9, Content::Absent, false)));
    }

    #[test]
    fn a_key_whose_end_had_passed_holds_when_it_is_deleted_for_that() {
        let seen = Seen {
            version: Version(5),
            is_present: false,
            has_ended: true,
        };
        let gone = |version| locked(version, Content::Absent, true);
        assert!(seen.holds(&gone(5)) && seen.holds(&gone(6)));
        assert!(!seen.holds(&gone(7)));
        assert!(!seen.holds(&locked(6, Content::Header(Kind::String), true)));
        assert!(seen.allows(None) && seen.allows(Some(&Effect::Delete)));
        assert!(!seen.allows(Some(&Effect::Expiry(None))));
        let absent = Seen {
            has_ended: false,
            ..seen
        };
        assert!(!absent.holds(&gone(6)) && !absent.allows(Some(&Effect::Delete)));
    }
}
