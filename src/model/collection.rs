//! Hashes, lists, sets, sorted sets and streams: all are elements under fields.
//!
//! A write must cost what it touches, so a collection is usually known in
//! part: the elements that the calls name, or those at an end. Asking for what
//! is not known is [`NotLoaded`], never an answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::Kind;

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

/// What is known of a collection beside the elements that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Everything: what is not there does not exist.
    pub whole: bool,
    /// Every field up to this one.
    pub up_to: Option<Bytes>,
    /// Every field from this one on.
    pub from: Option<Bytes>,
    /// Every member ranked up to this one.
    pub lowest_up_to: Option<Ranked>,
    /// Every member ranked from this one on.
    pub highest_from: Option<Ranked>,
    /// Every field above the first and up to the second; `None`: up to the last
    /// field with the same first byte.
    pub runs: Vec<(Bytes, Option<Bytes>)>,
    /// Fields below this one did not exist.
    pub none_below: Option<Bytes>,
    /// Fields above this one did not exist.
    pub none_above: Option<Bytes>,
}

impl Known {
    /// Whether a field that is not among the elements is known to be absent.
    fn covers(&self, field: &[u8]) -> bool {
        let in_run = |(after, up_to): &(Bytes, Option<Bytes>)| {
            field > after
                && match up_to {
                    Some(end) => field <= end,
                    None => field.first() == after.first(),
                }
        };
        self.whole
            || self.up_to.as_ref().is_some_and(|end| field <= end)
            || self.from.as_ref().is_some_and(|start| field >= start)
            || self.none_below.as_ref().is_some_and(|low| field < low)
            || self.none_above.as_ref().is_some_and(|high| field > high)
            || self.runs.iter().any(in_run)
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
    changed: BTreeSet<Bytes>,
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
            changed: BTreeSet::new(),
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
    pub fn set_bounds(&mut self, none_below: Option<Bytes>, none_above: Option<Bytes>) {
        self.known.none_below = none_below;
        self.known.none_above = none_above;
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
        self.changed.insert(field.clone());
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
        self.changed.insert(field.clone());
        self.elements.insert(field, None);
        Ok(Some(before))
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
    /// Unless everything is known.
    pub fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<impl DoubleEndedIterator<Item = (&Bytes, &Element)> + Clone, NotLoaded> {
        if !self.known.whole {
            return Err(NotLoaded);
        }
        Ok(self
            .elements
            .range::<[u8], _>(range)
            .filter_map(|(field, element)| Some((field, element.as_ref()?))))
    }

    /// The element with the lowest field.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn first(&self) -> Result<Option<(&Bytes, &Element)>, NotLoaded> {
        let mut present = self.elements.iter();
        let found = present.find_map(|(field, element)| Some((field, element.as_ref()?)));
        let (up_to, below) = (&self.known.up_to, &self.known.none_below);
        self.end(found, |field| {
            up_to.as_ref().is_some_and(|end| field <= end)
                || below.as_ref().is_some_and(|low| field <= low)
        })
    }

    /// The element with the highest field.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn last(&self) -> Result<Option<(&Bytes, &Element)>, NotLoaded> {
        let mut present = self.elements.iter().rev();
        let found = present.find_map(|(field, element)| Some((field, element.as_ref()?)));
        let (from, above) = (&self.known.from, &self.known.none_above);
        self.end(found, |field| {
            from.as_ref().is_some_and(|start| field >= start)
                || above.as_ref().is_some_and(|high| field >= high)
        })
    }

    /// The `count` elements with the lowest fields, in the order of their fields;
    /// fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn head(&self, count: u64) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        let (up_to, below) = (&self.known.up_to, &self.known.none_below);
        self.run_from_end(self.present(), count, |field| {
            up_to.as_ref().is_some_and(|end| field <= end)
                || below.as_ref().is_some_and(|low| field <= low)
        })
    }

    /// The `count` elements with the highest fields, in the order of their
    /// fields; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn tail(&self, count: u64) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        let (from, above) = (&self.known.from, &self.known.none_above);
        let mut found = self.run_from_end(self.present().rev(), count, |field| {
            from.as_ref().is_some_and(|start| field >= start)
                || above.as_ref().is_some_and(|high| field >= high)
        })?;
        found.reverse();
        Ok(found)
    }

    fn run_from_end<'a>(
        &self,
        present: impl Iterator<Item = (&'a Bytes, &'a Element)>,
        count: u64,
        is_known: impl Fn(&Bytes) -> bool,
    ) -> Result<Vec<(&'a Bytes, &'a Element)>, NotLoaded> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let found: Vec<_> = present.take(count).collect();
        // What is kept of a stream's groups is not counted.
        let is_all = self.kind != Kind::Stream && found.len() as u64 == self.size;
        let is_known = self.known.whole
            || is_all
            || found.len() == count && found.last().is_none_or(|(field, _)| is_known(field));
        is_known.then_some(found).ok_or(NotLoaded)
    }

    /// The first `count` elements above `field` whose fields have the same first byte.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn after(&self, field: &[u8], count: usize) -> Result<Vec<(&Bytes, &Element)>, NotLoaded> {
        let above = (Bound::Excluded(field), Bound::Unbounded);
        let found: Vec<(&Bytes, &Element)> = self
            .elements
            .range::<[u8], _>(above)
            .take_while(|(next, _)| next.first() == field.first())
            .filter_map(|(next, element)| Some((next, element.as_ref()?)))
            .take(count)
            .collect();
        let is_run = |(after, up_to): &(Bytes, Option<Bytes>)| {
            after <= field
                && match up_to {
                    Some(end) => found.len() == count && found.last().is_none_or(|l| l.0 <= end),
                    None => after.first() == field.first(),
                }
        };
        let is_known = self.known.whole
            || self
                .known
                .none_above
                .as_ref()
                .is_some_and(|high| field >= high)
            || self.known.runs.iter().any(is_run);
        is_known.then_some(found).ok_or(NotLoaded)
    }

    fn end<'a>(
        &self,
        found: Option<(&'a Bytes, &'a Element)>,
        is_known: impl Fn(&Bytes) -> bool,
    ) -> Result<Option<(&'a Bytes, &'a Element)>, NotLoaded> {
        match found {
            _ if self.known.whole => Ok(found),
            Some((field, _)) if is_known(field) => Ok(found),
            None if self.size == 0 => Ok(None),
            _ => Err(NotLoaded),
        }
    }

    /// The members of a sorted set by score, then by member.
    ///
    /// # Errors
    /// Unless everything is known.
    pub fn by_rank(
        &self,
    ) -> Result<impl DoubleEndedIterator<Item = &Ranked> + ExactSizeIterator + Clone, NotLoaded>
    {
        self.known
            .whole
            .then(|| self.ranked.iter())
            .ok_or(NotLoaded)
    }

    /// The members of a sorted set from `from` on, by score, then by member.
    ///
    /// # Errors
    /// Unless everything is known.
    pub fn ranked_range(
        &self,
        range: (Bound<&Ranked>, Bound<&Ranked>),
    ) -> Result<impl DoubleEndedIterator<Item = &Ranked> + Clone, NotLoaded> {
        if !self.known.whole {
            return Err(NotLoaded);
        }
        Ok(self.ranked.range::<Ranked, _>(range))
    }

    /// The member of a sorted set with the lowest score.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn lowest(&self) -> Result<Option<&Ranked>, NotLoaded> {
        match (self.ranked.first(), &self.known.lowest_up_to) {
            (found, _) if self.known.whole => Ok(found),
            (Some(found), Some(end)) if found <= end => Ok(Some(found)),
            _ if self.size == 0 => Ok(None),
            _ => Err(NotLoaded),
        }
    }

    /// The member of a sorted set with the highest score.
    ///
    /// # Errors
    /// If it is not known which that is.
    pub fn highest(&self) -> Result<Option<&Ranked>, NotLoaded> {
        match (self.ranked.last(), &self.known.highest_from) {
            (found, _) if self.known.whole => Ok(found),
            (Some(found), Some(start)) if found >= start => Ok(Some(found)),
            _ if self.size == 0 => Ok(None),
            _ => Err(NotLoaded),
        }
    }

    /// The `count` members of a sorted set with the lowest scores, from the lowest
    /// on; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn bottom(&self, count: u64) -> Result<Vec<&Ranked>, NotLoaded> {
        self.ranked_run(self.ranked.iter(), count, |ranked| {
            let end = self.known.lowest_up_to.as_ref();
            end.is_some_and(|end| ranked <= end)
        })
    }

    /// The `count` members of a sorted set with the highest scores, from the
    /// highest on; fewer only if there are no more.
    ///
    /// # Errors
    /// If it is not known which these are.
    pub fn top(&self, count: u64) -> Result<Vec<&Ranked>, NotLoaded> {
        self.ranked_run(self.ranked.iter().rev(), count, |ranked| {
            let start = self.known.highest_from.as_ref();
            start.is_some_and(|start| ranked >= start)
        })
    }

    fn ranked_run<'a>(
        &self,
        ranked: impl Iterator<Item = &'a Ranked>,
        count: u64,
        is_known: impl Fn(&Ranked) -> bool,
    ) -> Result<Vec<&'a Ranked>, NotLoaded> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let found: Vec<&Ranked> = ranked.take(count).collect();
        let is_known = self.known.whole
            || self.ranked.len() as u64 == self.size
            || found.len() == count && found.last().is_none_or(|last| is_known(last));
        is_known.then_some(found).ok_or(NotLoaded)
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
        self.changed.iter().map(move |field| (field, now(field)))
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
            up_to: Some("b".into()),
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
        let known = Known {
            lowest_up_to: Some(Ranked {
                rank: 2.0,
                field: "b".into(),
            }),
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
