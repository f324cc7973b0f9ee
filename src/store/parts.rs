//! What a batch loads of collections: one statement for each sort of need that
//! comes up, for all its keys together.

mod counts;
mod order;
mod page;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use deadpool_postgres::Object;
use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use self::order::{Scores, scores_of};
use super::StoreError;
use super::elements::stored;
use super::load::{RowBytes, columns, ordinal};
use crate::engine::{Found, Need};
use crate::model::{Collection, Element, FieldRange, Holding, Key, Kind, Ranked, Side};

/// Columns that every load returns after the ordinal of what was asked for.
const ELEMENT: &str = "coalesce(e.name, e.field), e.rank, e.value";

/// The keys asked for, joined with those that hold a collection.
const KEYS: &str = "JOIN freshet.keys k ON k.db = u.db AND k.key = u.key AND k.kind > 0";

/// Above the field of every item of a list: those are of eight bytes.
const BEHIND_ITEMS: [u8; 9] = [u8::MAX; 9];

/// What was loaded of one key's elements.
#[derive(Debug, Default)]
pub(super) struct Part {
    elements: BTreeMap<Bytes, Option<Element>>,
    found: Found,
}

/// A key and what of it is wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub key: &'a Key,
    pub need: &'a Need,
}

/// What a key's row says of its collection.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub kind: Kind,
    pub size: u64,
    pub meta: Bytes,
}

/// How much may still be loaded for one batch or read.
pub(super) struct Room {
    left: AtomicUsize,
    max: usize,
}

impl Room {
    /// Room for `max` bytes of rows.
    pub fn new(max: usize) -> Self {
        Self {
            left: AtomicUsize::new(max),
            max,
        }
    }

    fn take(&self, bytes: usize) -> Result<(), StoreError> {
        let less = |left: usize| left.checked_sub(bytes);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .map(drop)
            .map_err(|_| StoreError::TooLarge(self.max))
    }
}

/// Where parts are loaded from, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Loading<'a> {
    pub client: &'a Object,
    pub wanted: &'a [Wanted<'a>],
    pub room: &'a Room,
}

/// Something that is looked for in one key, and where its place is.
struct Search<'a, T> {
    /// The key's place among those wanted.
    index: usize,
    key: &'a Key,
    what: T,
    count: i64,
}

/// A range of fields that is looked for.
enum Fields<'a> {
    First,
    Last,
    Range(&'a FieldRange),
}

impl<'a> Fields<'a> {
    /// From which field, below which, and whether from the highest.
    fn bounds(&self) -> (&'a [u8], &'a [u8], bool) {
        match self {
            Self::First => (&[], &BEHIND_ITEMS, false),
            Self::Last => (&[], &BEHIND_ITEMS, true),
            Self::Range(range) => (&range.from, &range.below, range.side == Side::Highest),
        }
    }
}

/// The ranges of fields that a need asks for, and how many elements of each.
fn fields_of(need: &Need) -> Vec<(Fields<'_>, u64)> {
    let ends = [(Fields::First, need.first), (Fields::Last, need.last)];
    let ranges = need.ranges.iter();
    let ranges = ranges.map(|(range, count)| (Fields::Range(range), *count));
    ends.into_iter().chain(ranges).collect()
}

impl<'a> Loading<'a> {
    /// Loads the parts that are wanted of keys, those of which nothing or the
    /// whole is wanted left out.
    pub async fn parts(self) -> Result<Vec<Part>, StoreError> {
        let named = self.searches(|need| need.fields.iter().map(|field| (field, 1)).collect());
        let fields = self.searches(fields_of);
        let scores = self.searches(scores_of);
        let random = self.searches(|need| vec![((), need.at_random())]);
        let behind = self.searches(|need| need.behind.iter().map(|(f, n)| (f, *n)).collect());
        let holding = self.searches(|need| need.holding.iter().map(|(h, n)| (h, *n)).collect());
        let rows = tokio::try_join!(
            self.named(&named),
            self.fields(&fields),
            self.scores(&scores),
            self.random(&random),
            self.behind(&behind),
            self.holding(&holding),
        )?;
        let mut parts: Vec<Part> = self.wanted.iter().map(|_| Part::default()).collect();
        take(&mut parts, &named, &rows.0, |_, _, _| ())?;
        take(
            &mut parts,
            &fields,
            &rows.1,
            |found, what, (field, _)| match what {
                Fields::First => found.first.push(field),
                Fields::Last => found.last.push(field),
                Fields::Range(range) => {
                    found
                        .ranges
                        .entry((*range).clone())
                        .or_default()
                        .push(field);
                }
            },
        )?;
        take(
            &mut parts,
            &scores,
            &rows.2,
            |found, what, (field, rank)| {
                let ranked = Ranked { rank, field };
                match what {
                    Scores::Lowest => found.lowest.push(ranked),
                    Scores::Highest => found.highest.push(ranked),
                    Scores::Range(range) => {
                        let found = found.scores.entry((*range).clone());
                        found.or_default().push(ranked);
                    }
                }
            },
        )?;
        take(&mut parts, &random, &rows.3, |_, (), _| ())?;
        take_behind(&mut parts, &behind, &rows.4)?;
        take(&mut parts, &holding, &rows.5, |found, what, (field, _)| {
            found
                .holding
                .entry((*what).clone())
                .or_default()
                .push(field);
        })?;
        self.count(&mut parts).await?;
        self.page(&mut parts).await?;
        parts.iter_mut().for_each(|part| sort(&mut part.found));
        Ok(parts)
    }

    /// What of each key is looked for, as `of` says of its need.
    fn searches<T>(self, of: impl Fn(&'a Need) -> Vec<(T, u64)>) -> Vec<Search<'a, T>> {
        let mut searches = Vec::new();
        for (index, Wanted { key, need }) in self.wanted.iter().enumerate() {
            if need.whole {
                continue;
            }
            let some = of(need).into_iter().filter(|(_, count)| *count > 0);
            searches.extend(some.map(|(what, count)| Search {
                index,
                key,
                what,
                count: i64::try_from(count).unwrap_or(i64::MAX),
            }));
        }
        searches
    }

    /// Loads all elements of the keys at `indices` into their parts.
    pub async fn whole(self, indices: &[usize], parts: &mut [Part]) -> Result<(), StoreError> {
        if indices.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}
               FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY AS u (db, key, ord)
               {KEYS} JOIN freshet.element e ON e.content = k.content"
        );
        let (dbs, names) = columns(indices.iter().map(|&index| self.wanted[index].key));
        for row in self.query(&sql, &[&dbs, &names]).await? {
            let (field, element) = element(&row)?;
            let part = &mut parts[indices[ordinal(&row)?]];
            part.elements.insert(field, Some(element));
        }
        Ok(())
    }

    /// The rows, as long as there is room for them.
    async fn query(
        self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let statement = self.client.prepare_cached(sql).await?;
        let rows = self.client.query_raw(&statement, values.iter().copied());
        let mut rows = std::pin::pin!(rows.await?);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            self.room.take(row.raw_size_bytes())?;
            found.push(row);
        }
        Ok(found)
    }

    /// (The `LIMIT 1` keeps the look-up below the other joins: the planner, which knows
    /// nothing of the arrays, may else read all elements of the key for each field.)
    async fn named(self, asked: &[Search<'_, &Bytes>]) -> Result<Vec<Row>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}
               FROM unnest($1::smallint[], $2::bytea[], $3::bytea[])
                      WITH ORDINALITY AS u (db, key, field, ord)
               {KEYS}
               CROSS JOIN LATERAL (
                   SELECT * FROM freshet.element f
                    WHERE f.content = k.content AND f.field = u.field LIMIT 1) e"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let fields: Vec<Vec<u8>> = asked.iter().map(|s| stored(s.what).0).collect();
        self.query(&sql, &[&dbs, &names, &fields]).await
    }

    async fn fields(self, asked: &[Search<'_, Fields<'_>>]) -> Result<Vec<Row>, StoreError> {
        const INSIDE: &str = "FROM freshet.element f
            WHERE f.content = k.content AND f.field >= u.low AND f.field < u.below";
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}
               FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bool[], $6::bigint[])
                      WITH ORDINALITY AS u (db, key, low, below, is_highest, wanted, ord)
               {KEYS}
               CROSS JOIN LATERAL (
                   (SELECT * {INSIDE} AND NOT u.is_highest ORDER BY f.field LIMIT u.wanted)
                   UNION ALL
                   (SELECT * {INSIDE} AND u.is_highest ORDER BY f.field DESC LIMIT u.wanted)) e"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let (lows, belows, sides): (Vec<_>, Vec<_>, Vec<_>) =
            asked.iter().map(|search| search.what.bounds()).collect();
        let counts = counts(asked);
        self.query(&sql, &[&dbs, &names, &lows, &belows, &sides, &counts])
            .await
    }

    /// Members of sets are found from a random place on, by an index; hashes and
    /// sorted sets, of which clients draw rarely, are read through.
    async fn random(self, asked: &[Search<'_, ()>]) -> Result<Vec<Row>, StoreError> {
        const PLACE: &str = "(('x' || substr(md5(field), 1, 8))::bit(32)::integer)";
        const MEMBERS: &str =
            "FROM freshet.element WHERE content = k.content AND value IS NULL AND rank IS NULL";
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}
               FROM unnest($1::smallint[], $2::bytea[], $3::bigint[], $4::int[])
                      WITH ORDINALITY AS u (db, key, wanted, place, ord)
               {KEYS}
               CROSS JOIN LATERAL (
                   (SELECT * {MEMBERS} AND {PLACE} >= u.place AND k.kind = 3
                     ORDER BY {PLACE} LIMIT u.wanted)
                   UNION ALL
                   (SELECT * {MEMBERS} AND {PLACE} < u.place AND k.kind = 3
                     ORDER BY {PLACE} LIMIT u.wanted)
                   UNION ALL
                   (SELECT * FROM freshet.element WHERE content = k.content AND k.kind IN (1, 4)
                     ORDER BY random() LIMIT u.wanted)
                   LIMIT u.wanted) e"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let places: Vec<i32> = asked.iter().map(|_| rand::random()).collect();
        self.query(&sql, &[&dbs, &names, &counts(asked), &places])
            .await
    }

    /// The last column is the field that the value names. A value that nothing is
    /// behind has one row without an element.
    async fn behind(self, asked: &[Search<'_, &Bytes>]) -> Result<Vec<Row>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        // As `FieldRange::above` has it: no field of a collection begins with byte 255.
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}, c.field
               FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bigint[])
                      WITH ORDINALITY AS u (db, key, field, wanted, ord)
               {KEYS} AND k.kind = 5
               CROSS JOIN LATERAL (
                   SELECT substr(g.value, 1, 17) AS field FROM freshet.element g
                    WHERE g.content = k.content AND g.field = u.field LIMIT 1) c
               LEFT JOIN LATERAL (
                   SELECT * FROM freshet.element n
                    WHERE n.content = k.content AND n.field > c.field
                      AND n.field < set_byte(substr(c.field, 1, 1), 0, get_byte(c.field, 0) + 1)
                    ORDER BY n.field LIMIT u.wanted) e ON true"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let fields: Vec<Vec<u8>> = asked.iter().map(|s| stored(s.what).0).collect();
        self.query(&sql, &[&dbs, &names, &fields, &counts(asked)])
            .await
    }

    /// Read through from one side, until as many are found as are asked for: no
    /// index has what lists hold.
    async fn holding(self, asked: &[Search<'_, &Holding>]) -> Result<Vec<Row>, StoreError> {
        const EQUAL: &str =
            "FROM freshet.element i WHERE i.content = k.content AND i.value = u.value";
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}
               FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bool[], $5::bigint[])
                      WITH ORDINALITY AS u (db, key, value, is_highest, wanted, ord)
               {KEYS} AND k.kind = 2
               CROSS JOIN LATERAL (
                   (SELECT * {EQUAL} AND NOT u.is_highest ORDER BY i.field LIMIT u.wanted)
                   UNION ALL
                   (SELECT * {EQUAL} AND u.is_highest ORDER BY i.field DESC LIMIT u.wanted)) e"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let values: Vec<&[u8]> = asked.iter().map(|search| &search.what.value[..]).collect();
        let sides: Vec<bool> = asked
            .iter()
            .map(|search| search.what.side == Side::Highest)
            .collect();
        self.query(&sql, &[&dbs, &names, &values, &sides, &counts(asked)])
            .await
    }
}

fn counts<T>(asked: &[Search<'_, T>]) -> Vec<i64> {
    asked.iter().map(|search| search.count).collect()
}

/// Puts rows into the parts of their keys; `note` says for what they were found.
fn take<T>(
    parts: &mut [Part],
    asked: &[Search<'_, T>],
    rows: &[Row],
    note: impl Fn(&mut Found, &T, (Bytes, f64)),
) -> Result<(), StoreError> {
    for row in rows {
        let search = &asked[ordinal(row)?];
        let part = &mut parts[search.index];
        let (field, element) = element(row)?;
        note(&mut part.found, &search.what, (field.clone(), element.rank));
        part.elements.insert(field, Some(element));
    }
    Ok(())
}

fn take_behind(
    parts: &mut [Part],
    asked: &[Search<'_, &Bytes>],
    rows: &[Row],
) -> Result<(), StoreError> {
    for row in rows {
        let search = &asked[ordinal(row)?];
        let part = &mut parts[search.index];
        let cursor = row.try_get::<_, RowBytes<'_>>(4)?.0;
        let behind = part.found.behind.entry(search.what.clone());
        let (_, next) = behind.or_insert_with(|| (cursor, Vec::new()));
        if row.try_get::<_, Option<RowBytes<'_>>>(1)?.is_some() {
            let (field, element) = element(row)?;
            next.push(field.clone());
            part.elements.insert(field, Some(element));
        }
    }
    Ok(())
}

fn sort(found: &mut Found) {
    let behind = found.behind.values_mut().map(|(_, next)| next);
    let ends = [&mut found.first, &mut found.last];
    ends.into_iter()
        .chain(found.ranges.values_mut())
        .chain(found.holding.values_mut())
        .chain(behind)
        .for_each(|fields| fields.sort_unstable());
    let ends = [&mut found.lowest, &mut found.highest];
    ends.into_iter()
        .chain(found.scores.values_mut())
        .for_each(|ranked| ranked.sort_unstable());
}

/// The collection of which `part` was loaded for `need`.
pub(super) fn assemble(header: &Header, need: &Need, mut part: Part) -> Collection {
    for field in &need.fields {
        part.elements.entry(field.clone()).or_insert(None);
    }
    let known = need.known(header.kind, header.size, &part.found);
    let meta = header.meta.clone();
    Collection::loaded(header.kind, header.size, meta, known, part.elements)
}

/// `(ord, field, rank, value, ..)`.
pub(super) fn element(row: &Row) -> Result<(Bytes, Element), StoreError> {
    let field = row.try_get::<_, RowBytes<'_>>(1)?.0;
    let rank = row.try_get::<_, Option<f64>>(2)?.unwrap_or(0.0);
    let value = row.try_get::<_, Option<RowBytes<'_>>>(3)?;
    let value = value.map_or_else(Bytes::new, |value| value.0);
    Ok((field, Element { value, rank }))
}
