//! What a call must know of a key before it can run.

mod part;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::model::{FieldRange, Holding, Key, Kind, Known, Places, RankRange, Ranked, Side};

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
    /// So many elements chosen at random, beside those that other calls touch: see
    /// [`Need::at_random`].
    pub random: u64,
    /// So many elements of each of these ranges of fields.
    pub ranges: BTreeMap<FieldRange, u64>,
    /// For each of these fields, which are loaded too: so many elements with the
    /// next fields above the one that the first 17 bytes of its value
    /// name (a stream's group keeps there which entry was delivered last).
    pub behind: BTreeMap<Bytes, u64>,
    /// So many members of each of these ranges of a sorted set.
    pub scores: BTreeMap<RankRange, u64>,
    /// How many members of a sorted set these ranges hold.
    pub counts: BTreeSet<RankRange>,
    /// How many members of a sorted set stand before (lowest) or behind these, which are loaded too.
    pub ranks: BTreeSet<(Bytes, Side)>,
    /// Where so many items of a list with these values stand.
    pub places: BTreeMap<Places, u64>,
    /// So many elements in the order in which a store keeps them, from here on.
    pub page: Option<(Position, u64)>,
    /// So many items of a list that have one of these values.
    pub holding: BTreeMap<Holding, u64>,
}

/// A place among a key's elements in the order in which a store keeps them; the empty one is before all.
pub type Position = Bytes;

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
    /// For each of `ranges`; nothing where none was there.
    pub ranges: BTreeMap<FieldRange, Vec<Bytes>>,
    /// For each of `behind` that is there: the field that its value names, and
    /// what stands above that.
    pub behind: BTreeMap<Bytes, (Bytes, Vec<Bytes>)>,
    /// For each of `scores`; nothing where none was there.
    pub scores: BTreeMap<RankRange, Vec<Ranked>>,
    /// For each of `counts`.
    pub counts: BTreeMap<RankRange, u64>,
    /// For each of `ranks` that is there: its score, and the count.
    pub ranks: BTreeMap<(Bytes, Side), (f64, u64)>,
    /// For each of `places`, in the order of the search; nothing where none was there.
    pub places: BTreeMap<Places, Vec<u64>>,
    /// For `page`, in the store's order; the position of what follows, if something may.
    pub page: (Vec<Bytes>, Option<Position>),
    /// For each of `holding`; nothing where none was there.
    pub holding: BTreeMap<Holding, Vec<Bytes>>,
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

    /// `count` elements of `range`.
    pub fn range(range: FieldRange, count: u64) -> Self {
        let mut need = Self::default();
        if !range.is_empty() && count > 0 {
            need.ranges.insert(range, count);
        }
        need
    }

    /// `count` elements with the next fields above `field` that have its first byte.
    pub fn after(field: &[u8], count: u64) -> Self {
        Self::range(FieldRange::above(field), count)
    }

    /// `count` elements behind the one that the value under `field` names.
    pub fn behind(field: Bytes, count: u64) -> Self {
        Self {
            fields: BTreeSet::from([field.clone()]),
            behind: BTreeMap::from([(field, count)]),
            ..Self::default()
        }
    }

    /// `count` members in `range`. All, where a store cannot tell what is in it.
    pub fn scores(range: RankRange, count: u64) -> Self {
        if !range.is_ordered() {
            return Self::value();
        }
        let mut need = Self::default();
        if !range.is_empty() && count > 0 {
            need.scores.insert(range, count);
        }
        need
    }

    /// How many members `range` holds. All of them, where a store cannot tell what is in it.
    pub fn count(range: RankRange) -> Self {
        if !range.is_ordered() {
            return Self::value();
        }
        Self {
            counts: BTreeSet::from([range]),
            ..Self::default()
        }
    }

    /// `member`, and how many stand before it ([`Side::Lowest`]) or behind it.
    pub fn rank(member: Bytes, side: Side) -> Self {
        Self {
            fields: BTreeSet::from([member.clone()]),
            ranks: BTreeSet::from([(member, side)]),
            ..Self::default()
        }
    }

    /// Where `count` items of a list stand.
    pub fn places(places: Places, count: u64) -> Self {
        Self {
            places: BTreeMap::from([(places, count)]),
            ..Self::default()
        }
    }

    /// `count` elements from `position` on.
    pub fn page(position: Position, count: u64) -> Self {
        Self {
            page: Some((position, count)),
            ..Self::default()
        }
    }

    /// `count` items of a list that have `value`, counted from `side`.
    pub fn holding(value: Bytes, side: Side, count: u64) -> Self {
        Self {
            holding: BTreeMap::from([(Holding { value, side }, count)]),
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
        add_counts(&mut self.ranges, other.ranges);
        add_counts(&mut self.behind, other.behind);
        add_counts(&mut self.scores, other.scores);
        add_counts(&mut self.holding, other.holding);
        add_counts(&mut self.places, other.places);
        self.page = self.page.take().or(other.page);
        self.counts.extend(other.counts);
        self.ranks.extend(other.ranks);
    }

    /// How many elements to choose at random: a call that draws one wants one that no
    /// call has touched, and those that are loaded for another reason may be.
    pub fn at_random(&self) -> u64 {
        if self.random == 0 {
            return 0;
        }
        let named = self.fields.len() as u64;
        let ends = [self.first, self.last, self.lowest, self.highest];
        let counted = ends
            .iter()
            .chain(self.ranges.values())
            .chain(self.scores.values())
            .chain(self.holding.values());
        counted.fold(self.random.saturating_add(named), |sum, count| {
            sum.saturating_add(*count)
        })
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
            self.at_random(),
        ];
        let up_to = |last: Option<&Bytes>| Some((Bound::Unbounded, Bound::Included(last?.clone())));
        let from =
            |first: Option<&Bytes>| Some((Bound::Included(first?.clone()), Bound::Unbounded));
        let mut fields: Vec<_> = up_to(found.first.last()).into_iter().collect();
        fields.extend(from(found.last.first()));
        for (range, count) in &self.ranges {
            let found = found.ranges.get(range).map_or(&[][..], Vec::as_slice);
            fields.push(as_far_as(range.bounds(), range.side, found, *count));
        }
        for (field, count) in &self.behind {
            if let Some((cursor, found)) = found.behind.get(field) {
                let range = FieldRange::above(cursor);
                fields.push(as_far_as(range.bounds(), range.side, found, *count));
            }
        }
        let mut known = Known {
            whole: self.whole || counts.iter().any(|count| *count >= counted),
            fields,
            ranks: self.known_ranks(found),
            holding: self
                .holding
                .iter()
                .map(|(holding, count)| {
                    let found = found.holding.get(holding).map_or(&[][..], Vec::as_slice);
                    let all = (Bound::Unbounded, Bound::Unbounded);
                    let range = as_far_as(all, holding.side, found, *count);
                    (holding.value.clone(), range)
                })
                .collect(),
            counts: known_counts(found),
            page: self.page.as_ref().map(|_| found.page.clone()),
            places: self
                .places
                .iter()
                .map(|(places, count)| {
                    let found = found.places.get(places).cloned().unwrap_or_default();
                    (places.clone(), (found, *count))
                })
                .collect(),
        };
        known.merge();
        known
    }

    fn known_ranks(&self, found: &Found) -> Vec<(Bound<Ranked>, Bound<Ranked>)> {
        let mut ranks = Vec::new();
        if let Some(last) = found.lowest.last() {
            ranks.push((Bound::Unbounded, Bound::Included(last.clone())));
        }
        if let Some(first) = found.highest.first() {
            ranks.push((Bound::Included(first.clone()), Bound::Unbounded));
        }
        for (range, count) in &self.scores {
            let found = found.scores.get(range).map_or(&[][..], Vec::as_slice);
            ranks.push(as_far_as(range.bounds(), range.side, found, *count));
        }
        ranks
    }
}

fn known_counts(found: &Found) -> BTreeMap<RankRange, u64> {
    let ranks = found.ranks.iter().map(|((member, side), (rank, count))| {
        let place = Ranked {
            rank: *rank,
            field: member.clone(),
        };
        (RankRange::beside(&place, *side), *count)
    });
    let counts = found.counts.iter().map(|(range, n)| (range.clone(), *n));
    counts.chain(ranks).collect()
}

fn add_counts<K: Ord>(counts: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (what, more) in more {
        let count = counts.entry(what).or_default();
        *count = count.saturating_add(more);
    }
}

/// How far a range is known of which `found` were loaded, `count` at most.
fn as_far_as<T: Clone>(
    (low, high): (Bound<T>, Bound<T>),
    side: Side,
    found: &[T],
    count: u64,
) -> (Bound<T>, Bound<T>) {
    if (found.len() as u64) < count {
        return (low, high);
    }
    match (side, found.first(), found.last()) {
        (Side::Lowest, _, Some(last)) => (low, Bound::Included(last.clone())),
        (Side::Highest, Some(first), _) => (Bound::Included(first.clone()), high),
        // None was asked for: an empty range.
        _ => match low {
            Bound::Included(at) => (Bound::Included(at.clone()), Bound::Excluded(at)),
            _ => (low, high),
        },
    }
}
