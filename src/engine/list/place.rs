//! Where a list's items stand: at positions with room between them.
//!
//! The field of an item is its position. Positions at the ends are [`STEP`]
//! apart, so that an item in the middle mostly finds a free one; where none is
//! left, the items around it are spread anew, as few as make enough room.
//!
//! `meta` holds a free position below all items and one above: a push takes
//! that position, and needs nothing loaded.

use bytes::Bytes;

use crate::engine::Need;
use crate::model::{Collection, Element, FieldRange, NotLoaded, Side};

/// The distance of neighbours that were pushed.
pub(super) const STEP: i64 = 1 << 20;
/// The items on each side that are spread first when a gap is used up.
const SPREAD_FIRST: usize = 8;
/// The distance that these must get. The more are spread, the wider it must be:
/// otherwise the next insertions would soon spread as many again.
const SPREAD_DISTANCE: i64 = 16;
/// The items on each side of a pivot that are loaded of a large list: enough for
/// two rounds of spreading.
const SURROUNDINGS: u64 = 2 * SPREAD_FIRST as u64 + 2;

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The left one, index 0.
    Head,
    /// The right one, index -1.
    Tail,
}

/// The field of the item at `position`: fields order as positions do.
fn field(position: i64) -> Bytes {
    let ordered = position.cast_unsigned() ^ (1 << 63);
    Bytes::copy_from_slice(&ordered.to_be_bytes())
}

fn position(field: &[u8]) -> Result<i64, NotLoaded> {
    let ordered = field.try_into().map(u64::from_be_bytes);
    let ordered = ordered.map_err(|_| NotLoaded)?;
    Ok((ordered ^ (1 << 63)).cast_signed())
}

fn item(value: Bytes) -> Element {
    Element { value, rank: 0.0 }
}

/// Free positions beyond the items: all stand above `low` and below `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    low: i64,
    high: i64,
}

impl Bounds {
    /// Of a list without items.
    const EMPTY: Self = Self { low: 0, high: STEP };

    fn of(list: &Collection) -> Result<Self, NotLoaded> {
        if list.is_empty() {
            return Ok(Self::EMPTY);
        }
        let half = |at: usize| {
            let bytes = list.meta().get(at..at + 8)?;
            bytes.try_into().ok().map(i64::from_be_bytes)
        };
        match (half(0), half(8)) {
            (Some(low), Some(high)) => Ok(Self { low, high }),
            _ => Err(NotLoaded),
        }
    }

    fn save(self, list: &mut Collection) {
        let meta = [self.low.to_be_bytes(), self.high.to_be_bytes()].concat();
        list.set_meta(meta);
    }

    /// Takes the free position at an end; the next one lies a step beyond.
    fn take(&mut self, end: End) -> i64 {
        match end {
            End::Head => {
                self.low -= STEP;
                self.low + STEP
            }
            End::Tail => {
                self.high += STEP;
                self.high - STEP
            }
        }
    }

    fn have_room(&self, end: End, count: usize) -> bool {
        let steps = i64::try_from(count).ok().and_then(|n| n.checked_mul(STEP));
        let beyond = steps.and_then(|steps| match end {
            End::Head => self.low.checked_sub(steps),
            End::Tail => self.high.checked_add(steps),
        });
        beyond.is_some()
    }
}

/// Puts `values` beyond an end, one after the other.
///
/// # Errors
/// Nothing is changed if the positions of 2^43 pushes are used up and not everything is
/// known; if everything is, the items get new ones.
pub(super) fn push(
    list: &mut Collection,
    end: End,
    values: impl ExactSizeIterator<Item = Bytes>,
) -> Result<(), NotLoaded> {
    let mut bounds = Bounds::of(list)?;
    if !bounds.have_room(end, values.len()) {
        respread(list)?;
        bounds = Bounds::of(list)?;
    }
    let next = match end {
        End::Head => bounds.low,
        End::Tail => bounds.high,
    };
    if list.get(&field(next)).is_err() {
        list.set_bounds(field(bounds.low + 1), field(bounds.high - 1));
    }
    for value in values {
        list.set(field(bounds.take(end)), item(value))?;
    }
    bounds.save(list);
    Ok(())
}

/// An item and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found {
    field: Bytes,
    /// The item.
    pub value: Bytes,
}

impl Found {
    /// As it stands in a list.
    pub fn new((field, element): (&Bytes, &Element)) -> Self {
        Self {
            field: field.clone(),
            value: element.value.clone(),
        }
    }
}

/// The items that a pop takes, in the order in which it does.
pub(super) fn nearest(list: &Collection, end: End, count: u64) -> Result<Vec<Found>, NotLoaded> {
    let found = match end {
        End::Head => list.head(count)?,
        End::Tail => list.tail(count)?,
    };
    let mut found: Vec<Found> = found.into_iter().map(Found::new).collect();
    if end == End::Tail {
        found.reverse();
    }
    Ok(found)
}

/// Takes out the items that are [nearest] to an end.
pub(super) fn pop(list: &mut Collection, end: End, found: &[Found]) -> Result<(), NotLoaded> {
    remove(list, found)?;
    let Some(last) = found.last().filter(|_| !list.is_empty()) else {
        return Ok(());
    };
    let mut bounds = Bounds::of(list)?;
    match end {
        End::Head => bounds.low = position(&last.field)?,
        End::Tail => bounds.high = position(&last.field)?,
    }
    bounds.save(list);
    Ok(())
}

/// Takes out items that stand anywhere.
pub(super) fn remove(list: &mut Collection, found: &[Found]) -> Result<(), NotLoaded> {
    for item in found {
        list.remove(&item.field)?;
    }
    Ok(())
}

/// Puts another value where `found` stands.
pub(super) fn replace(list: &mut Collection, found: &Found, value: Bytes) -> Result<(), NotLoaded> {
    list.set(found.field.clone(), item(value)).map(drop)
}

/// A place between two neighbours, with the items around it.
#[derive(Debug)]
pub(super) struct Gap {
    /// Where items stand before it, the nearest last, and behind it, the nearest first.
    before: Vec<i64>,
    behind: Vec<i64>,
    /// Whether these are all.
    is_all: (bool, bool),
}

/// What has to be known beside `pivot`, an item of a large list, to put another there.
pub(super) fn surroundings(pivot: &Found) -> Need {
    let (before, behind) = sides_of(&pivot.field);
    let mut need = Need::range(before, SURROUNDINGS);
    need.add(Need::range(behind, SURROUNDINGS));
    need
}

/// The positions below and above that of an item.
fn sides_of(item: &[u8]) -> (FieldRange, FieldRange) {
    let before = FieldRange {
        from: Bytes::new(),
        below: Bytes::copy_from_slice(item),
        side: Side::Highest,
    };
    let behind = FieldRange {
        from: Bytes::from([item, &[0]].concat()),
        below: Bytes::from_static(&[u8::MAX; 9]),
        side: Side::Lowest,
    };
    (before, behind)
}

/// The place beside `pivot`, on its lower or higher side.
///
/// # Errors
/// If too few of the items around it are known to put another there.
pub(super) fn gap(list: &Collection, pivot: &Found, side: Side) -> Result<Gap, NotLoaded> {
    let (low, high) = sides_of(&pivot.field);
    let bounds = Bounds::of(list)?;
    let mut count = 1;
    loop {
        let stand = |range: &FieldRange| -> Result<Vec<i64>, NotLoaded> {
            let found = list.in_range(range, count as u64)?;
            found
                .into_iter()
                .map(|(field, _)| position(field))
                .collect()
        };
        let (mut before, mut behind) = (stand(&low)?, stand(&high)?);
        let is_all = (before.len() < count, behind.len() < count);
        match side {
            Side::Lowest => behind.insert(0, position(&pivot.field)?),
            Side::Highest => before.push(position(&pivot.field)?),
        }
        let gap = Gap {
            before,
            behind,
            is_all,
        };
        if gap.has_room(bounds) || is_all == (true, true) {
            return Ok(gap);
        }
        count = (count * 2).max(SPREAD_FIRST + 1);
    }
}

/// Puts `value` into a gap of this very list.
///
/// # Errors
/// Nothing is changed unless enough is known.
pub(super) fn insert(list: &mut Collection, gap: Gap, value: Bytes) -> Result<(), NotLoaded> {
    let bounds = Bounds::of(list)?;
    let (Some(&left), Some(&right)) = (gap.before.last(), gap.behind.first()) else {
        let end = if gap.before.is_empty() {
            End::Head
        } else {
            End::Tail
        };
        return push(list, end, [value].into_iter());
    };
    if right.saturating_sub(left) >= 2 {
        let middle = left + right.saturating_sub(left) / 2;
        return list.set(field(middle), item(value)).map(drop);
    }
    match gap.window(bounds) {
        Some(window) => window.spread(list, &gap, value),
        None => {
            let number = gap.before.len();
            let mut values: Vec<Bytes> =
                list.iter()?.map(|found| Found::new(found).value).collect();
            values.insert(number, value);
            refill(list, values)
        }
    }
}

impl Gap {
    /// Whether an item can be put there, perhaps with some around it spread anew.
    fn has_room(&self, bounds: Bounds) -> bool {
        match (self.before.last(), self.behind.first()) {
            (Some(left), Some(right)) => {
                right.saturating_sub(*left) >= 2 || self.window(bounds).is_some()
            }
            _ => true,
        }
    }

    /// As few items around as get room; `None` if all that are known do not.
    fn window(&self, bounds: Bounds) -> Option<Window> {
        let (mut half, mut wanted) = (SPREAD_FIRST, SPREAD_DISTANCE);
        loop {
            let before = half.min(self.before.len());
            let behind = half.min(self.behind.len());
            // The next one on each side stays, or there is none.
            let low = match self.before.len().checked_sub(before + 1) {
                Some(next) => self.before[next],
                None if self.is_all.0 => bounds.low,
                None => return None,
            };
            let high = match self.behind.get(behind) {
                Some(next) => *next,
                None if self.is_all.1 => bounds.high,
                None => return None,
            };
            // One more item stands there, and one more distance than items.
            let distance = high.saturating_sub(low) / (before + behind + 2) as i64;
            if distance >= wanted {
                return Some(Window {
                    before,
                    behind,
                    low,
                    distance,
                });
            }
            if before == self.before.len() && behind == self.behind.len() {
                return None;
            }
            half = half.saturating_mul(2);
            wanted = (wanted + wanted / 2).min(STEP / 2);
        }
    }
}

/// Items around a gap that get new places, evenly between two positions.
struct Window {
    /// So many before the gap.
    before: usize,
    /// So many behind it.
    behind: usize,
    /// The position below their first new one.
    low: i64,
    distance: i64,
}

impl Window {
    /// Spreads the items, with `value` in the gap.
    fn spread(&self, list: &mut Collection, gap: &Gap, value: Bytes) -> Result<(), NotLoaded> {
        let before = &gap.before[gap.before.len() - self.before..];
        let mut values = Vec::with_capacity(self.before + self.behind + 1);
        for position in before.iter().chain(&gap.behind[..self.behind]) {
            let element = list.remove(&field(*position))?;
            values.push(element.map(|element| element.value).unwrap_or_default());
        }
        values.insert(self.before, value);
        let mut position = self.low;
        for value in values {
            position += self.distance;
            list.set(field(position), item(value))?;
        }
        Ok(())
    }
}

/// Gives every item a new position, a step from the next.
fn respread(list: &mut Collection) -> Result<(), NotLoaded> {
    let values = list.iter()?.map(|found| Found::new(found).value);
    let values = values.collect();
    refill(list, values)
}

/// Puts `values` in place of all items, a step from each other.
fn refill(list: &mut Collection, values: Vec<Bytes>) -> Result<(), NotLoaded> {
    let all: Vec<Found> = list.iter()?.map(Found::new).collect();
    remove(list, &all)?;
    push(list, End::Tail, values.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    fn list(values: &[&str]) -> Collection {
        let mut list = Collection::new(Kind::List);
        let values: Vec<Bytes> = values
            .iter()
            .map(|v| Bytes::copy_from_slice(v.as_bytes()))
            .collect();
        push(&mut list, End::Tail, values.into_iter()).unwrap();
        list.settle();
        list
    }

    fn insert_at(list: &mut Collection, index: usize, value: &str) {
        let pivot = list.iter().unwrap().nth(index).map(Found::new).unwrap();
        let gap = gap(list, &pivot, Side::Lowest).unwrap();
        insert(list, gap, Bytes::from(value.to_owned())).unwrap();
    }

    fn text(list: &Collection) -> String {
        let all = list
            .present()
            .map(|(_, e)| String::from_utf8_lossy(&e.value));
        all.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn fields_order_as_positions_do() {
        let positions = [i64::MIN, -STEP, -1, 0, 1, STEP, i64::MAX];
        assert!(positions.map(field).is_sorted());
        for p in positions {
            assert_eq!(position(&field(p)), Ok(p));
        }
    }

    #[test]
    fn a_push_needs_nothing_loaded() {
        let mut part = Need::header().part_of(&list(&["a", "b", "c"]));
        for (end, value) in [(End::Head, "x"), (End::Tail, "y"), (End::Head, "z")] {
            push(&mut part, end, [Bytes::from(value)].into_iter()).unwrap();
        }
        let mut whole = list(&["a", "b", "c"]);
        whole.follow(&part);
        assert_eq!(text(&whole), "z x a b c y");
    }

    #[test]
    fn a_popped_position_is_taken_again() {
        let mut list = list(&["a", "b"]);
        for _ in 0..100 {
            let found = nearest(&list, End::Head, 1).unwrap();
            pop(&mut list, End::Head, &found).unwrap();
            push(&mut list, End::Head, [found[0].value.clone()].into_iter()).unwrap();
        }
        assert_eq!(list.changes().count(), 1);
        assert_eq!(text(&list), "a b");
    }

    #[test]
    fn insertions_at_one_place_move_few_items() {
        let all: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut list = list(&all);
        let mut expected: Vec<String> = all.iter().map(|s| (*s).to_owned()).collect();
        let mut moved = 0;
        for n in 0..2000 {
            let value = format!("new{n}");
            insert_at(&mut list, 500, &value);
            expected.insert(500, value);
            let changed = list.changes().count();
            assert!(changed < 1200, "insertion {n} touched {changed}");
            moved += changed;
            list.settle();
        }
        assert_eq!(text(&list), expected.join(" "));
        assert!(moved / 2000 < 30, "{moved} items moved in all");
    }

    #[test]
    fn items_get_new_positions_when_they_run_out() {
        let mut list = list(&["a", "b"]);
        let far = Bounds {
            low: 0,
            high: i64::MAX - STEP / 2,
        };
        far.save(&mut list);
        let mut part = Need::header().part_of(&list);
        assert!(push(&mut part, End::Tail, [Bytes::from("c")].into_iter()).is_err());
        assert_eq!(part.changes().count(), 0);
        push(&mut list, End::Tail, [Bytes::from("c")].into_iter()).unwrap();
        assert_eq!(text(&list), "a b c");
        let bounds = Bounds::of(&list).unwrap();
        assert_eq!((bounds.low, bounds.high), (0, 4 * STEP));
    }

    #[test]
    fn a_short_list_is_spread_as_a_whole() {
        let mut list = list(&["a", "z"]);
        for n in 0..200 {
            insert_at(&mut list, 1, &n.to_string());
        }
        assert_eq!(list.len(), 202);
        assert!(text(&list).starts_with("a 199 198 ") && text(&list).ends_with(" 1 0 z"));
    }
}
