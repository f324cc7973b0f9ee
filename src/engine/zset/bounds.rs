//! Ranges of scores and of members.

use std::cmp::Ordering;
use std::ops::{Bound, Range};

use bytes::Bytes;

use crate::engine::{Need, Refusal, double};
use crate::model::{Collection, NotLoaded, RankRange, Ranked, Side};

/// The order in which a range is walked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// What a range is said in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Rank,
    Score,
    /// Members, of which all have one score.
    Lex,
}

/// A range of scores or of members.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Span {
    Scores { min: Bound<f64>, max: Bound<f64> },
    Lex { min: Edge, max: Edge },
}

/// Whether all members have the same score, the two at the ends tell.
fn one_score_need() -> Need {
    let mut need = Need::lowest(1);
    need.add(Need::highest(1));
    need
}

/// The score that all members have, if that is known.
fn one_score(zset: &Collection) -> Option<f64> {
    let (lowest, highest) = (zset.lowest().ok()??, zset.highest().ok()??);
    (lowest.rank == highest.rank).then_some(lowest.rank)
}

/// An end of a range of members.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Edge {
    /// `-`: before all.
    Lowest,
    /// `+`: behind all.
    Highest,
    At(Bound<Bytes>),
}

impl Edge {
    /// As the lower end: the first member that may be in the range; `None`: any.
    fn place(&self) -> Option<Bytes> {
        match self {
            Self::At(Bound::Included(at)) => Some(at.clone()),
            Self::At(Bound::Excluded(at)) => Some(next(at)),
            Self::Lowest | Self::Highest | Self::At(Bound::Unbounded) => None,
        }
    }

    /// As the upper end: the first member that is behind the range; `None`: none is.
    fn place_behind(&self) -> Option<Bytes> {
        match self {
            Self::At(Bound::Included(at)) => Some(next(at)),
            Self::At(Bound::Excluded(at)) => Some(at.clone()),
            Self::Lowest | Self::Highest | Self::At(Bound::Unbounded) => None,
        }
    }
}

/// No member follows `at` more closely.
fn next(at: &Bytes) -> Bytes {
    Bytes::from([&at[..], &[0]].concat())
}

impl Span {
    /// A range of scores.
    pub fn of_scores(min: &[u8], max: &[u8]) -> Result<Self, Refusal> {
        let end = |text| score_end(text).ok_or(Refusal::Other("ERR min or max is not a float"));
        Ok(Self::Scores {
            min: end(min)?,
            max: end(max)?,
        })
    }

    /// A range of members.
    pub fn of_members(min: &Bytes, max: &Bytes) -> Result<Self, Refusal> {
        let refusal = Refusal::Other("ERR min or max not valid string range item");
        match (edge(min), edge(max)) {
            (Some(min), Some(max)) => Ok(Self::Lex { min, max }),
            _ => Err(refusal),
        }
    }

    /// The part of the set's order that it may hold, and perhaps nothing besides; `None` of
    /// members, where it is not known that all have the same score.
    fn range(&self, one_score: Option<f64>, order: Order) -> Option<RankRange> {
        let side = match order {
            Order::Ascending => Side::Lowest,
            Order::Descending => Side::Highest,
        };
        match self {
            Self::Scores { min, max } => {
                let min = match min {
                    Bound::Included(min) => *min,
                    Bound::Excluded(min) => min.next_up(),
                    Bound::Unbounded => f64::NEG_INFINITY,
                };
                let max = match max {
                    Bound::Included(max) => *max,
                    Bound::Excluded(max) => max.next_down(),
                    Bound::Unbounded => f64::INFINITY,
                };
                Some(RankRange::of_scores(min, max, side))
            }
            Self::Lex { min, max } => {
                let (from, below) = (min.place(), max.place_behind());
                Some(RankRange::of_members(one_score?, from, below, side))
            }
        }
    }

    /// What has to be loaded to walk through the first `count` members of it, or to
    /// find out what has to be.
    pub fn need(&self, order: Order, count: u64) -> Need {
        match self.range(None, order) {
            Some(range) => Need::scores(range, count),
            None => one_score_need(),
        }
    }

    /// What has to be loaded to count what is in it, or to find out what has to be.
    pub fn need_of_count(&self) -> Need {
        match self.range(None, Order::Ascending) {
            Some(range) => Need::count(range),
            None => one_score_need(),
        }
    }

    /// What has to be loaded of `zset` besides, of which not enough is known to walk
    /// through the first `count` members.
    pub fn need_besides(&self, zset: &Collection, order: Order, count: u64) -> Need {
        match self.range(one_score(zset), order) {
            Some(range) => Need::scores(range, count),
            None => Need::value(),
        }
    }

    /// The same, to count all.
    pub fn need_of_count_besides(&self, zset: &Collection) -> Need {
        match self.range(one_score(zset), Order::Ascending) {
            Some(range) => Need::count(range),
            None => Need::value(),
        }
    }

    /// How many members are in the range.
    pub fn count(&self, zset: &Collection) -> Result<u64, NotLoaded> {
        if self.is_empty() {
            return Ok(0);
        }
        match self.range(one_score(zset), Order::Ascending) {
            Some(range) => zset.count_in(&range),
            None => {
                let members = self.members(zset, Order::Ascending, 0, usize::MAX)?;
                Ok(members.len() as u64)
            }
        }
    }

    /// The members in the range, without the first `skipped` in this `order`, and no more than
    /// `limit` of them; by rank.
    pub fn members<'a>(
        &self,
        zset: &'a Collection,
        order: Order,
        skipped: usize,
        limit: usize,
    ) -> Result<Vec<&'a Ranked>, NotLoaded> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<&Ranked> = match self.range(one_score(zset), order) {
            Some(range) => zset.scored(&range, skipped.saturating_add(limit) as u64)?,
            None => zset.by_rank()?.collect(),
        };
        let mut found = all[self.select(&all, order, skipped)].to_vec();
        match order {
            Order::Ascending => found.truncate(limit),
            Order::Descending => drop(found.drain(..found.len().saturating_sub(limit))),
        }
        Ok(found)
    }

    fn is_over_min(&self, ranked: &Ranked) -> bool {
        match self {
            Self::Scores { min, .. } => match min {
                Bound::Included(min) => ranked.rank >= *min,
                Bound::Excluded(min) => ranked.rank > *min,
                Bound::Unbounded => true,
            },
            Self::Lex { min, .. } => match min {
                Edge::Lowest => true,
                Edge::Highest => false,
                Edge::At(Bound::Included(min)) => ranked.field >= *min,
                Edge::At(Bound::Excluded(min)) => ranked.field > *min,
                Edge::At(Bound::Unbounded) => true,
            },
        }
    }

    fn is_under_max(&self, ranked: &Ranked) -> bool {
        match self {
            Self::Scores { max, .. } => match max {
                Bound::Included(max) => ranked.rank <= *max,
                Bound::Excluded(max) => ranked.rank < *max,
                Bound::Unbounded => true,
            },
            Self::Lex { max, .. } => match max {
                Edge::Lowest => false,
                Edge::Highest => true,
                Edge::At(Bound::Included(max)) => ranked.field <= *max,
                Edge::At(Bound::Excluded(max)) => ranked.field < *max,
                Edge::At(Bound::Unbounded) => true,
            },
        }
    }

    /// Which of `all`, that are ranked, are in the range, without the first
    /// `skipped` in this `order`. Where members have several
    /// scores, a range of members has no sense; then it is what Redis finds in
    /// a listpack.
    fn select(&self, all: &[&Ranked], order: Order, skipped: usize) -> Range<usize> {
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            return 0..0;
        };
        if self.is_empty() || !self.is_over_min(last) || !self.is_under_max(first) {
            return 0..0;
        }
        match order {
            Order::Ascending => {
                let start = all.iter().position(|ranked| self.is_over_min(ranked));
                let start = start.filter(|start| self.is_under_max(all[*start]));
                let start = start.map_or(all.len(), |start| start.saturating_add(skipped));
                let inside = all.iter().skip(start);
                let inside = inside.take_while(|ranked| self.is_under_max(ranked));
                let start = start.min(all.len());
                start..start + inside.count()
            }
            Order::Descending => {
                let last = all.iter().rposition(|ranked| self.is_under_max(ranked));
                let last = last.filter(|last| self.is_over_min(all[*last]));
                let end = last.map_or(0, |last| (last + 1).saturating_sub(skipped));
                let inside = all[..end].iter().rev();
                let inside = inside.take_while(|ranked| self.is_over_min(ranked));
                end - inside.count()..end
            }
        }
    }

    /// Whether nothing can be in it.
    fn is_empty(&self) -> bool {
        match self {
            Self::Scores { min, max } => {
                let (Some((min, min_kind)), Some((max, max_kind))) = (value(min), value(max))
                else {
                    return false;
                };
                is_empty(min.partial_cmp(max), min_kind, max_kind)
            }
            Self::Lex { min, max } => match (min, max) {
                (Edge::At(min), Edge::At(max)) => {
                    let (Some((min, min_kind)), Some((max, max_kind))) = (value(min), value(max))
                    else {
                        return false;
                    };
                    is_empty(Some(min.cmp(max)), min_kind, max_kind)
                }
                // Both ends are open, so nothing is between two equal ones.
                (Edge::Highest, _) | (_, Edge::Lowest) => true,
                _ => false,
            },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EndKind {
    Open,
    Closed,
}

fn value<T>(bound: &Bound<T>) -> Option<(&T, EndKind)> {
    match bound {
        Bound::Included(value) => Some((value, EndKind::Closed)),
        Bound::Excluded(value) => Some((value, EndKind::Open)),
        Bound::Unbounded => None,
    }
}

fn is_empty(order: Option<Ordering>, min: EndKind, max: EndKind) -> bool {
    match order {
        Some(Ordering::Less) | None => false,
        Some(Ordering::Equal) => min == EndKind::Open || max == EndKind::Open,
        Some(Ordering::Greater) => true,
    }
}

fn score_end(text: &[u8]) -> Option<Bound<f64>> {
    match text {
        [b'(', rest @ ..] => double::bound(rest).map(Bound::Excluded),
        _ => double::bound(text).map(Bound::Included),
    }
}

fn edge(text: &Bytes) -> Option<Edge> {
    match &text[..] {
        [b'-'] | [b'-', 0, ..] => Some(Edge::Lowest),
        [b'+'] | [b'+', 0, ..] => Some(Edge::Highest),
        [b'[', ..] => Some(Edge::At(Bound::Included(text.slice(1..)))),
        [b'(', ..] => Some(Edge::At(Bound::Excluded(text.slice(1..)))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(span: &Span, members: &[(f64, &'static str)], order: Order) -> String {
        let all: Vec<Ranked> = members
            .iter()
            .map(|(rank, field)| Ranked {
                rank: *rank,
                field: Bytes::from_static(field.as_bytes()),
            })
            .collect();
        let all: Vec<&Ranked> = all.iter().collect();
        let chosen = all[span.select(&all, order, 0)].iter();
        chosen.map(|m| String::from_utf8_lossy(&m.field)).collect()
    }

    #[test]
    fn ranges_hold_what_is_between_their_ends() {
        let members = [(1.0, "a"), (2.0, "b"), (2.0, "c"), (3.0, "d")];
        for (min, max, expected) in [
            ("1", "2", "abc"),
            ("(1", "(3", "bc"),
            ("-inf", "+inf", "abcd"),
            ("(2", "2", ""),
            ("3", "1", ""),
            ("", "1", "a"),
        ] {
            let span = Span::of_scores(min.as_bytes(), max.as_bytes()).unwrap();
            for order in [Order::Ascending, Order::Descending] {
                assert_eq!(found(&span, &members, order), expected, "{min} {max}");
            }
        }
        let members = [(0.0, "a"), (0.0, "b"), (0.0, "c")];
        for (min, max, expected) in [
            ("-", "+", "abc"),
            ("[b", "+", "bc"),
            ("(a", "(c", "b"),
            ("+", "-", ""),
            ("-", "-", ""),
            ("+", "+", ""),
            ("[b", "[b", "b"),
            ("[b", "(b", ""),
            ("(", "[b", "ab"),
        ] {
            let (min, max) = (
                Bytes::from_static(min.as_bytes()),
                Bytes::from_static(max.as_bytes()),
            );
            let span = Span::of_members(&min, &max).unwrap();
            for order in [Order::Ascending, Order::Descending] {
                assert_eq!(found(&span, &members, order), expected, "{min:?} {max:?}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        assert!(Span::of_scores(b"x", b"1").is_err());
        assert!(Span::of_scores(b"1", b"nan").is_err());
        for text in ["", "a", "--", "+a"] {
            let text = Bytes::from_static(text.as_bytes());
            assert!(Span::of_members(&text, &Bytes::from_static(b"+")).is_err());
        }
    }
}
