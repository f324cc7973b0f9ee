//! The elements of collections as rows, and how they are written.

use deadpool_postgres::Object;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::{Change, StoreError};
use crate::model::{Effect, Element, Kind, ORDERED_BYTES, Value};

/// Fields up to this length are stored as they are; PostgreSQL cannot index
/// longer keys than about 2,700 bytes.
pub(super) const FIELD_MAX: usize = ORDERED_BYTES;

/// A field as it is stored, and the whole of it if that is not whole.
pub(super) fn stored(field: &[u8]) -> (Vec<u8>, Option<&[u8]>) {
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
