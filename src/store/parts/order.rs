//! Members of sorted sets by their place in the order of scores.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{ELEMENT, KEYS, Loading, Search, columns, counts};
use crate::engine::Need;
use crate::model::{RankRange, Side};
use crate::store::StoreError;

/// A part of a sorted set's order that is looked for.
pub(super) enum Scores<'a> {
    Lowest,
    Highest,
    Range(&'a RankRange),
}

impl<'a> Scores<'a> {
    /// From which score and field, below which, and whether from the highest.
    fn bounds(&self) -> (Place<'a>, Place<'a>, bool) {
        match self {
            Self::Lowest => (FIRST, BEHIND_ALL, false),
            Self::Highest => (FIRST, BEHIND_ALL, true),
            Self::Range(range) => {
                let (from, below) = places(range);
                (from, below, range.side == Side::Highest)
            }
        }
    }
}

/// A score and a field.
pub(super) type Place<'a> = (f64, &'a [u8]);

const FIRST: Place<'static> = (f64::NEG_INFINITY, &[]);

/// PostgreSQL orders it behind all other numbers, and no score is it.
const BEHIND_ALL: Place<'static> = (f64::NAN, &[]);

/// From which place a range reaches, and below which.
pub(super) fn places(range: &RankRange) -> (Place<'_>, Place<'_>) {
    let from = (range.from.rank, &range.from.field[..]);
    let below = range.below.as_ref();
    (
        from,
        below.map_or(BEHIND_ALL, |at| (at.rank, &at.field[..])),
    )
}

/// The parts of its order that a need asks for, and how many members of each.
pub(super) fn scores_of(need: &Need) -> Vec<(Scores<'_>, u64)> {
    let ends = [
        (Scores::Lowest, need.lowest),
        (Scores::Highest, need.highest),
    ];
    let ranges = need.scores.iter();
    let ranges = ranges.map(|(range, count)| (Scores::Range(range), *count));
    ends.into_iter().chain(ranges).collect()
}

impl Loading<'_> {
    /// Loads members by their place in the order.
    pub(super) async fn scores(
        self,
        asked: &[Search<'_, Scores<'_>>],
    ) -> Result<Vec<Row>, StoreError> {
        const INSIDE: &str = "FROM freshet.element r
            WHERE r.content = k.content AND r.value IS NULL AND r.rank IS NOT NULL
              AND (r.rank, r.field) >= (u.low, u.low_field)
              AND (r.rank, r.field) < (u.below, u.below_field)";
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}
               FROM unnest($1::smallint[], $2::bytea[], $3::float8[], $4::bytea[],
                           $5::float8[], $6::bytea[], $7::bool[], $8::bigint[])
                      WITH ORDINALITY AS u (db, key, low, low_field, below, below_field,
                                            is_highest, wanted, ord)
               {KEYS} AND k.kind = 4
               CROSS JOIN LATERAL (
                   (SELECT * {INSIDE} AND NOT u.is_highest
                     ORDER BY r.rank, r.field LIMIT u.wanted)
                   UNION ALL
                   (SELECT * {INSIDE} AND u.is_highest
                     ORDER BY r.rank DESC, r.field DESC LIMIT u.wanted)) e"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let bounds = asked.iter().map(|search| search.what.bounds());
        let (lows, belows, sides): (Vec<_>, Vec<_>, Vec<_>) = bounds.collect();
        let (lows, low_fields): (Vec<f64>, Vec<&[u8]>) = lows.into_iter().unzip();
        let (belows, below_fields): (Vec<f64>, Vec<&[u8]>) = belows.into_iter().unzip();
        let counts = counts(asked);
        let values: [&(dyn ToSql + Sync); 8] = [
            &dbs,
            &names,
            &lows,
            &low_fields,
            &belows,
            &below_fields,
            &sides,
            &counts,
        ];
        self.query(&sql, &values).await
    }
}
