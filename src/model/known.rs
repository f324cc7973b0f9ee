//! What is known of a collection of which only a part was loaded.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::{Bounds, Places, RankRange, Ranked};

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
    /// How many members of a sorted set these ranges held when it was loaded.
    pub counts: BTreeMap<RankRange, u64>,
    /// Where the items of these values stood in a list when it was loaded, and how many were
    /// looked for.
    pub places: BTreeMap<Places, (Vec<u64>, u64)>,
    /// Fields that stand one behind the other where they are stored, and from where on more may.
    pub page: Option<(Vec<Bytes>, Option<Bytes>)>,
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
}
