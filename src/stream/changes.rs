//! Changes of keys, in the order of their commits.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes};
use futures_util::FutureExt;

use super::StreamError;
use super::message::{Decoder, Lsn, Message, byte, long, take};
use super::wire::Wire;
use crate::config;
use crate::model::{Key, UnixMs};

/// PostgreSQL's clock counts microseconds from the year 2000 on.
const EPOCH_2000_MS: i64 = 946_684_800_000;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This key's row was written or deleted by the transaction of that number, which need not be visible yet: the
    /// log is told of when it is on the disk, and only then the server's own sessions see it.
    Key(Key, u32),
    /// All rows were deleted by the transaction of that number.
    Truncate(u32),
    /// All that was committed before `end` has been told.
    Until {
        /// That place in the log.
        end: Lsn,
        /// When that was so, by the store's clock.
        at: UnixMs,
    },
}

/// A slot that is being read.
pub struct Changes {
    wire: Wire,
    decoder: Decoder,
    /// The transaction of which changes are being told.
    inside: Option<u32>,
    /// Up to where they need not be told again.
    confirmed: Lsn,
}

impl Changes {
    /// Takes what `publication` tells from `slot`. What was confirmed there is not told again.
    pub async fn open(
        settings: &config::Postgres,
        slot: &str,
        publication: &str,
    ) -> Result<Self, StreamError> {
        let mut wire = Wire::connect(settings).await?;
        // Both names consist of letters, digits and underscores.
        let sql = format!(
            "START_REPLICATION SLOT {slot} LOGICAL 0/0 \
             (proto_version '1', publication_names '{publication}', binary 'true')"
        );
        wire.start(&sql).await?;
        Ok(Self {
            wire,
            decoder: Decoder::default(),
            inside: None,
            confirmed: Lsn::default(),
        })
    }

    /// The next event; may be given up and asked for again.
    pub async fn next(&mut self) -> Result<Event, StreamError> {
        loop {
            let piece = self.wire.piece().await?;
            if let Some(event) = self.read(piece)? {
                return Ok(event);
            }
        }
    }

    /// The next event that has arrived.
    pub fn at_hand(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            let piece = match self.wire.piece_at_hand()? {
                Some(piece) => piece,
                None => match self.wire.piece().now_or_never() {
                    Some(piece) => piece?,
                    None => return Ok(None),
                },
            };
            if let Some(event) = self.read(piece)? {
                return Ok(Some(event));
            }
        }
    }

    fn read(&mut self, mut piece: Bytes) -> Result<Option<Event>, StreamError> {
        match byte(&mut piece)? {
            b'w' => {
                take(&mut piece, 24)?;
                let message = self.decoder.read(piece)?;
                Ok(self.event(message))
            }
            b'k' => {
                let (end, at) = (long(&mut piece)?, long(&mut piece)?);
                // In the middle of a transaction there is more to come of what is before `end`.
                Ok(self
                    .inside
                    .is_none()
                    .then(|| until(Lsn(end.cast_unsigned()), at)))
            }
            _ => Ok(None),
        }
    }

    fn event(&mut self, message: Message) -> Option<Event> {
        match message {
            Message::Begin { transaction } => self.inside = Some(transaction),
            Message::Commit { end, at } => {
                self.inside = None;
                return Some(until(end, at));
            }
            Message::Key(key) => return self.inside.map(|of| Event::Key(key, of)),
            Message::Truncate => return self.inside.map(Event::Truncate),
            Message::Other => {}
        }
        None
    }

    /// All before `end` need not be told again.
    pub async fn confirm(&mut self, end: Lsn) -> Result<(), StreamError> {
        self.confirmed = self.confirmed.max(end);
        self.tell(Reply::NotNeeded).await
    }

    /// Tells the server that somebody is there, which it wants to hear within `wal_sender_timeout`, and asks how
    /// far it is: an [`Event::Until`] comes when all before that was told.
    pub async fn ask(&mut self) -> Result<(), StreamError> {
        self.tell(Reply::Wanted).await
    }

    async fn tell(&mut self, reply: Reply) -> Result<(), StreamError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = (now.as_millis() as i64 - EPOCH_2000_MS) * 1000;
        let mut status = Vec::with_capacity(34);
        status.put_u8(b'r');
        // Written, flushed, applied.
        for _ in 0..3 {
            status.put_u64(self.confirmed.0);
        }
        status.put_i64(now);
        status.put_u8(u8::from(reply == Reply::Wanted));
        self.wire.tell(&status).await
    }
}

/// Whether the server shall answer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Wanted,
    NotNeeded,
}

fn until(end: Lsn, at: i64) -> Event {
    Event::Until {
        end,
        at: UnixMs(at / 1000 + EPOCH_2000_MS),
    }
}
