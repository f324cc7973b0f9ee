//! The part of a collection that a store would load for a need.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use bytes::Bytes;

use super::{CURSOR_LEN, Found, Need};
use crate::model::{
    Collection, Element, FieldRange, Holding, Kind, Places, RankRange, Ranked, Side,
};

impl Need {
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
        let chosen = all.iter().cycle().skip(random);
        let chosen = chosen.take(at_most(self.at_random(), all.len()));
        let mut wanted: BTreeSet<Bytes> =
            self.fields.iter().chain(found.fields()).cloned().collect();
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
        let in_range = |range: &FieldRange, count: u64| -> Vec<Bytes> {
            let inside = |(field, _): &&(&Bytes, &Element)| range.bounds().contains(*field);
            let inside = all.iter().filter(inside).map(|(field, _)| (*field).clone());
            nearest(inside.collect(), range.side, count)
        };
        let behind = |(field, count): (&Bytes, &u64)| {
            let value = &collection.get(field).expect("it is whole")?.value;
            let cursor = value.slice(..CURSOR_LEN.min(value.len()));
            let next = in_range(&FieldRange::above(&cursor), *count);
            Some((field.clone(), (cursor, next)))
        };
        let scored = |(range, count): (&RankRange, &u64)| {
            let inside = ranked.iter().filter(|ranked| range.contains(ranked));
            (
                range.clone(),
                nearest(inside.cloned().collect(), range.side, *count),
            )
        };
        let holding = |(holding, count): (&Holding, &u64)| {
            let equal = all.iter().filter(|(_, item)| item.value == holding.value);
            let equal: Vec<Bytes> = equal.map(|(field, _)| (*field).clone()).collect();
            (holding.clone(), nearest(equal, holding.side, *count))
        };
        let counted = |range: &RankRange| {
            let inside = ranked.iter().filter(|ranked| range.contains(ranked));
            inside.count() as u64
        };
        let beside = |(member, side): &(Bytes, Side)| {
            let place = ranked.iter().find(|ranked| ranked.field == *member)?;
            let range = RankRange::beside(place, *side);
            Some(((member.clone(), *side), (place.rank, counted(&range))))
        };
        let placed = |(places, count): (&Places, &u64)| {
            let found = collection.places(places, *count).expect("it is whole");
            (places.clone(), found)
        };
        let paged = |(from, count): &(Bytes, u64)| {
            let mut behind = all.iter().filter(|(field, _)| *field >= from);
            let count = at_most(*count, all.len());
            let page = behind.by_ref().take(count);
            let page: Vec<Bytes> = page.map(|(field, _)| (*field).clone()).collect();
            (page, behind.next().map(|(field, _)| (*field).clone()))
        };
        let ranges = self.ranges.iter();
        Found {
            first: names(&all[..at_most(self.first, all.len())]),
            last: names(&all[all.len() - at_most(self.last, all.len())..]),
            lowest: ranked[..at_most(self.lowest, ranked.len())].to_vec(),
            highest: ranked[ranked.len() - at_most(self.highest, ranked.len())..].to_vec(),
            ranges: ranges
                .map(|(range, count)| (range.clone(), in_range(range, *count)))
                .collect(),
            behind: self.behind.iter().filter_map(behind).collect(),
            scores: self.scores.iter().map(scored).collect(),
            holding: self.holding.iter().map(holding).collect(),
            counts: self
                .counts
                .iter()
                .map(|r| (r.clone(), counted(r)))
                .collect(),
            ranks: self.ranks.iter().filter_map(beside).collect(),
            places: self.places.iter().map(placed).collect(),
            page: self.page.as_ref().map(paged).unwrap_or_default(),
        }
    }
}

impl Found {
    fn fields(&self) -> impl Iterator<Item = &Bytes> {
        let ranked = self.lowest.iter().chain(&self.highest);
        let ranked = ranked.chain(self.scores.values().flatten());
        let behind = self.behind.values().flat_map(|(_, next)| next);
        self.first
            .iter()
            .chain(&self.last)
            .chain(self.ranges.values().flatten())
            .chain(self.holding.values().flatten())
            .chain(behind)
            .chain(&self.page.0)
            .chain(ranked.map(|ranked| &ranked.field))
    }
}

fn nearest<T>(mut all: Vec<T>, side: Side, count: u64) -> Vec<T> {
    let count = at_most(count, all.len());
    match side {
        Side::Lowest => all.truncate(count),
        Side::Highest => drop(all.drain(..all.len() - count)),
    }
    all
}

/// `wanted`, or all there are.
fn at_most(wanted: u64, there: usize) -> usize {
    usize::try_from(wanted).map_or(there, |wanted| wanted.min(there))
}
