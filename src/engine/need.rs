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
        ] {
            *one = one.saturating_add(more);
        }
    }

    /// What is known of a collection of this `kind` and `size` after the elements
    /// asked for were found: `first` to `highest` say which came in answer to that
    /// part of the need, in ascending order.
    pub fn known(
        &self,
        kind: Kind,
        size: u64,
        ends: (&[Bytes], &[Bytes]),
        ranks: (&[Ranked], &[Ranked]),
    ) -> Known {
        let counted = if kind == Kind::Stream { u64::MAX } else { size };
        let all = [self.first, self.last, self.lowest, self.highest];
        Known {
            whole: self.whole || all.iter().any(|count| *count >= counted),
            up_to: ends.0.last().cloned(),
            from: ends.1.first().cloned(),
            lowest_up_to: ranks.0.last().cloned(),
            highest_from: ranks.1.first().cloned(),
        }
    }

    /// The part of `collection` (of which everything is known) that this need
    /// asks for, as a store would load it.
    ///
    /// # Panics
    /// If not everything is known.
    pub fn part_of(&self, collection: &Collection) -> Collection {
        let all: Vec<(&Bytes, &Element)> = collection.iter().expect("it is whole").collect();
        let count = |wanted: u64| usize::try_from(wanted).map_or(all.len(), |n| n.min(all.len()));
        let ranked: Vec<Ranked> = match collection.kind() {
            Kind::SortedSet => collection
                .by_rank()
                .expect("it is whole")
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        let few =
            |wanted: u64| usize::try_from(wanted).map_or(ranked.len(), |n| n.min(ranked.len()));
        let names = |part: &[(&Bytes, &Element)]| -> Vec<Bytes> {
            part.iter().map(|(field, _)| (*field).clone()).collect()
        };
        let ends = (
            names(&all[..count(self.first)]),
            names(&all[all.len() - count(self.last)..]),
        );
        let ranks = (
            &ranked[..few(self.lowest)],
            &ranked[ranked.len() - few(self.highest)..],
        );
        let known = self.known(
            collection.kind(),
            collection.len(),
            (&ends.0, &ends.1),
            ranks,
        );
        let wanted: BTreeSet<Bytes> = if known.whole {
            names(&all).into_iter().collect()
        } else {
            let by_rank = ranks
                .0
                .iter()
                .chain(ranks.1)
                .map(|ranked| ranked.field.clone());
            let by_name = self.fields.iter().chain(&ends.0).chain(&ends.1).cloned();
            by_name.chain(by_rank).collect()
        };
        let elements: BTreeMap<Bytes, Option<Element>> = wanted
            .into_iter()
            .map(|field| {
                let element = collection.get(&field).expect("it is whole").cloned();
                (field, element)
            })
            .collect();
        Collection::loaded(
            collection.kind(),
            collection.len(),
            collection.meta().clone(),
            known,
            elements,
        )
    }
}
