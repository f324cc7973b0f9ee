//! The elements of collections: what is loaded of them, and what is written.

use std::collections::BTreeMap;

use bytes::Bytes;
use deadpool_postgres::Object;
use sha2::{Digest, Sha256};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::load::{RowBytes, columns, ordinal};
use super::{Change, StoreError};
use crate::engine::{Found, Need};
use crate::model::{Collection, Effect, Element, Key, Kind, Ranked, Value};

/// Fields up to this length are stored as they are; PostgreSQL cannot index
/// longer keys than about 2,700 bytes.
const FIELD_MAX: usize = 1024;

/// Columns that every load returns after the ordinal of its key.
const ELEMENT: &str = "coalesce(e.name, e.field), e.rank, e.value";

/// The keys asked for, joined with those that hold a collection.
const KEYS: &str = "JOIN freshet.keys k ON k.db = u.db AND k.key = u.key AND k.kind > 0";

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

/// Loads the parts that are wanted of keys, those of which nothing or the
/// whole is wanted left out: one statement for each sort of need that comes
/// up, sent together.
pub(super) async fn load_parts(
    client: &Object,
    wanted: &[Wanted<'_>],
) -> Result<Vec<Part>, StoreError> {
    let mut parts: Vec<Part> = wanted.iter().map(|_| Part::default()).collect();
    let picked = |pick: fn(&Need) -> bool| -> Vec<usize> {
        let partial = |index: &usize| !wanted[*index].need.whole && pick(wanted[*index].need);
        (0..wanted.len()).filter(partial).collect()
    };
    let fields = picked(|need| !need.fields.is_empty());
    let ends = picked(|need| need.first > 0 || need.last > 0);
    let ranks = picked(|need| need.lowest > 0 || need.highest > 0);
    let random = picked(|need| need.random > 0);
    let after = picked(|need| !need.after.is_empty());
    let loads = tokio::try_join!(
        load_fields(client, wanted, &fields),
        load_ends(client, wanted, &ends),
        load_ranks(client, wanted, &ranks),
        load_random(client, wanted, &random),
        load_after(client, wanted, &after),
    )?;
    for (indices, rows) in [(&fields, loads.0), (&random, loads.3)] {
        take(&mut parts, indices, &rows)?;
    }
    take_ends(&mut parts, &ends, &loads.1)?;
    take_ranks(&mut parts, &ranks, &loads.2)?;
    take_after(&mut parts, &after, &loads.4)?;
    Ok(parts)
}

/// Loads all elements of the keys at `indices` into their parts.
pub(super) async fn load_whole(
    client: &Object,
    wanted: &[Wanted<'_>],
    indices: &[usize],
    parts: &mut [Part],
) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT u.ord::int, {ELEMENT}
           FROM unnest($1::smallint[], $2::bytea[]) WITH ORDINALITY AS u (db, key, ord)
           {KEYS} JOIN freshet.element e ON e.content = k.content"
    );
    let (dbs, names) = columns(indices.iter().map(|&index| wanted[index].key));
    let rows = query(client, &sql, indices, &[&dbs, &names]).await?;
    take(parts, indices, &rows)
}

fn take(parts: &mut [Part], indices: &[usize], rows: &[Row]) -> Result<(), StoreError> {
    for row in rows {
        let (field, element) = element(row)?;
        parts[indices[ordinal(row)?]]
            .elements
            .insert(field, Some(element));
    }
    Ok(())
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
fn element(row: &Row) -> Result<(Bytes, Element), StoreError> {
    let field = row.try_get::<_, RowBytes<'_>>(1)?.0;
    let rank = row.try_get::<_, Option<f64>>(2)?.unwrap_or(0.0);
    let value = row.try_get::<_, Option<RowBytes<'_>>>(3)?;
    let value = value.map_or_else(Bytes::new, |value| value.0);
    Ok((field, Element { value, rank }))
}

async fn query(
    client: &Object,
    sql: &str,
    indices: &[usize],
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    if indices.is_empty() {
        return Ok(Vec::new());
    }
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, values).await?)
}

/// (The `LIMIT 1` keeps the look-up below the other joins: the planner, which knows
/// nothing of the arrays, may else read all elements of the key for each field.)
async fn load_fields(
    client: &Object,
    wanted: &[Wanted<'_>],
    indices: &[usize],
) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT u.ord, {ELEMENT}
           FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::int[]) AS u (db, key, field, ord)
           {KEYS}
           CROSS JOIN LATERAL (
               SELECT * FROM freshet.element f
                WHERE f.content = k.content AND f.field = u.field LIMIT 1) e"
    );
    let (mut keys, mut fields, mut ords) = (Vec::new(), Vec::new(), Vec::new());
    for (place, &index) in indices.iter().enumerate() {
        for field in &wanted[index].need.fields {
            keys.push(wanted[index].key);
            fields.push(stored(field).0);
            ords.push(place as i32 + 1);
        }
    }
    let (dbs, names) = columns(keys.into_iter());
    query(client, &sql, indices, &[&dbs, &names, &fields, &ords]).await
}

async fn load_ends(
    client: &Object,
    wanted: &[Wanted<'_>],
    indices: &[usize],
) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT u.ord::int, {ELEMENT}, e.is_first
           FROM unnest($1::smallint[], $2::bytea[], $3::bigint[], $4::bigint[])
                  WITH ORDINALITY AS u (db, key, first, last, ord)
           {KEYS}
           CROSS JOIN LATERAL (
               (SELECT *, true AS is_first FROM freshet.element f WHERE f.content = k.content
                 ORDER BY f.field LIMIT u.first)
               UNION ALL
               (SELECT *, false FROM freshet.element l WHERE l.content = k.content
                 ORDER BY l.field DESC LIMIT u.last)) e"
    );
    let (dbs, names) = columns(indices.iter().map(|&index| wanted[index].key));
    let first = counts(wanted, indices, |need| need.first);
    let last = counts(wanted, indices, |need| need.last);
    query(client, &sql, indices, &[&dbs, &names, &first, &last]).await
}

fn take_ends(parts: &mut [Part], indices: &[usize], rows: &[Row]) -> Result<(), StoreError> {
    for row in rows {
        let part = &mut parts[indices[ordinal(row)?]];
        let (field, element) = element(row)?;
        if row.try_get(4)? {
            part.found.first.push(field.clone());
        } else {
            part.found.last.push(field.clone());
        }
        part.elements.insert(field, Some(element));
    }
    for &index in indices {
        parts[index].found.first.sort_unstable();
        parts[index].found.last.sort_unstable();
    }
    Ok(())
}

async fn load_ranks(
    client: &Object,
    wanted: &[Wanted<'_>],
    indices: &[usize],
) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT u.ord::int, {ELEMENT}, e.is_lowest
           FROM unnest($1::smallint[], $2::bytea[], $3::bigint[], $4::bigint[])
                  WITH ORDINALITY AS u (db, key, lowest, highest, ord)
           {KEYS}
           CROSS JOIN LATERAL (
               (SELECT *, true AS is_lowest FROM freshet.element l
                 WHERE l.content = k.content AND l.value IS NULL AND l.rank IS NOT NULL
                 ORDER BY l.rank, l.field LIMIT u.lowest)
               UNION ALL
               (SELECT *, false FROM freshet.element h
                 WHERE h.content = k.content AND h.value IS NULL AND h.rank IS NOT NULL
                 ORDER BY h.rank DESC, h.field DESC LIMIT u.highest)) e
          WHERE k.kind = 4"
    );
    let (dbs, names) = columns(indices.iter().map(|&index| wanted[index].key));
    let lowest = counts(wanted, indices, |need| need.lowest);
    let highest = counts(wanted, indices, |need| need.highest);
    query(client, &sql, indices, &[&dbs, &names, &lowest, &highest]).await
}

fn take_ranks(parts: &mut [Part], indices: &[usize], rows: &[Row]) -> Result<(), StoreError> {
    for row in rows {
        let part = &mut parts[indices[ordinal(row)?]];
        let (field, element) = element(row)?;
        let ranked = Ranked {
            rank: element.rank,
            field: field.clone(),
        };
        if row.try_get(4)? {
            part.found.lowest.push(ranked);
        } else {
            part.found.highest.push(ranked);
        }
        part.elements.insert(field, Some(element));
    }
    for &index in indices {
        parts[index].found.lowest.sort_unstable();
        parts[index].found.highest.sort_unstable();
    }
    Ok(())
}

async fn load_random(
    client: &Object,
    wanted: &[Wanted<'_>],
    indices: &[usize],
) -> Result<Vec<Row>, StoreError> {
    const PLACE: &str = "(('x' || substr(md5(field), 1, 8))::bit(32)::integer)";
    const MEMBERS: &str =
        "FROM freshet.element WHERE content = k.content AND value IS NULL AND rank IS NULL";
    let sql = format!(
        "SELECT u.ord::int, {ELEMENT}
           FROM unnest($1::smallint[], $2::bytea[], $3::bigint[], $4::int[])
                  WITH ORDINALITY AS u (db, key, wanted, place, ord)
           {KEYS}
           CROSS JOIN LATERAL (
               (SELECT * {MEMBERS} AND {PLACE} >= u.place ORDER BY {PLACE} LIMIT u.wanted)
               UNION ALL
               (SELECT * {MEMBERS} AND {PLACE} < u.place ORDER BY {PLACE} LIMIT u.wanted)
               LIMIT u.wanted) e
          WHERE k.kind = 3"
    );
    let (dbs, names) = columns(indices.iter().map(|&index| wanted[index].key));
    let counts = counts(wanted, indices, |need| need.random);
    let places: Vec<i32> = indices.iter().map(|_| rand::random()).collect();
    query(client, &sql, indices, &[&dbs, &names, &counts, &places]).await
}

async fn load_after(
    client: &Object,
    wanted: &[Wanted<'_>],
    indices: &[usize],
) -> Result<Vec<Row>, StoreError> {
    let sql = format!(
        "SELECT u.ord, {ELEMENT}, u.field
           FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::int[])
                  AS u (db, key, field, below, wanted, ord)
           {KEYS}
           CROSS JOIN LATERAL (
               SELECT * FROM freshet.element n
                WHERE n.content = k.content AND n.field > u.field AND n.field < u.below
                ORDER BY n.field LIMIT u.wanted) e"
    );
    let (mut keys, mut fields, mut below) = (Vec::new(), Vec::<&[u8]>::new(), Vec::new());
    let (mut counts, mut ords) = (Vec::new(), Vec::new());
    for (place, &index) in indices.iter().enumerate() {
        for (field, count) in &wanted[index].need.after {
            keys.push(wanted[index].key);
            fields.push(field);
            // Only fields with the same first byte; no first byte is 255.
            below.push(vec![field.first().map_or(0, |byte| byte.saturating_add(1))]);
            counts.push(i64::try_from(*count).unwrap_or(i64::MAX));
            ords.push(place as i32 + 1);
        }
    }
    let (dbs, names) = columns(keys.into_iter());
    query(
        client,
        &sql,
        indices,
        &[&dbs, &names, &fields, &below, &counts, &ords],
    )
    .await
}

fn take_after(parts: &mut [Part], indices: &[usize], rows: &[Row]) -> Result<(), StoreError> {
    for row in rows {
        let part = &mut parts[indices[ordinal(row)?]];
        let (field, element) = element(row)?;
        let after = row.try_get::<_, RowBytes<'_>>(4)?.0;
        part.found
            .after
            .entry(after)
            .or_default()
            .push(field.clone());
        part.elements.insert(field, Some(element));
    }
    for &index in indices {
        for run in parts[index].found.after.values_mut() {
            run.sort_unstable();
        }
    }
    Ok(())
}

fn counts(wanted: &[Wanted<'_>], indices: &[usize], of: fn(&Need) -> u64) -> Vec<i64> {
    let count = |&index: &usize| i64::try_from(of(wanted[index].need)).unwrap_or(i64::MAX);
    indices.iter().map(count).collect()
}

/// A field as it is stored, and the whole of it if that is not whole.
fn stored(field: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
    if field.len() <= FIELD_MAX {
        return (field.to_vec(), None);
    }
    let mut short = field[..FIELD_MAX].to_vec();
    short.extend_from_slice(&Sha256::digest(field));
    (short, Some(field))
}

/// The rows of elements that a batch changes, as the arrays that `unnest` takes.
#[derive(Default)]
struct Rows<'a> {
    put: Vec<i64>,
    fields: Vec<Vec<u8>>,
    ranks: Vec<Option<f64>>,
    values: Vec<Option<&'a [u8]>>,
    names: Vec<Option<&'a [u8]>>,
    removed: Vec<i64>,
    removed_fields: Vec<Vec<u8>>,
}

impl<'a> Rows<'a> {
    fn put(&mut self, content: i64, kind: Kind, field: &'a [u8], element: &'a Element) {
        let (short, name) = stored(field);
        self.put.push(content);
        self.fields.push(short);
        self.names.push(name);
        self.ranks.push(match kind {
            Kind::SortedSet | Kind::Hash => Some(element.rank),
            _ => None,
        });
        self.values.push(match kind {
            Kind::SortedSet | Kind::Set => None,
            _ => Some(&element.value),
        });
    }

    fn remove(&mut self, content: i64, field: &[u8]) {
        self.removed.push(content);
        self.removed_fields.push(stored(field).0);
    }
}

const PUT: &str = "
    INSERT INTO freshet.element (content, field, rank, value, name)
    SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::double precision[], $4::bytea[], $5::bytea[])
        ON CONFLICT (content, field) DO UPDATE SET rank = excluded.rank, value = excluded.value";

const REMOVE: &str = "
    DELETE FROM freshet.element e
     USING unnest($1::bigint[], $2::bytea[]) AS u (content, field)
     WHERE e.content = u.content AND e.field = u.field";

/// Writes the elements of `changes`, each of which has the content number beside it.
pub(super) async fn write(
    client: &Object,
    changes: &[Change<'_>],
    contents: &[Option<i64>],
) -> Result<(), StoreError> {
    let mut rows = Rows::default();
    for (change, content) in changes.iter().zip(contents) {
        let Some(content) = *content else { continue };
        match change.effect {
            Effect::Whole(entry) => {
                if let Value::Collection(collection) = &entry.value {
                    for (field, element) in collection.present() {
                        rows.put(content, collection.kind(), field, element);
                    }
                }
            }
            Effect::Delta(entry) => {
                if let Value::Collection(collection) = &entry.value {
                    for (field, element) in collection.changes() {
                        match element {
                            Some(element) => rows.put(content, collection.kind(), field, element),
                            None => rows.remove(content, field),
                        }
                    }
                }
            }
            Effect::Delete | Effect::Expiry(_) => {}
        }
    }
    let put = async {
        if !rows.put.is_empty() {
            let statement = client.prepare_cached(PUT).await?;
            let values: [&(dyn ToSql + Sync); 5] = [
                &rows.put,
                &rows.fields,
                &rows.ranks,
                &rows.values,
                &rows.names,
            ];
            client.execute(&statement, &values).await?;
        }
        Ok::<_, StoreError>(())
    };
    let remove = async {
        if !rows.removed.is_empty() {
            let statement = client.prepare_cached(REMOVE).await?;
            let values: [&(dyn ToSql + Sync); 2] = [&rows.removed, &rows.removed_fields];
            client.execute(&statement, &values).await?;
        }
        Ok::<_, StoreError>(())
    };
    tokio::try_join!(put, remove)?;
    Ok(())
}

/// Numbers for new contents, taken from the store by the thousand.
pub(super) async fn next_contents(client: &Client) -> Result<std::ops::Range<i64>, StoreError> {
    let row = client
        .query_one("SELECT nextval('freshet.content_ids')", &[])
        .await?;
    let first: i64 = row.try_get(0)?;
    Ok(first..first + 1000)
}
