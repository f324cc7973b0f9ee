//! Parts of a collection that can be asked for: ranges of fields, of places in a
//! sorted set's order, items of a list by their value.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;

use super::Ranked;

/// A store orders fields by so many of their first bytes, and those that agree in
/// them in any way.
pub const ORDERED_BYTES: usize = 1024;

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

/// Members of a sorted set from one place of its order to another, counted from one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RankRange {
    /// The first place that is in it, whether a member stands there or not.
    pub from: Ranked,
    /// All in it stand before this place; `None`: all behind `from` are in it.
    pub below: Option<Ranked>,
    /// Where counting begins.
    pub side: Side,
}

impl RankRange {
    /// The members with scores from `min` to `max`, both included. Neither is NaN.
    pub fn of_scores(min: f64, max: f64, side: Side) -> Self {
        Self {
            from: first_of(min),
            below: (max != f64::INFINITY).then(|| first_of(max.next_up())),
            side,
        }
    }

    /// The members with this score from `from` on, `None`: from the first on, and below
    /// `below`, `None`: as far as the last.
    pub fn of_members(score: f64, from: Option<Bytes>, below: Option<Bytes>, side: Side) -> Self {
        let all = Self::of_scores(score, score, side);
        let at = |field| Ranked { rank: score, field };
        Self {
            from: from.map_or(all.from, at),
            below: below.map(at).or(all.below),
            side,
        }
    }

    /// The members that stand before `place` ([`Side::Lowest`]) or behind it.
    pub fn beside(place: &Ranked, side: Side) -> Self {
        let (from, below) = match side {
            Side::Lowest => (first_of(f64::NEG_INFINITY), Some(place.clone())),
            // No place follows this one more closely.
            Side::Highest => (
                Ranked {
                    rank: place.rank,
                    field: Bytes::from([&place.field[..], &[0]].concat()),
                },
                None,
            ),
        };
        Self {
            from,
            below,
            side: Side::Lowest,
        }
    }

    /// As bounds.
    pub fn bounds(&self) -> Bounds<Ranked> {
        let below = self.below.clone();
        (
            Bound::Included(self.from.clone()),
            below.map_or(Bound::Unbounded, Bound::Excluded),
        )
    }

    /// Whether `place` is in it.
    pub fn contains(&self, place: &Ranked) -> bool {
        self.bounds().contains(place)
    }

    /// Whether nothing can be in it.
    pub fn is_empty(&self) -> bool {
        self.below.as_ref().is_some_and(|below| *below <= self.from)
    }

    /// Whether a store can tell what is in it from what it orders fields by.
    pub fn is_ordered(&self) -> bool {
        let ends = std::iter::once(&self.from).chain(&self.below);
        ends.into_iter().all(|end| end.field.len() <= ORDERED_BYTES)
    }
}

/// The empty member comes before all others of its score.
fn first_of(rank: f64) -> Ranked {
    Ranked {
        rank,
        field: Bytes::new(),
    }
}

/// The items of a list that have one value, counted from one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holding {
    /// The value.
    pub value: Bytes,
    /// Where counting begins.
    pub side: Side,
}

/// The numbers of the items of a list that have one value, counted from one side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Places {
    /// The value.
    pub value: Bytes,
    /// The side where the search begins.
    pub side: Side,
    /// So many items are compared at most.
    pub compared_max: u64,
}

/// Two bounds.
pub type Bounds<T> = (Bound<T>, Bound<T>);

#[cfg(test)]
mod tests {
    use super::*;

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
        let range = |min, max| RankRange::of_scores(min, max, Side::Lowest);
        let at = |rank| Ranked {
            rank,
            field: Bytes::from("m"),
        };
        assert!(range(1.0, 2.0).contains(&at(2.0)));
        assert!(!range(1.0, 2.0).contains(&at(2.0f64.next_up())));
        assert!(range(0.0, 0.0).contains(&at(-0.0)));
        assert!(range(1.0, f64::INFINITY).contains(&at(f64::INFINITY)));
        assert!(!range(1.0, f64::MAX).contains(&at(f64::INFINITY)));
    }

    #[test]
    fn members_before_and_behind_a_place_are_not_it() {
        let at = |rank, field: &'static str| Ranked {
            rank,
            field: Bytes::from(field),
        };
        let place = at(1.0, "b");
        let before = RankRange::beside(&place, Side::Lowest);
        let behind = RankRange::beside(&place, Side::Highest);
        for (other, is_before, is_behind) in [
            (at(f64::NEG_INFINITY, ""), true, false),
            (at(1.0, "a"), true, false),
            (at(1.0, "b"), false, false),
            (at(1.0, "b\0"), false, true),
            (at(f64::INFINITY, "a"), false, true),
        ] {
            assert_eq!(before.contains(&other), is_before, "{other:?}");
            assert_eq!(behind.contains(&other), is_behind, "{other:?}");
        }
    }
}
