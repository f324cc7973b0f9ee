//! How far imports of files are.

use super::{Store, StoreError};
use crate::model::Db;

/// A place in a file before which all is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// Bytes before it.
    pub bytes: u64,
    /// Their checksum.
    pub checksum: u64,
    /// In which database what follows is.
    pub db: Db,
}

impl Store {
    /// How far the import of `pattern` from `source` is, if there was one that was not over.
    pub async fn import_place(
        &self,
        source: &str,
        pattern: &str,
    ) -> Result<Option<FilePlace>, StoreError> {
        const SQL: &str =
            "SELECT bytes, checksum, db FROM freshet.import WHERE source = $1 AND pattern = $2";
        let client = self.connection().await?;
        let Some(row) = client.query_opt(SQL, &[&source, &pattern]).await? else {
            return Ok(None);
        };
        let db = u8::try_from(row.try_get::<_, i16>(2)?)
            .ok()
            .and_then(Db::new);
        Ok(Some(FilePlace {
            bytes: row.try_get::<_, i64>(0)?.cast_unsigned(),
            checksum: row.try_get::<_, i64>(1)?.cast_unsigned(),
            db: db.unwrap_or_default(),
        }))
    }

    /// Notes how far it is.
    pub async fn keep_import_place(
        &self,
        source: &str,
        pattern: &str,
        place: FilePlace,
    ) -> Result<(), StoreError> {
        const SQL: &str = "
            INSERT INTO freshet.import (source, pattern, bytes, checksum, db) VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (source, pattern) DO UPDATE
               SET bytes = $3, checksum = $4, db = $5, updated_at = now()";
        let client = self.connection().await?;
        let (bytes, checksum) = (place.bytes.cast_signed(), place.checksum.cast_signed());
        let db = i16::from(place.db.index());
        client
            .execute(SQL, &[&source, &pattern, &bytes, &checksum, &db])
            .await?;
        Ok(())
    }

    /// It is over.
    pub async fn forget_import_place(&self, source: &str, pattern: &str) -> Result<(), StoreError> {
        const SQL: &str = "DELETE FROM freshet.import WHERE source = $1 AND pattern = $2
                OR updated_at < now() - interval '30 days'";
        let client = self.connection().await?;
        client.execute(SQL, &[&source, &pattern]).await?;
        Ok(())
    }
}
