//! Over all keys of the store in their order, page by page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Failure;
use super::count::Counts;
use crate::command::glob::{self, Case};
use crate::model::{DATABASES, Db};
use crate::progress::Progress;
use crate::store::{Store, Stored, View};

/// Keys of a page at most.
const PAGE: u32 = 2000;

/// Where the next page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The database.
    #[serde(serialize_with = "db_out", deserialize_with = "db_in")]
    pub db: Db,
    /// The first key is this one or behind it.
    #[serde(
        rename = "key",
        serialize_with = "hex_out",
        deserialize_with = "hex_in"
    )]
    pub from: Bytes,
}

/// Keys that were read, and the moment of which they tell.
pub struct Page {
    /// The moment.
    pub view: Arc<View>,
    /// The keys.
    pub keys: Vec<Stored>,
    /// Where the next one begins; nothing at the end.
    pub next: Option<Position>,
}

/// Where keys go.
pub trait Sink {
    /// These come next.
    fn put(&mut self, page: &Page) -> impl Future<Output = Result<(), Failure>> + Send;
    /// All before `next` were put.
    fn reached(&mut self, next: &Position) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Which keys are gone over, and how fast.
pub struct Walk<'a> {
    store: &'a Store,
    /// The moment that all pages tell of; without it each tells of its own.
    moment: Option<Arc<View>>,
    patterns: &'a [String],
    rate: u32,
}

impl<'a> Walk<'a> {
    /// Over the keys that match one of `patterns`, `rate` of them a second at most.
    pub fn new(
        store: &'a Store,
        moment: Option<Arc<View>>,
        patterns: &'a [String],
        rate: u32,
    ) -> Self {
        Self {
            store,
            moment,
            patterns,
            rate,
        }
    }

    /// The page that begins at `at`.
    pub async fn page(&self, at: &Position) -> Result<Page, Failure> {
        let view = match &self.moment {
            Some(view) => Arc::clone(view),
            None => Arc::new(self.store.view().await?),
        };
        let count = match self.rate {
            0 => PAGE,
            rate => rate.min(PAGE),
        };
        // Of several patterns all keys are read.
        let prefix = match self.patterns {
            [only] => glob::prefix(only.as_bytes()),
            _ => &[],
        };
        let reading = view.page(at.db, (&at.from, prefix), i64::from(count));
        let found = Box::pin(reading).await?;
        let next = match found.next {
            Some(from) => Some(Position { db: at.db, from }),
            None => Db::new(at.db.index() + 1).map(|db| Position {
                db,
                from: Bytes::new(),
            }),
        };
        let mut keys = found.keys;
        keys.retain(|stored| is_chosen(self.patterns, &stored.key.name));
        Ok(Page { view, keys, next })
    }

    /// Brings all keys from `start` on into `sink`; the next page is read meanwhile.
    pub async fn run(
        &self,
        start: Position,
        sink: &mut impl Sink,
        (counts, progress): (&Counts, &Progress),
    ) -> Result<(), Failure> {
        let (started, mut keys) = (Instant::now(), 0);
        let mut page = self.page(&start).await?;
        loop {
            let next = page.next.clone();
            let following = async {
                match &next {
                    Some(at) => self.page(at).await.map(Some),
                    None => Ok(None),
                }
            };
            let (put, following) = tokio::join!(sink.put(&page), following);
            put?;
            let count = page.keys.len() as u64;
            counts.read(count);
            progress.advance(count);
            end(page).await?;
            let (Some(next), Some(following)) = (next, following?) else {
                return Ok(());
            };
            sink.reached(&next).await?;
            keys += count;
            self.hold_to_rate(started, keys).await;
            page = following;
        }
    }

    async fn hold_to_rate(&self, started: Instant, keys: u64) {
        if self.rate > 0 {
            let due = Duration::from_secs_f64(keys as f64 / f64::from(self.rate));
            tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
        }
    }
}

/// Gives the connection of a moment back that nobody needs any more.
pub(super) async fn end(page: Page) -> Result<(), Failure> {
    if let Ok(view) = Arc::try_unwrap(page.view) {
        view.end().await?;
    }
    Ok(())
}

/// Whether a key called `name` matches one of `patterns`, as `KEYS` matches.
pub fn is_chosen(patterns: &[String], name: &[u8]) -> bool {
    let matches = |pattern: &String| {
        pattern == "*" || glob::matches(pattern.as_bytes(), name, Case::Sensitive)
    };
    patterns.iter().any(matches)
}

/// About how many keys there are in all.
pub(super) fn total(sizes: &[(Db, i64, i64)]) -> u64 {
    let keys = sizes.iter().map(|(_, keys, _)| keys.unsigned_abs());
    keys.sum()
}

fn db_out<S: Serializer>(db: &Db, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u8(db.index())
}

fn db_in<'de, D: Deserializer<'de>>(from: D) -> Result<Db, D::Error> {
    let number = u8::deserialize(from)?;
    Db::new(number)
        .ok_or_else(|| serde::de::Error::custom(format!("no database is above {DATABASES}")))
}

fn hex_out<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    to.serialize_str(&text)
}

fn hex_in<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(from)?;
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |pair: &[u8; 2]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Option<Vec<u8>> = pairs.iter().map(digit).collect();
    match bytes.filter(|_| rest.is_empty()) {
        Some(bytes) => Ok(Bytes::from(bytes)),
        None => Err(serde::de::Error::custom("a key in hexadecimal")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_from_its_text() {
        let position = Position {
            db: Db::new(3).unwrap(),
            from: Bytes::from_static(b"a\x00\xff"),
        };
        let text = serde_json::to_string(&position).unwrap();
        assert_eq!(text, r#"{"db":3,"key":"6100ff"}"#);
        assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), position);
        for wrong in [r#"{"db":16,"key":""}"#, r#"{"db":0,"key":"6"}"#] {
            assert!(serde_json::from_str::<Position>(wrong).is_err());
        }
    }
}
