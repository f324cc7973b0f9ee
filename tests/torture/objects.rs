//! The things that clients work on. Few at a time, so that many clients meet at each; a thing that was
//! used for long, or of which too many outcomes are unknown, is left for a new one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::support::seed::Random;

/// The number of an object: a thing that is checked by itself.
pub type ObjectId = u32;

/// Accounts of a bank.
pub const ACCOUNTS: usize = 4;
/// Fields of a hash that are written each by itself.
pub const FIELDS: usize = 3;

/// What a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A string that is only set and read.
    Register,
    /// A string that is also set for a time, exchanged and deleted.
    Cell,
    /// Two strings that are always set together.
    Pair,
    /// A number.
    Counter,
    /// A list that is appended to.
    List,
    /// A hash: some fields by themselves, and two that are always set together.
    Hash,
    /// Numbers whose sum stays 0.
    Bank,
}

/// How many things of each kind are in use at a time.
const IN_USE: [(Kind, usize); 7] = [
    (Kind::Register, 4),
    (Kind::Cell, 3),
    (Kind::Pair, 3),
    (Kind::Counter, 2),
    (Kind::List, 2),
    (Kind::Hash, 2),
    (Kind::Bank, 1),
];

impl Kind {
    /// Operations on one thing at most, about, and those of unknown outcome.
    fn limits(self) -> (u32, u32) {
        match self {
            // The search for an order must stay short.
            Self::Cell => (250, 6),
            // Readers are told all of it.
            Self::List => (800, u32::MAX),
            // Untold transfers between two readers are not looked for.
            Self::Bank => (2_000, 100),
            Self::Register | Self::Pair | Self::Counter | Self::Hash => (4_000, u32::MAX),
        }
    }

    fn objects(self) -> u32 {
        match self {
            // The pair comes last.
            Self::Hash => FIELDS as u32 + 1,
            _ => 1,
        }
    }
}

/// One thing, and the numbers of its objects.
#[derive(Clone, Debug)]
pub struct Thing {
    /// What it is.
    pub kind: Kind,
    /// Its key, or the beginning of its keys.
    pub key: String,
    /// Its first object.
    pub first: ObjectId,
    slot: usize,
}

impl Thing {
    /// All its keys.
    pub fn keys(&self) -> Vec<String> {
        match self.kind {
            Kind::Pair => vec![self.part("a"), self.part("b")],
            Kind::Bank => (0..ACCOUNTS)
                .map(|account| self.part(&account.to_string()))
                .chain([self.part("number")])
                .collect(),
            _ => vec![self.key.clone()],
        }
    }

    /// The key of a part of it.
    pub fn part(&self, name: &str) -> String {
        format!("{}:{name}", self.key)
    }

    /// Its objects, with a name for people.
    pub fn objects(&self) -> Vec<(ObjectId, String)> {
        (0..self.kind.objects())
            .map(|index| {
                let name = match self.kind {
                    Kind::Hash if index as usize == FIELDS => format!("{} x+y", self.key),
                    Kind::Hash => format!("{} f{index}", self.key),
                    _ => self.key.clone(),
                };
                (self.first + index, name)
            })
            .collect()
    }
}

struct Slot {
    thing: usize,
    operations: u32,
    unknown: u32,
}

struct State {
    all: Vec<Thing>,
    slots: Vec<Slot>,
}

/// All things of a round.
pub struct Objects {
    round: u32,
    state: Mutex<State>,
}

impl Objects {
    /// Those of round number `round`, named by it.
    pub fn new(round: u32) -> Self {
        let objects = Self {
            round,
            state: Mutex::new(State {
                all: Vec::new(),
                slots: Vec::new(),
            }),
        };
        let mut state = objects.state();
        for (kind, count) in IN_USE {
            for _ in 0..count {
                let slot = state.slots.len();
                let thing = objects.make(&mut state, kind, slot);
                state.slots.push(Slot {
                    thing,
                    operations: 0,
                    unknown: 0,
                });
            }
        }
        drop(state);
        objects
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, state: &mut State, kind: Kind, slot: usize) -> usize {
        let index = state.all.len();
        let first = state
            .all
            .last()
            .map_or(0, |last| last.first + last.kind.objects());
        let key = format!(
            "{}{}.{index}",
            format!("{kind:?}").to_lowercase(),
            self.round
        );
        state.all.push(Thing {
            kind,
            key,
            first,
            slot,
        });
        index
    }

    /// One of those in use.
    pub fn draw(&self, random: &mut Random) -> Thing {
        let mut state = self.state();
        let slot = random.below(state.slots.len());
        let (thing, operations, unknown) = {
            let slot = &mut state.slots[slot];
            slot.operations += 1;
            (slot.thing, slot.operations, slot.unknown)
        };
        let kind = state.all[thing].kind;
        let (operations_max, unknown_max) = kind.limits();
        if operations < operations_max && unknown < unknown_max {
            return state.all[thing].clone();
        }
        let thing = self.make(&mut state, kind, slot);
        state.slots[slot] = Slot {
            thing,
            operations: 0,
            unknown: 0,
        };
        state.all[thing].clone()
    }

    /// A thing for one client alone.
    pub fn own(&self, kind: Kind) -> Thing {
        let mut state = self.state();
        let thing = self.make(&mut state, kind, usize::MAX);
        state.all[thing].clone()
    }

    /// Takes note of an operation on `thing` whose outcome is unknown.
    pub fn note_unknown(&self, thing: &Thing) {
        let mut state = self.state();
        let index = state.slots.get(thing.slot).map(|slot| slot.thing);
        if index.is_some_and(|index| state.all[index].first == thing.first) {
            state.slots[thing.slot].unknown += 1;
        }
    }

    /// All that there ever were.
    pub fn all(&self) -> Vec<Thing> {
        self.state().all.clone()
    }

    /// All keys in use now.
    pub fn keys_in_use(&self) -> Vec<String> {
        let state = self.state();
        let things = state.slots.iter().map(|slot| &state.all[slot.thing]);
        things.flat_map(Thing::keys).collect()
    }
}
