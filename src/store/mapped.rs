//! Tables of others whose rows are keys. What a write does to a row, and a row to its key, is done
//! by PostgreSQL (`migrations/0011_mapped.sql`).

use tokio_postgres::types::ToSql;

use super::{Store, StoreError};
use crate::config::{Mapped, OnDelete, Shape};
use crate::model::{Db, Key};

/// Keys that are told of, of those that a write changed (triggers may change any); the others follow as
/// all that SQL changes.
const TOLD: i32 = 1000;

/// Rows that are brought in by one transaction: whoever changes them waits for it.
const ROWS: i32 = 500;

/// A write of a key of a mapped table.
#[derive(Clone, Debug, PartialEq)]
pub enum RowWrite {
    /// Columns get these values, or NULL.
    Set {
        /// The columns.
        columns: Vec<String>,
        /// What they get, as PostgreSQL reads it; bytes of a `bytea` as they are.
        values: Vec<Option<Vec<u8>>>,
        /// A row that is not there is not inserted.
        must_exist: bool,
    },
    /// A column gets so much more.
    Add {
        /// The column.
        column: String,
        /// As PostgreSQL reads it.
        increment: String,
    },
    /// The row becomes this JSON object.
    Replace(String),
    /// The row goes.
    Delete,
}

/// What a write of a row came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowWritten {
    /// So many columns, or rows, changed in the sense of the command.
    Count(i64),
    /// The sum.
    Sum(String),
    /// It is done.
    Done,
}

impl Store {
    /// Has the rows of a table be keys, those that are there already too: which may take a while.
    ///
    /// # Errors
    /// Also if the table, its columns, or the keys that are there do not allow it.
    pub async fn map_table(&self, mapped: &Mapped) -> Result<(), StoreError> {
        let client = self.connection().await?;
        let shape = match mapped.shape {
            Shape::Hash => "hash",
            Shape::Json => "json",
            Shape::Column => "string",
        };
        let is_deleted = mapped.on_delete == OnDelete::Row;
        let map = "SELECT freshet.map($1, ($2::text)::regclass, $3, $4, $5)";
        let row = client
            .query_one(
                map,
                &[
                    &mapped.template,
                    &mapped.table,
                    &shape,
                    &mapped.column,
                    &is_deleted,
                ],
            )
            .await?;
        let mapping: i32 = row.try_get(0)?;
        let mut rows = 0;
        loop {
            let show = "SELECT freshet.show_rows($1, $2)";
            let shown: i32 = client
                .query_one(show, &[&mapping, &ROWS])
                .await?
                .try_get(0)?;
            rows += i64::from(shown);
            if shown == 0 {
                break;
            }
            if rows % 50_000 < i64::from(ROWS) {
                tracing::info!(table = mapped.table, rows, "bringing in a mapped table");
            }
        }
        tracing::info!(
            table = mapped.table,
            keys = mapped.template,
            rows,
            "table mapped"
        );
        Ok(())
    }

    /// Changes the row of `key`, in a transaction of its own; also the keys that this changed.
    ///
    /// # Errors
    /// [`StoreError::Refused`] is the data's fault: a constraint, a value of the wrong form.
    pub async fn write_row(
        &self,
        template: &str,
        key: &[u8],
        write: &RowWrite,
    ) -> Result<(RowWritten, Vec<Key>), StoreError> {
        let client = self.connection().await?;
        let (call, more): (&str, Vec<&(dyn ToSql + Sync)>) = match write {
            RowWrite::Set {
                columns,
                values,
                must_exist,
            } => (
                "freshet.row_set($1, $2, $3, $4, $5)",
                vec![columns, values, must_exist],
            ),
            RowWrite::Add { column, increment } => {
                ("freshet.row_add($1, $2, $3, $4)", vec![column, increment])
            }
            RowWrite::Replace(object) => (
                "freshet.row_replace($1, $2, ($3::text)::jsonb)",
                vec![object],
            ),
            RowWrite::Delete => ("freshet.row_delete($1, $2)", Vec::new()),
        };
        let all: Vec<&(dyn ToSql + Sync)> = [&template as &(dyn ToSql + Sync), &key]
            .into_iter()
            .chain(more)
            .collect();
        let text = format!(
            "SELECT done.*, c.* FROM (SELECT {call} OFFSET 0) done
              CROSS JOIN LATERAL freshet.changed_here({TOLD}) c"
        );
        let statement = client.prepare_cached(&text).await?;
        let row = client.query_one(&statement, &all).await?;
        let written = match write {
            RowWrite::Set { .. } | RowWrite::Delete => RowWritten::Count(row.try_get(0)?),
            RowWrite::Add { .. } => RowWritten::Sum(row.try_get(0)?),
            RowWrite::Replace(_) => RowWritten::Done,
        };
        let dbs: Option<Vec<i16>> = row.try_get(1)?;
        let names: Option<Vec<Vec<u8>>> = row.try_get(2)?;
        let pairs = dbs
            .unwrap_or_default()
            .into_iter()
            .zip(names.unwrap_or_default());
        let key = |(db, name): (i16, Vec<u8>)| {
            Some(Key {
                db: Db::new(u8::try_from(db).ok()?)?,
                name: name.into(),
            })
        };
        Ok((written, pairs.filter_map(key).collect()))
    }
}
