//! Commands over whole databases: those that list keys ask the store, those
//! that empty or swap databases go through the fence.

use std::sync::Arc;

use bytes::Bytes;

use super::{Fence, Order, Refusal};
use crate::command::glob::{self, Case};
use crate::command::{Call, args};
use crate::model::{Db, Kind, Reply};
use crate::store::{FlushScope, Store, StoreError};

/// Keys in one step of a SCAN at most, whatever COUNT says.
const SCAN_COUNT_MAX: i64 = 10_000;
const SCAN_COUNT_DEFAULT: i64 = 10;

/// Serves the classes `Keyspace` and `Flush`.
pub struct Keyspace {
    store: Arc<Store>,
    fence: Arc<Fence>,
}

impl Keyspace {
    /// Over these parts.
    pub fn new(store: Arc<Store>, fence: Arc<Fence>) -> Self {
        Self { store, fence }
    }

    /// Lists keys of `db`.
    pub async fn read(&self, call: &Call, db: Db) -> Reply {
        let reply = match call.command.name {
            "SCAN" => self.scan(call, db).await,
            "KEYS" => self.keys(call, db).await,
            "RANDOMKEY" => self
                .store
                .random_key(db)
                .await
                .map(|key| key.map_or(Reply::Null, Reply::Bulk)),
            _ => self.store.size(db).await.map(Reply::Integer),
        };
        reply.unwrap_or_else(|error| away(&error).reply())
    }

    async fn scan(&self, call: &Call, db: Db) -> Result<Reply, StoreError> {
        let scan = match Scan::parse(call) {
            Ok(scan) => scan,
            Err(refusal) => return Ok(refusal),
        };
        let page = self.store.scan(db, scan.cursor, scan.count).await?;
        let keys = page
            .keys
            .into_iter()
            .filter(|(key, kind)| scan.wants(key, *kind))
            .map(|(key, _)| Reply::Bulk(key))
            .collect();
        Ok(Reply::Array(vec![
            Reply::bulk(page.cursor.to_string()),
            Reply::Array(keys),
        ]))
    }

    async fn keys(&self, call: &Call, db: Db) -> Result<Reply, StoreError> {
        let pattern = call.request.arg(1);
        let keys = self.store.keys(db, glob::prefix(pattern)).await?;
        let matching = keys
            .into_iter()
            .filter(|key| glob::matches(pattern, key, Case::Sensitive))
            .map(Reply::Bulk)
            .collect();
        Ok(Reply::Array(matching))
    }

    /// Empties or swaps databases.
    pub async fn flush(&self, call: &Call, db: Db) -> Reply {
        let order = match call.command.name {
            "SWAPDB" => match swap(call) {
                Ok(Some(order)) => order,
                Ok(None) => return Reply::OK,
                Err(refusal) => return refusal,
            },
            name => {
                let words = call.request.len();
                let known = words == 1
                    || words == 2
                        && ["SYNC", "ASYNC"]
                            .iter()
                            .any(|w| args::is_word(call.request.arg(1), w));
                if !known {
                    return Reply::error("ERR syntax error");
                }
                let scope = if name == "FLUSHALL" {
                    FlushScope::All
                } else {
                    FlushScope::One(db)
                };
                Order::Flush(scope)
            }
        };
        match self.fence.carry_out(order).await {
            Ok(()) => Reply::OK,
            Err(refusal) => refusal.reply(),
        }
    }

    /// The databases that have keys: `(database, keys, keys with an expiry)`.
    pub async fn sizes(&self) -> Result<Vec<(Db, i64, i64)>, Reply> {
        self.store
            .sizes()
            .await
            .map_err(|error| away(&error).reply())
    }
}

fn away(error: &StoreError) -> Refusal {
    Refusal::ReadsAway(error.to_string())
}

/// The arguments of a SCAN.
struct Scan {
    cursor: u64,
    count: i64,
    pattern: Option<Bytes>,
    kind: Option<Bytes>,
}

impl Scan {
    /// As `scanGenericCommand` reads them.
    fn parse(call: &Call) -> Result<Self, Reply> {
        let request = &call.request;
        let cursor = std::str::from_utf8(request.arg(1))
            .ok()
            .and_then(|text| text.parse().ok());
        let cursor = cursor.ok_or_else(|| Reply::error("ERR invalid cursor"))?;
        let mut scan = Self {
            cursor,
            count: SCAN_COUNT_DEFAULT,
            pattern: None,
            kind: None,
        };
        let mut at = 2;
        while at < request.len() {
            let has_value = at + 1 < request.len();
            match request.arg(at) {
                word if has_value && args::is_word(word, "COUNT") => {
                    scan.count = args::integer(request.arg(at + 1)).ok_or_else(|| {
                        Reply::error("ERR value is not an integer or out of range")
                    })?;
                    if scan.count < 1 {
                        return Err(Reply::error("ERR syntax error"));
                    }
                    scan.count = scan.count.min(SCAN_COUNT_MAX);
                }
                word if has_value && args::is_word(word, "MATCH") => {
                    scan.pattern = Some(request.arg_bytes(at + 1));
                }
                word if has_value && args::is_word(word, "TYPE") => {
                    scan.kind = Some(request.arg_bytes(at + 1));
                }
                _ => return Err(Reply::error("ERR syntax error")),
            }
            at += 2;
        }
        Ok(scan)
    }

    fn wants(&self, key: &[u8], kind: Kind) -> bool {
        self.pattern
            .as_ref()
            .is_none_or(|pattern| glob::matches(pattern, key, Case::Sensitive))
            && self
                .kind
                .as_ref()
                .is_none_or(|wanted| args::is_word(wanted, kind.name()))
    }
}

/// The databases of a SWAPDB; `None` if they are the same.
fn swap(call: &Call) -> Result<Option<Order>, Reply> {
    let index = |at: usize, which: &str| {
        args::integer(call.request.arg(at))
            .and_then(|index| i32::try_from(index).ok())
            .ok_or_else(|| Reply::error(format!("ERR invalid {which} DB index")))
    };
    let (one, other) = (index(1, "first")?, index(2, "second")?);
    let db = |index: i32| {
        u8::try_from(index)
            .ok()
            .and_then(Db::new)
            .ok_or_else(|| Reply::error("ERR DB index is out of range"))
    };
    let (one, other) = (db(one)?, db(other)?);
    Ok((one != other).then_some(Order::Swap(one, other)))
}
