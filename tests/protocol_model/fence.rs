//! The fence joined with the key protocol: the row in the store, what two proxies believe of
//! it, the server that is the cache, and batches and readers of each proxy.
//!
//! Keys and their functions are those of `cache.rs`. The fence is here in its steps: raise,
//! confirm, bypass, empty and stamp, activate. A proxy obeys what it has *read* of the
//! row, so each is behind as long as it likes: one that is stalled or cut off is one that takes no
//! step, and one that is revived goes on. Time is one step, [`Step::Lapse`]: a lease runs out.
//! It may do so at any moment; what the store knows of it is in [`Fenced::may_bypass`].
//!
//! Calls carry the generation in which they were made and may arrive late: they run as long
//! as the server has the mark of that generation.
//!
//! - `state.rs`: the state; `row.rs`: the fence; `batches.rs`, `reads.rs`: who works;
//!   `faults.rs`: what happens to the cache;
//! - `properties.rs`, `protocol.rs`, `mutations.rs`: as for the key protocol.

mod batches;
mod faults;
mod mutations;
mod properties;
mod protocol;
mod reads;
mod row;
mod state;

use stateright::{Model, Property};

use self::state::{PROXIES, Place, Server, State};
use crate::cache::{Companion, Content, Entry, Functions, Version};
use crate::rules::{Rule, Rules};
use crate::scenario::{KEYS, READERS, Shape, WRITERS, Work};

/// How a reader goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The client's command on the native; the reply may be long under way.
    Hit,
    /// look, load, fill; in bypass one snapshot of the store.
    Miss,
}

/// One reader: its proxy, the keys that it reads at once (bits), and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The proxy.
    pub proxy: usize,
    /// The keys, as bits.
    pub keys: u8,
    /// How.
    pub way: Way,
}

/// How often each fault may happen in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Troubles {
    /// Fences that somebody raises, with or without need.
    pub raise: u8,
    /// Proxies that empty the cache in place of waiting for others.
    pub empty: u8,
    /// The cache is lost and comes back empty, as another server.
    pub crash: u8,
    /// A copy of the cache is kept, as a snapshot or by a replica.
    pub copy: u8,
    /// The copy takes the cache's place, as another server.
    pub restore: u8,
    /// The same, but the server before goes on answering on open connections.
    pub fail_over: u8,
    /// FLUSHALL behind our back.
    pub flush: u8,
    /// Evictions of a native or hidden key.
    pub content: u8,
    /// Evictions of a companion, whoever is registered there (`allkeys-*`).
    pub companion: u8,
    /// Registrations declared dead, whatever the process does.
    pub death: u8,
    /// Dead proxies that register anew.
    pub register: u8,
    /// Stamps of the cache that arrive when nobody waits for them any more.
    pub late_stamp: u8,
}

/// A model's bounds.
#[derive(Clone, Debug)]
pub struct Fenced {
    /// Its name, for the report.
    pub name: &'static str,
    /// The batches, each of which commits at most once.
    pub works: Vec<Work>,
    /// The proxy of each batch.
    pub lanes: Vec<usize>,
    /// The readers, each of which reads once.
    pub readers: Vec<Reads>,
    /// What each key holds at version 0.
    pub initial: [Shape; KEYS],
    /// What may go wrong.
    pub troubles: Troubles,
    /// The rules that are kept.
    pub rules: Rules,
}

/// One step. Numbers are of proxies (`p`), batches (`b`), readers (`r`) and keys (`k`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// p suspects the cache: the generation rises, to `closing`.
    Raise(usize),
    /// p reads that the fence is closing, stops using the cache, and says so.
    Confirm(usize),
    /// p deletes what the server on record holds, while others do not answer.
    Empty(usize),
    /// The fence goes to `bypass`.
    Bypass,
    /// p reads that the fence is in bypass.
    SeeBypass(usize),
    /// p empties and stamps the cache.
    Stamp(usize),
    /// The fence goes to `active` on the server that was stamped.
    Activate,
    /// p reads that the fence is active, and has checked the cache.
    SeeActive(usize),
    /// p renews its lease.
    Renew(usize),
    /// p's lease runs out.
    Lapse(usize),
    /// p's registration is declared dead.
    DeclareDead(usize),
    /// p registers anew.
    Register(usize),
    /// b's begin.
    Begin(usize),
    /// b's transaction: guard, locks.
    Open(usize),
    /// COMMIT takes effect; in bypass also the answer.
    Commit(usize),
    /// b's guard refused: another attempt.
    Retry(usize),
    /// apply, then the answer.
    Apply(usize),
    /// The answer without an apply, when the cache is out of use.
    Answer(usize),
    /// A burial of b at k reads the store.
    Exhume(usize, usize),
    /// A burial calls the cache.
    Bury,
    /// A client of p reads k, by a hit or by a look that finds the absent mark.
    Hit(usize, usize),
    /// r's command runs in the cache.
    Ask(usize),
    /// Its reply arrives.
    Arrive(usize),
    /// r looks, and may get a lease to fill.
    Look(usize),
    /// r reads the store.
    Load(usize),
    /// r fills, then is answered.
    Fill(usize),
    /// r was refused, and begins again.
    Again(usize),
    /// r reads the store in bypass, and is answered.
    ReadBypass(usize),
    /// The cache is lost.
    Crash,
    /// A copy of the cache is kept.
    Copy,
    /// It takes the cache's place.
    Restore,
    /// It takes the cache's address; who is connected to the server before goes on with that.
    FailOver,
    /// The cache is flushed.
    Flush,
    /// The native of k is evicted.
    EvictNative(usize),
    /// The hidden key of k is evicted.
    EvictHidden(usize),
    /// The companion of k is evicted.
    EvictCompanion(usize),
    /// A stamp of that generation arrives late.
    LateStamp(u8),
}

/// Adds `step` if it `may` be taken.
fn offer(steps: &mut Vec<Step>, may: bool, step: Step) {
    if may {
        steps.push(step);
    }
}

impl Fenced {
    /// A scenario without faults over `initial` content.
    pub fn new(name: &'static str, initial: [Shape; KEYS]) -> Self {
        Self {
            name,
            works: Vec::new(),
            lanes: Vec::new(),
            readers: Vec::new(),
            initial,
            troubles: Troubles::default(),
            rules: Rules::default(),
        }
    }

    /// With these batches, each of a proxy.
    pub fn batches(mut self, batches: &[(usize, Work)]) -> Self {
        assert!(batches.len() <= WRITERS, "too many batches");
        assert!(batches.iter().all(|(proxy, _)| *proxy < PROXIES));
        self.lanes = batches.iter().map(|(proxy, _)| *proxy).collect();
        self.works = batches.iter().map(|(_, work)| *work).collect();
        self
    }

    /// With these readers.
    pub fn readers(mut self, readers: &[(usize, u8, Way)]) -> Self {
        assert!(readers.len() <= READERS, "too many readers");
        assert!(readers.iter().all(|(proxy, ..)| *proxy < PROXIES));
        let reader = |&(proxy, keys, way): &(usize, u8, Way)| Reads { proxy, keys, way };
        self.readers = readers.iter().map(reader).collect();
        self
    }

    /// With these faults.
    pub fn troubles(mut self, troubles: Troubles) -> Self {
        self.troubles = troubles;
        self
    }

    /// Without this rule.
    pub fn without(mut self, rule: Rule) -> Self {
        self.rules = self.rules.without(rule);
        self
    }

    fn keep(&self, rule: Rule) -> bool {
        self.rules.keep(rule)
    }

    /// The keys that any batch or reader touches.
    fn keys(&self) -> impl Iterator<Item = usize> + '_ {
        (0..KEYS).filter(|&key| {
            self.readers
                .iter()
                .any(|reads| reads.keys & (1 << key) != 0)
                || self.works.iter().any(|work| work.touches(key))
        })
    }

    /// Runs `call` with the cache's functions for `key`.
    fn with_functions<T>(
        &self,
        state: &State,
        key: usize,
        call: impl FnOnce(&Functions<'_>) -> T,
    ) -> T {
        let history = state.history;
        let initial = self.initial[key];
        let shape = |version: Version| history.shape(&self.works, initial, key, version);
        call(&Functions {
            rules: self.rules,
            shape: &shape,
        })
    }

    /// Runs `call` on a key in a server, and notes if it put older content over newer.
    fn on_key<T>(
        &self,
        state: &mut State,
        (place, key): (Place, usize),
        call: impl FnOnce(&Functions<'_>, &mut Entry) -> T,
    ) -> T {
        let before = state.at(place).keys[key];
        let mut after = before;
        let result = self.with_functions(state, key, |f| call(f, &mut after));
        state.at_mut(place).keys[key] = after;
        if let (Some(old), Some(new)) = (before.native, after.native) {
            state.wrong.stale_over_fresh |= new < old;
        }
        result
    }

    /// What `server` shows of `key`.
    fn visible(&self, state: &State, server: &Server, key: usize) -> Option<Version> {
        self.with_functions(state, key, |f| f.visible(&server.keys[key]))
    }

    /// The key as a fill left it.
    fn filled(&self, key: usize) -> Entry {
        let content = |content| {
            Some(Companion {
                content,
                ..Companion::default()
            })
        };
        let (native, companion) = match self.initial[key] {
            Shape::Absent => (None, content(Content::Absent(0))),
            Shape::Plain => (Some(0), None),
            Shape::Rich => (Some(0), content(Content::Value(0))),
        };
        Entry {
            native,
            companion,
            ..Entry::default()
        }
    }
}

impl crate::Bounded for Fenced {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rules(&self) -> Rules {
        self.rules
    }
}

impl Model for Fenced {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut filled = [Entry::default(); KEYS];
        for key in self.keys() {
            filled[key] = self.filled(key);
        }
        vec![
            State::start(self.troubles, filled),
            State::start(self.troubles, [Entry::default(); KEYS]),
        ]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.row_steps(state, steps);
        for proxy in 0..PROXIES {
            self.proxy_steps(state, proxy, steps);
        }
        for batch in 0..self.works.len() {
            self.batch_steps(state, batch, steps);
        }
        self.burial_steps(state, steps);
        for reader in 0..self.readers.len() {
            self.reader_steps(state, reader, steps);
        }
        self.hit_steps(state, steps);
        self.fault_steps(state, steps);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Raise(_)
            | Step::Confirm(_)
            | Step::Empty(_)
            | Step::Bypass
            | Step::SeeBypass(_)
            | Step::Stamp(_)
            | Step::Activate
            | Step::SeeActive(_) => self.row_step(&mut state, step),
            Step::Renew(_) | Step::Lapse(_) | Step::DeclareDead(_) | Step::Register(_) => {
                self.proxy_step(&mut state, step);
            }
            Step::Begin(_)
            | Step::Open(_)
            | Step::Commit(_)
            | Step::Retry(_)
            | Step::Apply(_)
            | Step::Answer(_)
            | Step::Exhume(..)
            | Step::Bury => self.batch_step(&mut state, step),
            Step::Hit(..)
            | Step::Ask(_)
            | Step::Arrive(_)
            | Step::Look(_)
            | Step::Load(_)
            | Step::Fill(_)
            | Step::Again(_)
            | Step::ReadBypass(_) => self.reader_step(&mut state, step),
            _ => self.fault_step(&mut state, step),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
