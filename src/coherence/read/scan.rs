//! Scans of keys that the store answers, a page at a time.

use super::Reads;
use crate::coherence::Refusal;
use crate::command::Call;
use crate::engine::{CURSORS, Content, Need, Scan, Workspace};
use crate::model::{Db, Reply, Value};
use crate::store::{Large, LoadRequest, StoreError};

/// A key of no more elements than this is told all at once, whatever `COUNT` says, as Redis does
/// where it keeps one in a small form.
const SMALL: u64 = 512;
/// Elements of a page at least, whatever `COUNT` says: each costs two round trips to the store.
const PAGE_MIN: u64 = 100;
/// And at most.
const PAGE_MAX: u64 = 10_000;

/// Whether `call` is a scan of a key that was loaded as `content`, and that has too much to be told
/// at once.
pub(super) fn is_scan_of_many(call: &Call, content: &Content) -> bool {
    let Content::Value(Value::Collection(collection)) = content else {
        return false;
    };
    collection.len() > SMALL && Scan::of(call).is_some()
}

impl Reads {
    /// A page from where the cursor stands. One that the store did not give, or has forgotten, stands
    /// at the beginning: so no element is left out.
    pub(super) async fn scan(&self, call: &Call, db: Db, scan: &Scan) -> Result<Reply, Refusal> {
        let away = |error: StoreError| Refusal::ReadsAway(error.to_string());
        let mut position = None;
        if scan.is_of_the_store() {
            position = self.store.find_scan(scan.cursor).await.map_err(away)?;
        }
        let count = scan.count.clamp(PAGE_MIN, PAGE_MAX);
        let page = |position| Need::page(position, count);
        let request = |key| match &position {
            Some(position) => LoadRequest::new(key, page(position.clone())),
            None => LoadRequest {
                of_large: Some(Large {
                    above: SMALL,
                    need: page(Default::default()),
                }),
                ..LoadRequest::new(key, Need::value())
            },
        };
        let requests: Vec<LoadRequest> = call.keys(db).map(request).collect();
        let loaded = self.load_and_tell(&requests).await?;
        let mut workspace = Workspace::default();
        for (request, found) in requests.into_iter().zip(loaded.keys) {
            workspace.load(request.key, found);
        }
        let next = rand::random_range(CURSORS);
        workspace.page(next);
        let mut misses = Vec::new();
        let reply = self.execute(call, db, &mut workspace, loaded.now, &mut misses);
        self.audience.hear_events(&misses);
        if let Some(position) = workspace.take_next() {
            self.store.keep_scan(next, &position).await.map_err(away)?;
        }
        Ok(reply)
    }
}
