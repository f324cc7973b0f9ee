//! Elements chosen at random, from a collection that may be known only in part.
//!
//! Of a large collection the store gives as many elements as are asked for, which
//! follow a random place; and calls before this one may have added others. Each
//! element that these touched is drawn with its share of the whole, so that
//! one that was just added is not likelier than any other.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Need, Refusal};
use crate::command::{Call, args};
use crate::model::{Collection, Element, NotLoaded};

/// The most elements that one call may draw with repetition: nothing else bounds
/// its reply.
const REPEATED_MAX: u64 = 1_000_000;

/// How elements are drawn, by the sign of the number that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// Each at most once.
    Distinct(u64),
    /// Each any number of times.
    Repeated(u64),
}

impl Draw {
    /// What the count `text` of `HRANDFIELD` or `SRANDMEMBER` asks for.
    pub fn of_count(text: &[u8]) -> Result<Self, Refusal> {
        let count = args::integer(text).ok_or(Refusal::NotInteger)?;
        match (count, count.unsigned_abs()) {
            (i64::MIN, _) => Err(Refusal::Other(
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            )),
            (0.., count) => Ok(Self::Distinct(count)),
            (_, count) => Ok(Self::Repeated(count)),
        }
    }

    /// How many elements must be loaded for a call whose second argument, if it
    /// has one, is the count.
    pub fn needed(call: &Call) -> u64 {
        if call.request.len() == 2 {
            return 1;
        }
        match Self::of_count(call.request.arg(2)) {
            Ok(Self::Distinct(count)) => count,
            Ok(Self::Repeated(count)) => count.min(REPEATED_MAX),
            Err(_) => 0,
        }
    }

    /// The elements drawn from `collection`.
    pub fn from(self, collection: &Collection) -> Result<Vec<Drawn<'_>>, Refusal> {
        match self {
            Self::Distinct(count) => Ok(distinct(collection, count)?),
            Self::Repeated(count) if count > REPEATED_MAX => Err(Refusal::Other(
                "ERR Freshet draws at most 1000000 elements with repetition at once",
            )),
            Self::Repeated(count) => Ok(repeated(collection, count)?),
        }
    }
}

/// A field and what stands under it.
type Drawn<'a> = (&'a Bytes, &'a Element);

/// What is known to be there, apart by whether a call has touched it.
struct Pool<'a> {
    touched: Vec<Drawn<'a>>,
    others: Vec<Drawn<'a>>,
    /// How many elements are left to draw from, known or not.
    size: u64,
}

impl<'a> Pool<'a> {
    fn of(collection: &'a Collection) -> Self {
        let fields: BTreeSet<&Bytes> = collection.changes().map(|(field, _)| field).collect();
        let (touched, others) = collection
            .present()
            .partition(|(field, _)| fields.contains(field));
        Self {
            touched,
            others,
            size: collection.len(),
        }
    }

    /// The list that the next element comes from, and the element's place in it.
    fn next(&mut self) -> Result<(&mut Vec<Drawn<'a>>, usize), NotLoaded> {
        let is_touched = rand::random_range(0..self.size) < self.touched.len() as u64;
        let list = if is_touched {
            &mut self.touched
        } else {
            &mut self.others
        };
        if list.is_empty() {
            return Err(NotLoaded);
        }
        let place = rand::random_range(0..list.len());
        Ok((list, place))
    }
}

/// `count` different elements, or all there are, in no order.
///
/// # Errors
/// If not so many are known.
pub(super) fn distinct(collection: &Collection, count: u64) -> Result<Vec<Drawn<'_>>, NotLoaded> {
    let count = count.min(collection.len());
    let mut pool = Pool::of(collection);
    let mut drawn = Vec::new();
    for _ in 0..count {
        let (list, place) = pool.next()?;
        drawn.push(list.swap_remove(place));
        pool.size -= 1;
    }
    Ok(drawn)
}

/// `count` elements, each drawn from all.
fn repeated(collection: &Collection, count: u64) -> Result<Vec<Drawn<'_>>, NotLoaded> {
    if collection.is_empty() {
        return Ok(Vec::new());
    }
    let mut pool = Pool::of(collection);
    let draw = |_| pool.next().map(|(list, place)| list[place]);
    (0..count).map(draw).collect()
}

/// What a call needs that takes one element, or as many as its second argument says.
pub(super) fn need_to_take(call: &Call) -> Need {
    let count = match call.request.len() {
        2 => Some(1),
        _ => args::integer(call.request.arg(2)).and_then(|count| u64::try_from(count).ok()),
    };
    Need::random(count.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Known};
    use std::collections::BTreeMap;

    fn part_of_a_hundred(fields: &[&'static str]) -> Collection {
        let elements: BTreeMap<Bytes, Option<Element>> = fields
            .iter()
            .map(|field| {
                (
                    Bytes::from_static(field.as_bytes()),
                    Some(Element::default()),
                )
            })
            .collect();
        Collection::loaded(Kind::Set, 100, Bytes::new(), Known::default(), elements)
    }

    #[test]
    fn no_more_is_drawn_than_is_known() {
        let set = part_of_a_hundred(&["a", "b", "c"]);
        let mut all: Vec<&Bytes> = distinct(&set, 3).unwrap().iter().map(|e| e.0).collect();
        all.sort();
        assert_eq!(all, ["a", "b", "c"]);
        assert_eq!(distinct(&set, 4), Err(NotLoaded));
        assert_eq!(distinct(&set, 100), Err(NotLoaded));
        assert_eq!(repeated(&set, 50).unwrap().len(), 50);
        assert!(Draw::Repeated(REPEATED_MAX + 1).from(&set).is_err());
    }

    #[test]
    fn an_element_just_added_is_as_likely_as_any_other() {
        let (old, new) = (Bytes::from_static(b"a"), Bytes::from_static(b"new"));
        let elements = BTreeMap::from([(old, Some(Element::default())), (new.clone(), None)]);
        let mut set = Collection::loaded(Kind::Set, 99, Bytes::new(), Known::default(), elements);
        set.set(new, Element::default()).unwrap();
        let drawn = repeated(&set, 10_000).unwrap();
        let new = drawn.iter().filter(|(field, _)| *field == "new").count();
        // 100 on average.
        assert!((20..300).contains(&new), "{new}");
    }
}
