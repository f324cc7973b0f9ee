//! What a call must know of a key before it can run.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::model::{Collection, Element, Key, Kind, Known, Ranked};

/// The keys of a call with what it must know of each. A key may appear twice.
pub type Needs = SmallVec<[(Key, Need); 2]>;

/// How much of a key must be loaded. Whether it is there, its type, version,
/// size and expiry always are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Its whole value.
    pub whole: bool,
    /// The elements under these fields.
    pub fields: BTreeSet<Bytes>,
    /// So many elements with the lowest fields.
    pub first: u64,
    /// So many elements with the highest fields.
    pub last: u64,
    /// So many members of a sorted set with the lowest scores.
    pub lowest: u64,
    /// So many members of a sorted set with the highest scores.
    pub highest: u64,
    /// So many elements chosen at random: those that follow a random place.
    pub random: u64,
    /// For each of these fields: so many elements with the next fields above it
    /// that have the same first byte.
    pub after: BTreeMap<Bytes, u64>,
    /// For each of these fields, which are loaded too: so many elements with the
    /// next fields above the one that the first 17 bytes of its value
    /// name (a stream's group keeps there which entry was delivered last).
    pub behind: BTreeMap<Bytes, u64>,
}

/// How long the field is with which the value under a field of [`Need::behind`] begins.
pub const CURSOR_LEN: usize = 17;

/// What was found for a need beside the fields it names, each in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// For `first`.
    pub first: Vec<Bytes>,
    /// For `last`.
    pub last: Vec<Bytes>,
    /// For `lowest`.
    pub lowest: Vec<Ranked>,
    /// For `highest`.
    pub highest: Vec<Ranked>,
    /// For each of `after`.
    pub after: BTreeMap<Bytes, Vec<Bytes>>,
    /// For each of `behind` that is there: the field that its value names, and
    /// what stands above that.
    pub behind: BTreeMap<Bytes, (Bytes, Vec<Bytes>)>,
}

impl Need {
    /// Nothing but what is always loaded.
    pub fn header() -> Self {
        Self::default()
    }

    /// The whole value.
    pub fn value() -> Self {
        Self {
            whole: true,
            ..Self::default()
        }
    }

    /// The elements under `fields`.
    pub fn fields(fields: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            fields: fields.into_iter().collect(),
            ..Self::default()
        }
    }

    /// `count` elements with the lowest fields: the head of a list.
    pub fn first(count: u64) -> Self {
        Self {
            first: count,
            ..Self::default()
        }
    }

    /// `count` elements with the highest fields: the tail of a list.
    pub fn last(count: u64) -> Self {
        Self {
            last: count,
            ..Self::default()
        }
    }

    /// `count` members with the lowest scores.
    pub fn lowest(count: u64) -> Self {
        Self {
            lowest: count,
            ..Self::default()
        }
    }

    /// `count` members with the highest scores.
    pub fn highest(count: u64) -> Self {
        Self {
            highest: count,
            ..Self::default()
        }
    }

    /// `count` elements at random.
    pub fn random(count: u64) -> Self {
        Self {
            random: count,
            ..Self::default()
        }
    }

    /// `count` elements with the next fields above `field` that have its first byte.
    pub fn after(field: Bytes, count: u64) -> Self {
        Self {
            after: BTreeMap::from([(field, count)]),
            ..Self::default()
        }
    }

    /// `count` elements behind the one that the value under `field` names.
    pub fn behind(field: Bytes, count: u64) -> Self {
        Self {
            fields: BTreeSet::from([field.clone()]),
            behind: BTreeMap::from([(field, count)]),
            ..Self::default()
        }
    }

    /// Adds what another call needs of the same key: two calls that each take
    /// the first element take two.
    pub fn add(&mut self, other: Self) {
        self.whole |= other.whole;
        self.fields.extend(other.fields);
        for (one, more) in [
            (&mut self.first, other.first),
            (&mut self.last, other.last),
            (&mut self.lowest, other.lowest),
            (&mut self.highest, other.highest),
            (&mut self.random, other.random),
        ] {
            *one = one.saturating_add(more);
        }
        for (field, more) in other.after {
            let count = self.after.entry(field).or_default();
            *count = count.saturating_add(more);
        }
        for (field, more) in other.behind {
            let count = self.behind.entry(field).or_default();
            *count = count.saturating_add(more);
        }
    }

    /// What is known of a collection of `size` elements after what this need asks for was found.
    pub fn known(&self, kind: Kind, size: u64, found: &Found) -> Known {
        // What is kept of a stream's groups does not count.
        let counted = if kind == Kind::Stream { u64::MAX } else { size };
        let counts = [
            self.first,
            self.last,
            self.lowest,
            self.highest,
            self.random,
        ];
        let run = |field: &Bytes, next: Option<&Vec<Bytes>>, count: u64| {
            let is_full = next.is_some_and(|next| next.len() as u64 >= count);
            let end = next.and_then(|next| next.last()).filter(|_| is_full);
            (field.clone(), end.cloned())
        };
        let after = self.after.iter().filter(|(_, count)| **count > 0);
        let after = after.map(|(field, count)| run(field, found.after.get(field), *count));
        let behind = self.behind.iter().filter(|(_, count)| **count > 0);
        let behind = behind.filter_map(|(field, count)| {
            let (cursor, next) = found.behind.get(field)?;
            Some(run(cursor, Some(next), *count))
        });
        Known {
            whole: self.whole || counts.iter().any(|count| *count >= counted),
            up_to: found.first.last().cloned(),
            from: found.last.first().cloned(),
            lowest_up_to: found.lowest.last().cloned(),
            highest_from: found.highest.first().cloned(),
            runs: after.chain(behind).collect(),
            none_below: None,
            none_above: None,
        }
    }

    /// The part of `collection` (of which everything is known) that this need
    /// asks for, as a store would load it.
    ///
    /// # Panics
    /// If not everything is known.
    pub fn part_of(&self, collection: &Collection) -> Collection {
        let all: Vec<(&Bytes, &Element)> = collection.iter().expect("it is whole").collect();
        let found = self.found_in(collection, &all);
        let known = self.known(collection.kind(), collection.len(), &found);
        let random = rand::random_range(0..=all.len());
        let behind = found.behind.values().flat_map(|(_, next)| next);
        let after = found.after.values().flatten().chain(behind);
        let ranked = found
            .lowest
            .iter()
            .chain(&found.highest)
            .map(|ranked| &ranked.field);
        let mut wanted: BTreeSet<Bytes> = self
            .fields
            .iter()
            .chain(&found.first)
            .chain(&found.last)
            .chain(after)
            .chain(ranked)
            .cloned()
            .collect();
        let chosen = all
            .iter()
            .cycle()
            .skip(random)
            .take(at_most(self.random, all.len()));
        wanted.extend(chosen.map(|(field, _)| (*field).clone()));
        if known.whole {
            wanted.extend(all.iter().map(|(field, _)| (*field).clone()));
        }
        let elements: BTreeMap<Bytes, Option<Element>> = wanted
            .into_iter()
            .map(|field| {
                let element = collection.get(&field).expect("it is whole").cloned();
                (field, element)
            })
            .collect();
        let meta = collection.meta().clone();
        Collection::loaded(collection.kind(), collection.len(), meta, known, elements)
    }

    fn found_in(&self, collection: &Collection, all: &[(&Bytes, &Element)]) -> Found {
        let names = |part: &[(&Bytes, &Element)]| -> Vec<Bytes> {
            part.iter().map(|(field, _)| (*field).clone()).collect()
        };
        let ranked: Vec<Ranked> = match collection.kind() {
            Kind::SortedSet => collection
                .by_rank()
                .expect("it is whole")
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        let next = |field: &[u8], count: u64| -> Vec<Bytes> {
            let next = all
                .iter()
                .filter(|(other, _)| other[..] > *field && other.first() == field.first());
            let next = next.take(at_most(count, all.len()));
            next.map(|(other, _)| (*other).clone()).collect()
        };
        let behind = |(field, count): (&Bytes, &u64)| {
            let value = &collection.get(field).expect("it is whole")?.value;
            let cursor = value.slice(..CURSOR_LEN.min(value.len()));
            let next = next(&cursor, *count);
            Some((field.clone(), (cursor, next)))
        };
        let after = |(field, count): (&Bytes, &u64)| (field.clone(), next(field, *count));
        Found {
            first: names(&all[..at_most(self.first, all.len())]),
            last: names(&all[all.len() - at_most(self.last, all.len())..]),
            lowest: ranked[..at_most(self.lowest, ranked.len())].to_vec(),
            highest: ranked[ranked.len() - at_most(self.highest, ranked.len())..].to_vec(),
            after: self.after.iter().map(after).collect(),
            behind: self.behind.iter().filter_map(behind).collect(),
        }
    }
}

/// `wanted`, or all there are.
fn at_most(wanted: u64, there: usize) -> usize {
    usize::try_from(wanted).map_or(there, |wanted| wanted.min(there))
}
