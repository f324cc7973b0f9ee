//! Housekeeping in the store: rows that ended long ago are purged, page by page.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Position, Store};

/// Longer than any lease, any fill and any transaction may last.
const OLDER_THAN: Duration = Duration::from_secs(3600);
/// Rows looked at while writers wait: a few milliseconds.
const PAGE_ROWS: i64 = 2000;
/// Elements deleted in one statement, statements in a row, and the pause between two.
const COLLECT_ROWS: i64 = 2000;
const COLLECT_STEPS: u32 = 50;
const COLLECT_PAUSE: Duration = Duration::from_millis(20);
/// Tokens forgotten in one statement, and the pause between two. All that are due go: only
/// so does the table keep its size, however many come.
const TOKENS: i64 = 2000;
const TOKENS_PAUSE: Duration = Duration::from_millis(20);
/// How often tokens are looked for that are due: so many times in the life of one, within bounds.
const LOOKS: u32 = 20;
const LOOK_MIN: Duration = Duration::from_millis(500);
const LOOK_MAX: Duration = Duration::from_secs(300);
/// Between two pages, and between two rounds over the table.
const PAUSE: Duration = Duration::from_millis(200);
const ROUND_PAUSE: Duration = Duration::from_secs(300);

/// Purges for ever; errors wait for the next round.
pub async fn purge_forever(store: Arc<Store>) {
    let mut from: Position = (-1, Vec::new());
    loop {
        let pause = match store
            .purge(OLDER_THAN.as_millis() as i64, PAGE_ROWS, &from)
            .await
        {
            Ok(Some((next, purged))) => {
                if purged > 0 {
                    tracing::debug!(purged, "rows purged");
                }
                from = next;
                PAUSE
            }
            Ok(None) => {
                from = (-1, Vec::new());
                ROUND_PAUSE
            }
            Err(error) => {
                tracing::debug!(%error, "purging waits for the store");
                ROUND_PAUSE
            }
        };
        collect(&store).await;
        if let Err(error) = store.forget_scans(OLDER_THAN, COLLECT_ROWS).await {
            tracing::debug!(%error, "cursors of old scans wait");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Deletes some elements of collections that are gone.
async fn collect(store: &Store) {
    for _ in 0..COLLECT_STEPS {
        match store.collect(COLLECT_ROWS).await {
            Ok(COLLECT_ROWS) => tokio::time::sleep(COLLECT_PAUSE).await,
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%error, "what is left of deleted collections waits");
                return;
            }
        }
    }
}

/// Forgets for ever, some at a time, what was made once longer ago than `retention`.
pub async fn forget_forever(store: Arc<Store>, retention: Duration) {
    let look = (retention / LOOKS).clamp(LOOK_MIN, LOOK_MAX);
    loop {
        let pause = match store.forget_tokens(TOKENS).await {
            Ok(forgotten) if forgotten == TOKENS as u64 => TOKENS_PAUSE,
            Ok(_) => look,
            Err(error) => {
                tracing::debug!(%error, "old tokens wait for the store");
                look
            }
        };
        tokio::time::sleep(pause).await;
    }
}
