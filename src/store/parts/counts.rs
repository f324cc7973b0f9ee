//! What is counted of collections instead of being loaded: ranks, members of a range, places
//! of items.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::order::places;
use super::{KEYS, Loading, Part, Search, columns, counts, ordinal};
use crate::model::{Places, RankRange, Side};
use crate::store::StoreError;
use crate::store::elements::{FIELD_MAX, stored};

/// The members of a sorted set, of which the index alone is read.
const MEMBERS: &str = "SELECT count(*) FROM freshet.element r
    WHERE r.content = k.content AND r.value IS NULL AND r.rank IS NOT NULL";

/// More than any list has.
const ALL: i64 = i64::MAX;

/// A field that comes behind every stored one that begins like this one.
fn behind_beginning(field: &[u8]) -> Vec<u8> {
    let mut behind = field.to_vec();
    behind.resize(FIELD_MAX + 64, u8::MAX);
    behind
}

impl<'a> Loading<'a> {
    /// Counts what is asked for of each key.
    pub(super) async fn count(self, parts: &mut [Part]) -> Result<(), StoreError> {
        let ranks = self.searches(|need| need.ranks.iter().map(|rank| (rank, 1)).collect());
        let counts = self.searches(|need| need.counts.iter().map(|range| (range, 1)).collect());
        let placed = self.searches(|need| need.places.iter().map(|(p, n)| (p, *n)).collect());
        let rows = tokio::try_join!(
            self.ranks(&ranks),
            self.members(&counts),
            self.placed(&placed)
        )?;
        for row in &rows.0 {
            let search = &ranks[ordinal(row)?];
            let found = (row.try_get(1)?, row.try_get::<_, i64>(2)?.unsigned_abs());
            let part = &mut parts[search.index].found;
            part.ranks.insert((*search.what).clone(), found);
        }
        for row in &rows.1 {
            let search = &counts[ordinal(row)?];
            let count = row.try_get::<_, i64>(1)?.unsigned_abs();
            let part = &mut parts[search.index].found;
            part.counts.insert(search.what.clone(), count);
        }
        for row in &rows.2 {
            let search = &placed[ordinal(row)?];
            let number = row.try_get::<_, i64>(1)?.unsigned_abs();
            let part = &mut parts[search.index].found;
            let found = part.places.entry(search.what.clone()).or_default();
            found.push(number);
        }
        for (places, found) in parts.iter_mut().flat_map(|part| &mut part.found.places) {
            found.sort_unstable();
            if places.side == Side::Highest {
                found.reverse();
            }
        }
        Ok(())
    }

    /// How many stand before or behind members. Long ones with the same beginning are told
    /// apart by the whole of them.
    async fn ranks(
        self,
        asked: &[Search<'_, &(bytes::Bytes, Side)>],
    ) -> Result<Vec<Row>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        const LIKE: &str = "AND r.rank = m.rank AND r.field >= u.beginning AND r.field < u.behind";
        let sql = format!(
            "SELECT u.ord::int, m.rank,
                    CASE WHEN u.is_behind
                         THEN ({MEMBERS} AND (r.rank, r.field) > (m.rank, u.behind))
                         ELSE ({MEMBERS} AND (r.rank, r.field) < (m.rank, u.beginning)) END
                  + CASE WHEN NOT u.is_long THEN 0
                         WHEN u.is_behind
                         THEN ({MEMBERS} {LIKE} AND coalesce(r.name, r.field) > u.whole)
                         ELSE ({MEMBERS} {LIKE} AND coalesce(r.name, r.field) < u.whole) END
               FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bytea[],
                           $6::bytea[], $7::bool[], $8::bool[])
                      WITH ORDINALITY AS u (db, key, field, beginning, behind, whole, is_long,
                                            is_behind, ord)
               {KEYS} AND k.kind = 4
               CROSS JOIN LATERAL (
                   SELECT f.rank FROM freshet.element f
                    WHERE f.content = k.content AND f.field = u.field LIMIT 1) m"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let members: Vec<&[u8]> = asked.iter().map(|search| &search.what.0[..]).collect();
        let fields: Vec<Vec<u8>> = members.iter().map(|member| stored(member).0).collect();
        let are_long: Vec<bool> = members.iter().map(|m| m.len() > FIELD_MAX).collect();
        let beginnings: Vec<&[u8]> = members
            .iter()
            .map(|m| &m[..m.len().min(FIELD_MAX)])
            .collect();
        let behind: Vec<Vec<u8>> = beginnings
            .iter()
            .zip(&are_long)
            .map(|(beginning, is_long)| match is_long {
                true => behind_beginning(beginning),
                false => beginning.to_vec(),
            })
            .collect();
        let sides = asked.iter().map(|search| search.what.1 == Side::Highest);
        let sides: Vec<bool> = sides.collect();
        let values: [&(dyn ToSql + Sync); 8] = [
            &dbs,
            &names,
            &fields,
            &beginnings,
            &behind,
            &members,
            &are_long,
            &sides,
        ];
        self.query(&sql, &values).await
    }

    /// How many members ranges hold.
    async fn members(self, asked: &[Search<'_, &RankRange>]) -> Result<Vec<Row>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT u.ord::int,
                    ({MEMBERS} AND (r.rank, r.field) >= (u.low, u.low_field)
                               AND (r.rank, r.field) < (u.below, u.below_field))
               FROM unnest($1::smallint[], $2::bytea[], $3::float8[], $4::bytea[],
                           $5::float8[], $6::bytea[])
                      WITH ORDINALITY AS u (db, key, low, low_field, below, below_field, ord)
               {KEYS} AND k.kind = 4"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let bounds = asked.iter().map(|search| places(search.what));
        let (lows, belows): (Vec<_>, Vec<_>) = bounds.unzip();
        let (lows, low_fields): (Vec<f64>, Vec<&[u8]>) = lows.into_iter().unzip();
        let (belows, below_fields): (Vec<f64>, Vec<&[u8]>) = belows.into_iter().unzip();
        let values: [&(dyn ToSql + Sync); 6] =
            [&dbs, &names, &lows, &low_fields, &belows, &below_fields];
        self.query(&sql, &values).await
    }

    /// Where items stand: lists are read through from one side until enough are found.
    async fn placed(self, asked: &[Search<'_, &Places>]) -> Result<Vec<Row>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        // The outer query keeps the inner one's order, and so ends with the last item that is
        // wanted. If it said its order, PostgreSQL would sort, and read the whole list for that.
        let from = |order: &str, number: &str, is_asked: &str| {
            format!(
                "(SELECT {number} AS number
                    FROM (SELECT row_number() OVER (ORDER BY i.field {order}) - 1 AS place, i.value
                            FROM freshet.element i
                           WHERE i.content = k.content AND {is_asked}
                           ORDER BY i.field {order} LIMIT u.compared) n
                   WHERE n.value = u.value LIMIT u.wanted)"
            )
        };
        let sql = format!(
            "SELECT u.ord::int, e.number
               FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bool[], $5::bigint[],
                           $6::bigint[])
                      WITH ORDINALITY AS u (db, key, value, is_highest, compared, wanted, ord)
               {KEYS} AND k.kind = 2
               CROSS JOIN LATERAL ({} UNION ALL {}) e",
            from("ASC", "n.place", "NOT u.is_highest"),
            from("DESC", "k.size - 1 - n.place", "u.is_highest"),
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let values: Vec<&[u8]> = asked.iter().map(|search| &search.what.value[..]).collect();
        let sides = asked.iter().map(|search| search.what.side == Side::Highest);
        let sides: Vec<bool> = sides.collect();
        let compared = asked.iter().map(|search| search.what.compared_max);
        let compared: Vec<i64> = compared.map(|n| i64::try_from(n).unwrap_or(ALL)).collect();
        let wanted = counts(asked);
        let values: [&(dyn ToSql + Sync); 6] = [&dbs, &names, &values, &sides, &compared, &wanted];
        self.query(&sql, &values).await
    }
}
