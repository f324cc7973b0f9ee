//! Keys that are brought to another Redis, whatever it held under their names.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::count::Counts;
use super::peer::{Incoming, Peer};
use super::walk::{Page, Position, Sink};
use crate::engine::{self, replay};
use crate::model::{Db, Key, Kind, Reply, Request, Value};
use crate::store::{Held, LargeKey, Place, Stored, View};

/// Keys, and about how many bytes of them, in one round trip.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// A request of Redis has no longer argument, unless its `proto-max-bulk-len` was raised.
const PAYLOAD_MAX: usize = engine::STRING_MAX;
/// What stands before the name of a key while it comes in pieces.
const IN_PIECES: &[u8] = b"freshet:in-pieces:";
/// Pieces of which nobody brings the rest are gone after this.
const PIECES_SECONDS: &str = "86400";
/// The key of the target that says how far an export is; gone when that is over.
const NOTE: &str = "freshet:export";
/// A note that nobody wants any more is gone after this.
const NOTE_SECONDS: &str = "604800";
/// Between two notes.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// How far an export to a Redis is.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    pattern: String,
    next: Position,
}

/// An export to a Redis under way.
pub(super) struct ToRedis<'a> {
    peer: &'a Peer,
    pattern: &'a str,
    noted_at: Instant,
    counts: &'a Counts,
}

impl<'a> ToRedis<'a> {
    /// Of the keys that match `pattern`.
    pub fn new(peer: &'a Peer, pattern: &'a str, counts: &'a Counts) -> Self {
        Self {
            peer,
            pattern,
            noted_at: Instant::now(),
            counts,
        }
    }

    /// How far an export came that was not over, if there is one.
    pub async fn noted(&self) -> Result<Option<Position>, Failure> {
        let replies = ask(self.peer, Db::default(), &[&["GET", NOTE]]).await?;
        let [Reply::Bulk(text)] = replies.as_slice() else {
            return Ok(None);
        };
        let note: Note = serde_json::from_slice(text)
            .map_err(|error| Failure::Other(format!("{NOTE} of the target: {error}")))?;
        if note.pattern != self.pattern {
            return Err(Failure::Other(format!(
                "what is there is of keys that match '{}', not '{}'",
                note.pattern, self.pattern
            )));
        }
        Ok(Some(note.next))
    }

    /// Takes the note away: it is over.
    pub async fn finish(self) -> Result<(), Failure> {
        ask(self.peer, Db::default(), &[&["DEL", NOTE]]).await?;
        Ok(())
    }
}

impl Sink for ToRedis<'_> {
    async fn put(&mut self, page: &Page) -> Result<(), Failure> {
        let keys: Vec<&Stored> = page.keys.iter().collect();
        put(self.peer, &page.view, &keys, self.counts).await
    }

    async fn reached(&mut self, next: &Position) -> Result<(), Failure> {
        if self.noted_at.elapsed() < NOTE_EVERY {
            return Ok(());
        }
        let note = Note {
            pattern: self.pattern.to_owned(),
            next: next.clone(),
        };
        let text = serde_json::to_string(&note).map_err(|e| Failure::Other(e.to_string()))?;
        let set = ["SET", NOTE, &text, "EX", NOTE_SECONDS];
        ask(self.peer, Db::default(), &[&set]).await?;
        self.noted_at = Instant::now();
        Ok(())
    }
}

/// Sets `keys`, which were read from `view`; what cannot be set is counted as refused.
pub async fn put(
    peer: &Peer,
    view: &View,
    keys: &[&Stored],
    counts: &Counts,
) -> Result<(), Failure> {
    let mut batch: Vec<Incoming> = Vec::new();
    let mut bytes = 0;
    for stored in keys {
        let value = match &stored.held {
            Held::Value(value) => Some(value),
            Held::Large(_) => None,
        };
        let loaded = match &stored.held {
            Held::Large(large) if large.kind == Kind::Stream => view.whole(large).await?,
            _ => None,
        };
        let is_in_pieces = matches!(&stored.held, Held::Large(large) if large.kind != Kind::Stream);
        let is_other_db = batch.last().is_some_and(|one| one.key.db != stored.key.db);
        if is_in_pieces || is_other_db || batch.len() == BATCH || bytes > BATCH_BYTES {
            send(peer, &mut batch, counts).await?;
            bytes = 0;
        }
        match (&stored.held, value.or(loaded.as_ref())) {
            (_, Some(value)) => {
                if let Some(one) = restored(stored, value, counts)? {
                    bytes += one.payload.len();
                    batch.push(one);
                }
            }
            (Held::Large(large), None) if is_in_pieces => {
                put_pieces(peer, view, (stored, large)).await?;
                counts.written(1);
            }
            _ => counts.too_large(&stored.key),
        }
    }
    send(peer, &mut batch, counts).await
}

fn restored(stored: &Stored, value: &Value, counts: &Counts) -> Result<Option<Incoming>, Failure> {
    let payload = engine::dumped(value)
        .map_err(|_| Failure::Other(format!("{:?} was not loaded whole", stored.key)))?;
    if payload.len() > PAYLOAD_MAX {
        counts.too_large(&stored.key);
        return Ok(None);
    }
    Ok(Some(Incoming {
        key: stored.key.clone(),
        payload: Bytes::from(payload),
        expires_at: stored.expires_at,
    }))
}

async fn send(peer: &Peer, batch: &mut Vec<Incoming>, counts: &Counts) -> Result<(), Failure> {
    let keys = std::mem::take(batch);
    if let Some(first) = keys.first() {
        peer.write(first.key.db, &keys).await?;
        counts.written(keys.len() as u64);
    }
    Ok(())
}

/// Makes a large collection under another name, and gives it its own when it is whole.
async fn put_pieces(
    peer: &Peer,
    view: &View,
    (stored, large): (&Stored, &LargeKey),
) -> Result<(), Failure> {
    let (db, name) = (stored.key.db, &stored.key.name[..]);
    let pieces = [IN_PIECES, name].concat();
    ask(peer, db, &[&[b"UNLINK", &pieces[..]]]).await?;
    let mut place = Place::default();
    while let Some(piece) = view.piece(large, &mut place).await? {
        let commands = replay::rebuild(&piece)
            .map_err(|_| Failure::Other(format!("{:?} was not loaded whole", stored.key)))?;
        let mut requests: Vec<Vec<&[u8]>> = commands
            .iter()
            .map(|command| {
                let (what, arguments) = command.split_at(1);
                let before = [&what[0][..], &pieces[..]].into_iter();
                before.chain(arguments.iter().map(|a| &a[..])).collect()
            })
            .collect();
        requests.push(vec![b"EXPIRE", &pieces, PIECES_SECONDS.as_bytes()]);
        let requests: Vec<&[&[u8]]> = requests.iter().map(|words| &words[..]).collect();
        ask(peer, db, &requests).await?;
    }
    let at = stored.expires_at.map(|at| at.0.to_string());
    let end: Vec<&[u8]> = match &at {
        Some(at) => vec![b"PEXPIREAT", &pieces, at.as_bytes()],
        None => vec![b"PERSIST", &pieces],
    };
    ask(peer, db, &[&end]).await?;
    // It may have ended meanwhile: then nothing is there to be renamed.
    let renamed = Request::from_args(&[b"RENAME", &pieces[..], name]);
    let replies = peer.ask(db, &[renamed]).await?;
    if matches!(replies.as_slice(), [Reply::Error(_)]) {
        let there = ask(peer, db, &[&[b"EXISTS", &pieces[..]]]).await?;
        if there != [Reply::Integer(0)] || stored.expires_at.is_none() {
            return Err(refused(&replies[0]));
        }
        ask(peer, db, &[&[b"UNLINK", name]]).await?;
    }
    Ok(())
}

/// Deletes `keys`.
pub async fn unlink(peer: &Peer, keys: &[&Key]) -> Result<(), Failure> {
    for some in keys.chunk_by(|one, other| one.db == other.db) {
        for some in some.chunks(BATCH) {
            let mut words: Vec<&[u8]> = vec![b"UNLINK"];
            words.extend(some.iter().map(|key| &key.name[..]));
            ask(peer, some[0].db, &[&words]).await?;
        }
    }
    Ok(())
}

/// What `peer` replies to these requests, none of which it may refuse.
pub async fn ask<T: AsRef<[u8]>>(
    peer: &Peer,
    db: Db,
    requests: &[&[T]],
) -> Result<Vec<Reply>, Failure> {
    let requests: Vec<Request> = requests.iter().map(|r| Request::from_args(r)).collect();
    let replies = peer.ask(db, &requests).await?;
    match replies
        .iter()
        .find(|reply| matches!(reply, Reply::Error(_)))
    {
        Some(error) => Err(refused(error)),
        None => Ok(replies),
    }
}

fn refused(reply: &Reply) -> Failure {
    match reply {
        Reply::Error(text) => Failure::Other(format!(
            "the target refuses: {}",
            String::from_utf8_lossy(text)
        )),
        _ => Failure::Other("the target answers in another form than Redis does".to_owned()),
    }
}
