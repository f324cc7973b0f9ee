//! What is told of a collection by what was counted or cut out where it is stored.

use bytes::Bytes;

use super::{Collection, Element, NotLoaded, ranked};
use crate::model::{Places, RankRange, Side};

/// Elements that stand one behind the other where they are stored.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// They, in that order.
    pub elements: Vec<(&'a Bytes, &'a Element)>,
    /// The position of what follows, if something may.
    pub next: Option<&'a Bytes>,
}

impl Collection {
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

    /// The page that was loaded.
    ///
    /// # Errors
    /// If none was.
    pub fn page(&self) -> Result<Page<'_>, NotLoaded> {
        let (fields, next) = self.known.page.as_ref().ok_or(NotLoaded)?;
        let of_field = |field| Some((field, self.elements.get(field)?.as_ref()?));
        Ok(Page {
            elements: fields.iter().filter_map(of_field).collect(),
            next: next.as_ref(),
        })
    }
}
