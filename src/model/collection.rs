//! Hashes, lists, sets, sorted sets and streams: all are elements under fields.
//!
//! A write must cost what it touches, so a collection is usually known in
//! part: the elements that the calls name, or those at an end. Asking for what
//! is not known is [`NotLoaded`], never an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::{FieldRange, Kind, Known, Places, RankRange, Side};

/// The collection was asked for an element that was not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an element was used that was not loaded")]
pub struct NotLoaded;

/// What stands under a field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Element {
    /// The value of a hash's field, a list's item, a stream's entry; empty for
    /// the members of sets and sorted sets, whose field is all they are.
    pub value: Bytes,
    /// The score of a sorted set's member; the place of a hash's field in the
    /// order of insertion; else 0.
    pub rank: f64,
}

/// A score and its member, in the order of sorted sets. Never NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// The score.
    pub rank: f64,
    /// The member.
    pub field: Bytes,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // -0.0 and 0.0 are the same score, so not total_cmp.
        self.rank
            .partial_cmp(&other.rank)
            .unwrap_or(std::cmp::Ordering::Equal)
            .then_with(|| self.field.cmp(&other.field))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A command that repeats a change on the key in the cache, without the key:
/// name, then arguments behind the key. Deterministic.
pub type CacheCommand = Vec<Bytes>;

/// The elements of one key, as far as they are known, and what was changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    kind: Kind,
    /// How many elements it has, known or not.
    size: u64,
    /// What the type keeps beside its elements, in the type's own form.
    meta: Bytes,
    known: Known,
    /// `None`: known to be absent.
    elements: BTreeMap<Bytes, Option<Element>>,
    /// The known members of a sorted set in their order.
    ranked: BTreeSet<Ranked>,
    /// What was changed, with what was there before.
    changed: BTreeMap<Bytes, Option<Element>>,
    /// Changes as commands, for the types whose elements do not tell them
    /// (lists, streams).
    log: Vec<CacheCommand>,
}

impl Collection {
    /// An empty one of which everything is known.
    pub fn new(kind: Kind) -> Self {
        let known = Known {
            whole: true,
            ..Known::default()
        };
        Self::loaded(kind, 0, Bytes::new(), known, BTreeMap::new())
    }

    /// What was loaded of one with `size` elements; nothing is changed yet.
    pub fn loaded(
        kind: Kind,
        size: u64,
        meta: Bytes,
        known: Known,
        elements: BTreeMap<Bytes, Option<Element>>,
    ) -> Self {
        let ranked = if kind == Kind::SortedSet {
            let present = elements.iter().filter_map(|(f, e)| Some((f, e.as_ref()?)));
            present.map(|(f, e)| ranked(f, e)).collect()
        } else {
            BTreeSet::new()
        };
        Self {
            kind,
            size,
            meta,
            known,
            elements,
            ranked,
            changed: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many elements it has. (Of a stream: entries; what is kept of groups
    /// does not count.)
    pub fn len(&self) -> u64 {
        self.size
    }

    /// Whether it has no element. Only a stream may live so.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// What the type keeps beside its elements.
    pub fn meta(&self) -> &Bytes {
        &self.meta
    }

    /// Replaces it.
    pub fn set_meta(&mut self, meta: impl Into<Bytes>) {
        self.meta = meta.into();
    }

    /// Whether everything is known.
    pub fn is_whole(&self) -> bool {
        self.known.whole
    }

    /// The element under `field`, if there is one.
    pub fn get(&self, field: &[u8]) -> Result<Option<&Element>, NotLoaded> {
        match self.elements.get(field) {
            Some(element) => Ok(element.as_ref()),
            None if self.known.covers(field) => Ok(None),
            None => Err(NotLoaded),
        }
    }

    /// Says that fields below and above these did not exist when the collection
    /// was loaded: a type that keeps its ends in `meta` knows it, and can add
    /// beyond them without having loaded anything.
    pub fn set_bounds(&mut self, none_below: Bytes, none_above: Bytes) {
        let below = (Bound::Unbounded, Bound::Excluded(none_below));
        let above = (Bound::Excluded(none_above), Bound::Unbounded);
        for range in [below, above] {
            if !self.known.fields.contains(&range) {
                self.known.fields.push(range);
            }
        }
    }

    /// Says that nothing stood under `field` when the collection was loaded: the
    /// type knows it from what it keeps elsewhere.
    pub fn set_absent(&mut self, field: Bytes) {
        self.elements.entry(field).or_insert(None);
    }

    /// Puts `element` under `field`; returns what was there.
    ///
    /// # Errors
    /// If it is not known what is there.
    pub fn set(&mut self, field: Bytes, element: Element) -> Result<Option<Element>, NotLoaded> {
        let before = self.get(&field)?.cloned();
        if self.kind == Kind::SortedSet {
            if let Some(old) = &before {
                self.ranked.remove(&ranked(&field, old));
            }
            self.ranked.insert(ranked(&field, &element));
        }
        if before.is_none() && self.counts(&field) {
            self.size += 1;
        }
        self.note_change(&field, before.as_ref());
        self.elements.insert(field, Some(element));
        Ok(before)
    }

    /// Takes the element under `field` out; returns it.
    ///
    /// # Errors
    /// If it is not known what is there.
    pub fn remove(&mut self, field: &[u8]) -> Result<Option<Element>, NotLoaded> {
        let Some(before) = self.get(field)?.cloned() else {
            return Ok(None);
        };
        if self.kind == Kind::SortedSet {
            self.ranked.remove(&ranked(field, &before));
        }
        if self.counts(field) {
            self.size -= 1;
        }
        let field = Bytes::copy_from_slice(field);
        self.note_change(&field, Some(&before));
        self.elements.insert(field, None);
        Ok(Some(before))
    }

    fn note_change(&mut self, field: &Bytes, before: Option<&Element>) {
        if !self.changed.contains_key(field) {
            self.changed.insert(field.clone(), before.cloned());
        }
    }

    /// Of a stream only the entries count.
    fn counts(&self, field: &[u8]) -> bool {
        self.kind != Kind::Stream || field.first() == Some(&STREAM_ENTRY)
    }

    /// All elements in the order of their fields.
    ///
    /// # Errors
    /// Unless everything is known.
    pub fn iter(
        &self,
    ) -> Result<impl DoubleEndedIterator<Item = (&Bytes, &Element)> + Clone, NotLoaded> {
        self.range((Bound::Unbounded, Bound::Unbounded))
    }

    /// The elements whose fields are in `range`, in the order of the fields.
    ///
    /// # Errors
    /// Unless everything in it is known.
    pub fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<impl DoubleEndedIterator<Item = (&Bytes, &Element)> + Clone, NotLoaded> {
        if !self.known.has_fields(range) && !self.is_all_known() {
            return Err(NotLoaded);
        }
        Ok(self
            .elements
            .range::<[u8], _>(range)
            .filter_map(|(field, element)| Some((field, element.as_ref()?))))
    }

    /// Whether every element is known. (What is kept of a stream's groups does not
    /// count for its size.)
    fn is_all_known(&self) -> bool {
        self.known.whole || self.kind != Kind::Stream && self.present().count() as u64 == self.size
    }

    /// The element with the lowest field.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn first(&self) -> Result<Option<(&Bytes, &Element)>, NotLoaded> {
        Ok(self.head(1)?.first().copied())
    }

    /// The element with the highest field.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn last(&self) -> Result<Option<(&Bytes, &Element)>, NotLoaded> {
        Ok(self.tail(1)?.first().copied())
    }

    /// The `count` elements with the lowest fields, in the order of their fields;
    /// fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn head(&self, count: u64) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        self.some_of((Bound::Unbounded, Bound::Unbounded), Side::Lowest, count)
    }

    /// The `count` elements with the highest fields, in the order of their
    /// fields; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn tail(&self, count: u64) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        self.some_of((Bound::Unbounded, Bound::Unbounded), Side::Highest, count)
    }

    /// The first `count` elements above `field` whose fields have the same first byte.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn after(&self, field: &[u8], count: u64) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        self.in_range(&FieldRange::above(field), count)
    }

    /// The `count` elements of `range` that are nearest to its side, in the order of
    /// their fields; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn in_range(
        &self,
        range: &FieldRange,
        count: u64,
    ) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let bounds = (
            Bound::Included(&range.from[..]),
            Bound::Excluded(&range.below[..]),
        );
        self.some_of(bounds, range.side, count)
    }

    fn some_of(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        side: Side,
        count: u64,
    ) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let range = self.elements.range::<[u8], _>(bounds);
        let present = range.filter_map(|(field, element)| Some((field, element.as_ref()?)));
        let found = nearest(present, side, count);
        let looked_at = cut(bounds, side, &found, count, |(field, _)| &field[..]);
        let is_known = count == 0 || self.known.has_fields(looked_at) || self.is_all_known();
        is_known.then_some(found).ok_or(NotLoaded)
    }

    /// The `count` items with `value` that are nearest to a side, in the order of
    /// their fields; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn holding(
        &self,
        value: &[u8],
        side: Side,
        count: u64,
    ) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let equal = self.present().filter(|(_, element)| element.value == value);
        let found = nearest(equal, side, count);
        let all = (Bound::Unbounded, Bound::Unbounded);
        let looked_at = cut(all, side, &found, count, |(field, _)| &field[..]);
        let is_known = self.known.has_holding(value, looked_at) || self.is_all_known();
        is_known.then_some(found).ok_or(NotLoaded)
    }

    /// The members of a sorted set by score, then by member.
    ///
    /// # Errors
    /// Unless everything is known.
    pub fn by_rank(
        &self,
    ) -> Result<impl DoubleEndedIterator<Item = &Ranked> + ExactSizeIterator + Clone, NotLoaded>
    {
        (self.known.whole || self.ranked.len() as u64 == self.size)
            .then(|| self.ranked.iter())
            .ok_or(NotLoaded)
    }

    /// The members of a sorted set in `range`, by score, then by member.
    ///
    /// # Errors
    /// Unless everything in it is known.
    pub fn ranked_range(
        &self,
        range: (Bound<&Ranked>, Bound<&Ranked>),
    ) -> Result<impl DoubleEndedIterator<Item = &Ranked> + Clone, NotLoaded> {
        if self.ranked.len() as u64 != self.size && !self.known.has_ranks(range) {
            return Err(NotLoaded);
        }
        Ok(self.ranked.range::<Ranked, _>(range))
    }

    /// How many members of a sorted set `range` holds.
    ///
    /// # Errors
    /// If neither they are known nor how many they were when the set was loaded.
    pub fn count_in(&self, range: &RankRange) -> Result<u64, NotLoaded> {
        if range.is_empty() {
            return Ok(0);
        }
        let (from, below) = range.bounds();
        if let Ok(found) = self.ranked_range((from.as_ref(), below.as_ref())) {
            return Ok(found.count() as u64);
        }
        let mut count = *self.known.counts.get(range).ok_or(NotLoaded)?;
        let is_in = |field: &Bytes, element: Option<&Element>| {
            element.is_some_and(|element| range.contains(&ranked(field, element)))
        };
        for (field, before) in &self.changed {
            let now = self.elements.get(field).and_then(Option::as_ref);
            count += u64::from(is_in(field, now));
            count = count.saturating_sub(u64::from(is_in(field, before.as_ref())));
        }
        Ok(count)
    }

    /// The numbers of the items of a list that `places` describes, `count` at most, in the order of
    /// the search.
    ///
    /// # Errors
    /// If neither all items are known nor where these stood when the list was loaded and
    /// nothing has changed since.
    pub fn places(&self, places: &Places, count: u64) -> Result<Vec<u64>, NotLoaded> {
        let as_count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let (count, compared_max) = (as_count(count), as_count(places.compared_max));
        if let Ok(items) = self.iter() {
            let is_it = |(_, (_, item)): &(u64, (&Bytes, &Element))| item.value == places.value;
            let numbered = (0..).zip(items);
            let found: Vec<u64> = match places.side {
                Side::Lowest => {
                    let found = numbered.take(compared_max).filter(is_it).take(count);
                    found.map(|(number, _)| number).collect()
                }
                Side::Highest => {
                    let numbered: Vec<_> = numbered.collect();
                    let found = numbered.into_iter().rev().take(compared_max);
                    let found = found.filter(is_it).take(count);
                    found.map(|(number, _)| number).collect()
                }
            };
            return Ok(found);
        }
        match self.known.places.get(places) {
            Some((found, wanted))
                if self.changed.is_empty()
                    && (found.len() >= count || (found.len() as u64) < *wanted) =>
            {
                Ok(found.iter().take(count).copied().collect())
            }
            _ => Err(NotLoaded),
        }
    }

    /// The elements of the page that was loaded, and the position of what follows, if something may.
    ///
    /// # Errors
    /// If none was loaded.
    pub fn page(&self) -> Result<(Vec<(&Bytes, &Element)>, Option<&Bytes>), NotLoaded> {
        let (fields, next) = self.known.page.as_ref().ok_or(NotLoaded)?;
        let of_field = |field| Some((field, self.elements.get(field)?.as_ref()?));
        Ok((fields.iter().filter_map(of_field).collect(), next.as_ref()))
    }

    /// The `count` members of a sorted set in `range` that are nearest to
    /// its side, by score, then by member; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn scored(&self, range: &RankRange, count: u64) -> Result<Vec<&Ranked>, NotLoaded> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let (low, high) = range.bounds();
        self.some_ranked((low.as_ref(), high.as_ref()), range.side, count)
    }

    fn some_ranked(
        &self,
        bounds: (Bound<&Ranked>, Bound<&Ranked>),
        side: Side,
        count: u64,
    ) -> Result<Vec<&Ranked>, NotLoaded> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let found = nearest(self.ranked.range::<Ranked, _>(bounds), side, count);
        let looked_at = cut(bounds, side, &found, count, |ranked| *ranked);
        let is_known =
            count == 0 || self.ranked.len() as u64 == self.size || self.known.has_ranks(looked_at);
        is_known.then_some(found).ok_or(NotLoaded)
    }

    /// The member of a sorted set with the lowest score.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn lowest(&self) -> Result<Option<&Ranked>, NotLoaded> {
        Ok(self.bottom(1)?.first().copied())
    }

    /// The member of a sorted set with the highest score.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn highest(&self) -> Result<Option<&Ranked>, NotLoaded> {
        Ok(self.top(1)?.first().copied())
    }

    /// The `count` members of a sorted set with the lowest scores, from the lowest
    /// on; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn bottom(&self, count: u64) -> Result<Vec<&Ranked>, NotLoaded> {
        self.some_ranked((Bound::Unbounded, Bound::Unbounded), Side::Lowest, count)
    }

    /// The `count` members of a sorted set with the highest scores, from the
    /// highest on; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn top(&self, count: u64) -> Result<Vec<&Ranked>, NotLoaded> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut found = self.some_ranked(all, Side::Highest, count)?;
        found.reverse();
        Ok(found)
    }

    /// Notes how the cache repeats a change: needed for lists and streams, and
    /// for no other type.
    pub fn log(&mut self, command: CacheCommand) {
        self.log.push(command);
    }

    /// The last command that was noted: several changes in a row may be one command.
    pub fn last_logged(&mut self) -> Option<&mut CacheCommand> {
        self.log.last_mut()
    }

    /// What was noted.
    pub fn logged(&self) -> &[CacheCommand] {
        &self.log
    }

    /// The fields that were changed, with what is under them now.
    pub fn changes(&self) -> impl Iterator<Item = (&Bytes, Option<&Element>)> {
        let now = |field| self.elements.get(field).and_then(Option::as_ref);
        self.changed.keys().map(move |field| (field, now(field)))
    }

    /// The elements that are known to be there, in the order of their fields.
    pub fn present(&self) -> impl DoubleEndedIterator<Item = (&Bytes, &Element)> {
        let all = self.elements.iter();
        all.filter_map(|(field, element)| Some((field, element.as_ref()?)))
    }

    /// Does to this, of which everything is known, what was done to `delta`, a
    /// part of it.
    ///
    /// # Panics
    /// If not everything is known, or `delta` counts its elements otherwise.
    pub fn follow(&mut self, delta: &Self) {
        for (field, element) in delta.changes() {
            let done = match element {
                Some(element) => self.set(field.clone(), element.clone()),
                None => self.remove(field),
            };
            done.expect("everything is known");
        }
        self.meta = delta.meta.clone();
        assert_eq!(self.size, delta.size, "the part lost count");
        self.settle();
    }

    /// Forgets that anything was changed: as if it had been loaded so.
    pub fn settle(&mut self) {
        self.changed.clear();
        self.log.clear();
    }
}

/// The `count` nearest to a side, in their order.
fn nearest<T>(all: impl DoubleEndedIterator<Item = T>, side: Side, count: usize) -> Vec<T> {
    match side {
        Side::Lowest => all.take(count).collect(),
        Side::Highest => {
            let mut found: Vec<T> = all.rev().take(count).collect();
            found.reverse();
            found
        }
    }
}

/// The part of a range that is looked at to find these: as far as the last of them, if they
/// are as many as were looked for.
fn cut<'a, T, U: ?Sized>(
    range: (Bound<&'a U>, Bound<&'a U>),
    side: Side,
    found: &[T],
    count: usize,
    place: impl Fn(&T) -> &'a U,
) -> (Bound<&'a U>, Bound<&'a U>) {
    let ends = (found.first(), found.last());
    match (side, ends) {
        (Side::Lowest, (_, Some(last))) if found.len() == count => {
            (range.0, Bound::Included(place(last)))
        }
        (Side::Highest, (Some(first), _)) if found.len() == count => {
            (Bound::Included(place(first)), range.1)
        }
        _ => range,
    }
}

/// The fields of a stream's entries begin with this byte.
pub const STREAM_ENTRY: u8 = b'e';

fn ranked(field: &[u8], element: &Element) -> Ranked {
    Ranked {
        rank: element.rank,
        field: Bytes::copy_from_slice(field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: Kind, known: Known, elements: &[(&'static str, Option<f64>)]) -> Collection {
        let elements = elements.iter().map(|(field, rank)| {
            let element = rank.map(|rank| Element {
                rank,
                ..Element::default()
            });
            (Bytes::from_static(field.as_bytes()), element)
        });
        Collection::loaded(kind, 9, Bytes::new(), known, elements.collect())
    }

    #[test]
    fn what_was_not_loaded_is_not_answered() {
        let set = part(
            Kind::Set,
            Known::default(),
            &[("a", Some(0.0)), ("b", None)],
        );
        assert!(set.get(b"a").unwrap().is_some());
        assert!(set.get(b"b").unwrap().is_none());
        assert_eq!(set.get(b"c"), Err(NotLoaded));
        assert!(set.iter().is_err());
        assert!(set.first().is_err());
        let whole = Collection::new(Kind::Set);
        assert_eq!(whole.get(b"c"), Ok(None));
        assert_eq!(whole.first(), Ok(None));
    }

    #[test]
    fn an_end_is_known_as_far_as_it_was_loaded() {
        let known = Known {
            fields: vec![(Bound::Unbounded, Bound::Included("b".into()))],
            ..Known::default()
        };
        let mut list = part(Kind::List, known, &[("a", Some(0.0)), ("b", Some(0.0))]);
        assert_eq!(list.head(2).unwrap().len(), 2);
        assert!(list.head(3).is_err());
        assert!(list.tail(1).is_err());
        for field in ["a", "b"] {
            assert_eq!(list.first().unwrap().unwrap().0, field);
            list.remove(field.as_bytes()).unwrap().unwrap();
        }
        assert!(list.head(1).is_err());
        assert!(list.first().is_err());
        assert!(list.last().is_err());
        assert_eq!(list.len(), 7);
        list.set("B".into(), Element::default()).unwrap();
        assert_eq!(list.first().unwrap().unwrap().0, "B");
    }

    #[test]
    fn ranks_follow_their_members() {
        let second = Ranked {
            rank: 2.0,
            field: "b".into(),
        };
        let known = Known {
            ranks: vec![(Bound::Unbounded, Bound::Included(second))],
            ..Known::default()
        };
        let mut zset = part(
            Kind::SortedSet,
            known,
            &[("a", Some(1.0)), ("b", Some(2.0)), ("c", None)],
        );
        assert_eq!(zset.lowest().unwrap().unwrap().field, "a");
        assert_eq!(zset.bottom(2).unwrap().len(), 2);
        assert!(zset.bottom(3).is_err());
        assert!(zset.top(1).is_err());
        let moved = Element {
            rank: 5.0,
            ..Element::default()
        };
        zset.set("a".into(), moved).unwrap();
        assert_eq!(zset.lowest().unwrap().unwrap().field, "b");
        zset.remove(b"b").unwrap();
        assert!(zset.lowest().is_err());
        assert!(zset.highest().is_err());
        let changed: Vec<_> = zset
            .changes()
            .map(|(f, e)| (f.clone(), e.is_some()))
            .collect();
        assert_eq!(changed, [("a".into(), true), ("b".into(), false)]);
        assert_eq!(zset.len(), 8);
    }
}
