//! What is known of a collection of which only a part was loaded.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use super::Ranked;

/// From which end of a range elements are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// From the lowest field or score on.
    Lowest,
    /// From the highest on.
    Highest,
}

/// A range of fields, counted from one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldRange {
    /// The lowest field that may be in it.
    pub from: Bytes,
    /// All in it are below this one.
    pub below: Bytes,
    /// Where counting begins.
    pub side: Side,
}

impl FieldRange {
    /// The fields above `field` that have the same first byte, from the lowest on.
    pub fn above(field: &[u8]) -> Self {
        // No field follows this one more closely.
        let from = Bytes::from([field, &[0]].concat());
        let first = field.first().map_or(0, |byte| byte.saturating_add(1));
        Self {
            from,
            below: Bytes::copy_from_slice(&[first]),
            side: Side::Lowest,
        }
    }

    /// The fields that begin with `prefix`, which is neither empty nor of bytes 255
    /// alone, from the lowest on.
    pub fn beginning(prefix: &[u8]) -> Self {
        let mut below = prefix.to_vec();
        while below.last() == Some(&u8::MAX) {
            below.pop();
        }
        if let Some(last) = below.last_mut() {
            *last += 1;
        }
        Self {
            from: Bytes::copy_from_slice(prefix),
            below: Bytes::from(below),
            side: Side::Lowest,
        }
    }

    /// As bounds.
    pub fn bounds(&self) -> Bounds<Bytes> {
        (
            Bound::Included(self.from.clone()),
            Bound::Excluded(self.below.clone()),
        )
    }

    /// Whether nothing can be in it.
    pub fn is_empty(&self) -> bool {
        self.from >= self.below
    }
}

/// The scores from `min` to `max`, both included, counted from one side. Neither is NaN.
#[derive(Clone, Copy, Debug)]
pub struct ScoreRange {
    /// The lowest score.
    pub min: f64,
    /// The highest.
    pub max: f64,
    /// Where counting begins.
    pub side: Side,
}

impl ScoreRange {
    /// The members with these scores, as bounds.
    pub fn bounds(&self) -> Bounds<Ranked> {
        let first_of = |rank| Ranked {
            rank,
            field: Bytes::new(),
        };
        let behind = if self.max == f64::INFINITY {
            Bound::Unbounded
        } else {
            Bound::Excluded(first_of(self.max.next_up()))
        };
        (Bound::Included(first_of(self.min)), behind)
    }

    /// Whether nothing can be in it.
    pub fn is_empty(&self) -> bool {
        self.min > self.max
    }
}

impl Ord for ScoreRange {
    fn cmp(&self, other: &Self) -> Ordering {
        self.min
            .total_cmp(&other.min)
            .then_with(|| self.max.total_cmp(&other.max))
            .then_with(|| self.side.cmp(&other.side))
    }
}

impl PartialOrd for ScoreRange {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ScoreRange {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ScoreRange {}

/// The items of a list that have one value, counted from one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// The value.
    pub value: Bytes,
    /// Where counting begins.
    pub side: Side,
}

/// Two bounds.
pub type Bounds<T> = (Bound<T>, Bound<T>);

/// What is known of a collection beside the elements that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Everything: what is not there does not exist.
    pub whole: bool,
    /// Every field in these ranges.
    pub fields: Vec<Bounds<Bytes>>,
    /// Every member of a sorted set in these.
    pub ranks: Vec<Bounds<Ranked>>,
    /// Every item that has one of these values and stands in the range beside it.
    pub holding: Vec<(Bytes, Bounds<Bytes>)>,
}

impl Known {
    /// Makes one range of those that overlap or touch.
    pub fn merge(&mut self) {
        self.fields = merged(std::mem::take(&mut self.fields));
        self.ranks = merged(std::mem::take(&mut self.ranks));
    }

    /// Whether a field that is not among the elements is known to be absent.
    pub(super) fn covers(&self, field: &[u8]) -> bool {
        self.has_fields((Bound::Included(field), Bound::Included(field)))
    }

    /// Whether all fields in `wanted` are known.
    pub(super) fn has_fields(&self, wanted: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
        let has = |range: &Bounds<Bytes>| {
            let range = (as_ref(&range.0, |b| &b[..]), as_ref(&range.1, |b| &b[..]));
            is_within(wanted, range)
        };
        self.whole || self.fields.iter().any(has)
    }

    /// Whether all members ranked in `wanted` are known.
    pub(super) fn has_ranks(&self, wanted: (Bound<&Ranked>, Bound<&Ranked>)) -> bool {
        let has = |range: &Bounds<Ranked>| {
            is_within(wanted, (as_ref(&range.0, |r| r), as_ref(&range.1, |r| r)))
        };
        self.whole || self.ranks.iter().any(has)
    }

    /// Whether all items in `wanted` that have `value` are known.
    pub(super) fn has_holding(&self, value: &[u8], wanted: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
        let has = |(held, range): &(Bytes, Bounds<Bytes>)| {
            let range = (as_ref(&range.0, |b| &b[..]), as_ref(&range.1, |b| &b[..]));
            held == value && is_within(wanted, range)
        };
        self.has_fields(wanted) || self.holding.iter().any(has)
    }
}

fn merged<T: Ord + Clone>(mut ranges: Vec<Bounds<T>>) -> Vec<Bounds<T>> {
    ranges.sort_by(|one, other| {
        let place = |bound: &Bound<T>| match bound {
            Bound::Unbounded => (None, false),
            Bound::Included(at) => (Some(at.clone()), false),
            Bound::Excluded(at) => (Some(at.clone()), true),
        };
        place(&one.0).cmp(&place(&other.0))
    });
    let mut merged: Vec<Bounds<T>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if touches(&last.1, &range.0) => {
                let before = (Bound::Unbounded, last.1.as_ref());
                if !is_within((Bound::Unbounded, range.1.as_ref()), before) {
                    last.1 = range.1;
                }
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether nothing lies between the end of one range and the start of another that
/// begins no earlier.
fn touches<T: Ord>(end: &Bound<T>, start: &Bound<T>) -> bool {
    match (end, start) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Excluded(end), Bound::Excluded(start)) => start < end,
        (Bound::Included(end) | Bound::Excluded(end), Bound::Included(start))
        | (Bound::Included(end), Bound::Excluded(start)) => start <= end,
    }
}

fn as_ref<'a, T, U: ?Sized>(bound: &'a Bound<T>, of: impl Fn(&'a T) -> &'a U) -> Bound<&'a U> {
    match bound {
        Bound::Included(value) => Bound::Included(of(value)),
        Bound::Excluded(value) => Bound::Excluded(of(value)),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Whether every place in `inner` is in `outer`.
fn is_within<T: Ord + ?Sized>(
    inner: (Bound<&T>, Bound<&T>),
    outer: (Bound<&T>, Bound<&T>),
) -> bool {
    let begins = match (outer.0, inner.0) {
        (Bound::Unbounded, _) => true,
        (_, Bound::Unbounded) => false,
        (Bound::Excluded(low), Bound::Included(from)) => low < from,
        (Bound::Excluded(low) | Bound::Included(low), Bound::Excluded(from))
        | (Bound::Included(low), Bound::Included(from)) => low <= from,
    };
    let ends = match (outer.1, inner.1) {
        (Bound::Unbounded, _) => true,
        (_, Bound::Unbounded) => false,
        (Bound::Excluded(high), Bound::Included(to)) => to < high,
        (Bound::Excluded(high) | Bound::Included(high), Bound::Excluded(to))
        | (Bound::Included(high), Bound::Included(to)) => to <= high,
    };
    begins && ends
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use super::*;

    #[test]
    fn ranges_lie_within_others() {
        let known = Known {
            fields: vec![(
                Bound::Excluded(Bytes::from("b")),
                Bound::Included(Bytes::from("f")),
            )],
            ..Known::default()
        };
        for (from, to, expected) in [
            (Bound::Included("c"), Bound::Included("f"), true),
            (Bound::Included("b"), Bound::Included("f"), false),
            (Bound::Excluded("b"), Bound::Excluded("f"), true),
            (Bound::Excluded("c"), Bound::Included("g"), false),
            (Bound::Unbounded, Bound::Included("c"), false),
            (Bound::Included("c"), Bound::Unbounded, false),
        ] {
            let wanted = (from.map(str::as_bytes), to.map(str::as_bytes));
            assert_eq!(known.has_fields(wanted), expected, "{from:?} {to:?}");
        }
        assert!(known.covers(b"c") && known.covers(b"f") && !known.covers(b"b"));
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let at = |text: &'static str| Bytes::from(text);
        let (below_c, from_c) = (Bound::Excluded(at("c")), Bound::Included(at("c")));
        let mut known = Known {
            fields: vec![
                (from_c, Bound::Included(at("d"))),
                (Bound::Excluded(at("x")), Bound::Unbounded),
                (Bound::Included(at("a")), below_c),
                (Bound::Included(at("b")), Bound::Included(at("b"))),
            ],
            ..Known::default()
        };
        known.merge();
        let whole = (Bound::Included(at("a")), Bound::Included(at("d")));
        assert_eq!(
            known.fields,
            [whole, (Bound::Excluded(at("x")), Bound::Unbounded)]
        );
    }

    #[test]
    fn prefixes_end_before_the_next() {
        let range = FieldRange::beginning(b"p\x01\xff");
        assert_eq!(
            (&range.from[..], &range.below[..]),
            (&b"p\x01\xff"[..], &b"p\x02"[..])
        );
        let range = FieldRange::above(b"e1");
        assert_eq!(
            (&range.from[..], &range.below[..]),
            (&b"e1\0"[..], &b"f"[..])
        );
    }

    #[test]
    fn scores_include_their_ends() {
        let range = |min, max| ScoreRange {
            min,
            max,
            side: Side::Lowest,
        };
        let at = |rank| Ranked {
            rank,
            field: Bytes::from("m"),
        };
        assert!(range(1.0, 2.0).bounds().contains(&at(2.0)));
        assert!(!range(1.0, 2.0).bounds().contains(&at(2.0f64.next_up())));
        assert!(range(0.0, 0.0).bounds().contains(&at(-0.0)));
        assert!(
            range(1.0, f64::INFINITY)
                .bounds()
                .contains(&at(f64::INFINITY))
        );
        assert!(!range(1.0, f64::MAX).bounds().contains(&at(f64::INFINITY)));
    }
}
