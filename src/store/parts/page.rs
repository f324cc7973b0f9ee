//! Pages of collections in the order of their index, for scans.

use bytes::Bytes;

use super::{ELEMENT, KEYS, Loading, Part, columns, counts, element, ordinal};
use crate::store::StoreError;
use crate::store::load::RowBytes;

impl<'a> Loading<'a> {
    /// Loads the pages that are asked for.
    pub(super) async fn page(self, parts: &mut [Part]) -> Result<(), StoreError> {
        let asked = self.searches(|need| need.page.iter().map(|(from, n)| (from, *n)).collect());
        if asked.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT u.ord::int, {ELEMENT}, e.field
               FROM unnest($1::smallint[], $2::bytea[], $3::bytea[], $4::bigint[])
                      WITH ORDINALITY AS u (db, key, position, wanted, ord)
               {KEYS}
               CROSS JOIN LATERAL (
                   SELECT * FROM freshet.element f
                    WHERE f.content = k.content AND f.field >= u.position
                    ORDER BY f.field LIMIT u.wanted) e"
        );
        let (dbs, names) = columns(asked.iter().map(|search| search.key));
        let positions: Vec<&[u8]> = asked.iter().map(|search| &search.what[..]).collect();
        let wanted = counts(&asked);
        let rows = self
            .query(&sql, &[&dbs, &names, &positions, &wanted])
            .await?;
        let mut stored: Vec<Vec<Bytes>> = vec![Vec::new(); asked.len()];
        for row in &rows {
            let index = ordinal(row)?;
            let part = &mut parts[asked[index].index];
            let (field, element) = element(row)?;
            part.found.page.0.push(field.clone());
            part.elements.insert(field, Some(element));
            stored[index].push(row.try_get::<_, RowBytes<'_>>(4)?.0);
        }
        for (search, stored) in asked.iter().zip(stored) {
            let is_full = stored.len() as i64 >= search.count;
            // Nothing follows a field more closely.
            let next = stored.iter().max().filter(|_| is_full);
            let next = next.map(|last| Bytes::from([&last[..], &[0]].concat()));
            parts[search.index].found.page.1 = next;
        }
        Ok(())
    }
}
