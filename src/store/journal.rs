//! How far the journal of write-behind keys is written here, and who writes it.

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;

use super::{Store, StoreError};
use crate::model::JournalId;

/// Class of the advisory locks of the journal: object 0 for its set-up, 1 for writing it here.
const LOCK_CLASS: i32 = 1_179_796_824;

const ADVANCE: &str = "
    UPDATE freshet.journal SET entry_ms = $4, entry_seq = $5, changed_at = now()
     WHERE incarnation = $1 AND entry_ms = $2 AND entry_seq = $3";

const READ: &str = "SELECT incarnation, replaced, entry_ms, entry_seq FROM freshet.journal";

const BEGIN: &str = "
    INSERT INTO freshet.journal AS j (incarnation, replaced, entry_ms, entry_seq) VALUES ($1, $2, 0, 0)
        ON CONFLICT (singleton) DO UPDATE
       SET incarnation = $1, replaced = $2, entry_ms = 0, entry_seq = 0, changed_at = now()";

/// A step that a transaction takes along the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Of which journal.
    pub incarnation: String,
    /// Up to where it must be written before.
    pub from: JournalId,
    /// Up to where it is then.
    pub to: JournalId,
}

/// The row of `freshet.journal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// The mark of the journal.
    pub incarnation: String,
    /// The mark that it replaces, if it is not set there yet.
    pub replaced: String,
    /// Up to where it is written.
    pub position: JournalId,
}

/// What one proxy at a time may do with the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalTurn {
    /// Give it another mark.
    SetUp,
    /// Write it to the store.
    Drain,
}

/// A turn that was taken: as long as this lives, and its session.
pub struct TakenTurn(Option<Object>);

impl TakenTurn {
    /// Whether its session has ended.
    pub fn is_lost(&self) -> bool {
        self.0.as_ref().is_none_or(|session| session.is_closed())
    }
}

/// The lock goes with the session, which must not return to the pool with it.
impl Drop for TakenTurn {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            drop(Object::take(session));
        }
    }
}

/// `false`: the journal does not stand where the step begins.
pub(super) async fn advance(client: &Object, step: &Advance) -> Result<bool, StoreError> {
    let statement = client.prepare_cached(ADVANCE).await?;
    let (from, to) = (step.from, step.to);
    let values: [&(dyn ToSql + Sync); 5] =
        [&step.incarnation, &from.ms, &from.seq, &to.ms, &to.seq];
    Ok(client.execute(&statement, &values).await? == 1)
}

impl Store {
    /// The journal, if there is one.
    pub async fn journal(&self) -> Result<Option<JournalRow>, StoreError> {
        let client = self.connection().await?;
        let reading = async {
            let statement = client.prepare_cached(READ).await?;
            let row = client.query_opt(&statement, &[]).await?;
            let row = row.map(|row| {
                Ok::<_, StoreError>(JournalRow {
                    incarnation: row.try_get(0)?,
                    replaced: row.try_get(1)?,
                    position: JournalId {
                        ms: row.try_get(2)?,
                        seq: row.try_get(3)?,
                    },
                })
            });
            row.transpose()
        };
        self.bounded(reading).await
    }

    /// Notes that the journal gets the mark `incarnation` in place of `replaced`, and that
    /// nothing of it is written.
    pub async fn begin_journal(&self, incarnation: &str, replaced: &str) -> Result<(), StoreError> {
        let client = self.connection().await?;
        let beginning = async {
            client.execute(BEGIN, &[&incarnation, &replaced]).await?;
            Ok(())
        };
        self.bounded(beginning).await
    }

    /// Takes a turn; `None` while another proxy has it.
    pub async fn journal_turn(&self, turn: JournalTurn) -> Result<Option<TakenTurn>, StoreError> {
        let session = self.connection().await?;
        let object = match turn {
            JournalTurn::SetUp => 0,
            JournalTurn::Drain => 1,
        };
        // Whatever becomes of the question, the session must not go back with the lock.
        let mut taken = TakenTurn(Some(session));
        let Some(session) = &taken.0 else {
            return Ok(None);
        };
        let asking = async {
            let sql = "SELECT pg_try_advisory_lock($1, $2)";
            let row = session.query_one(sql, &[&LOCK_CLASS, &object]).await?;
            Ok(row.try_get::<_, bool>(0)?)
        };
        if self.bounded(asking).await? {
            return Ok(Some(taken));
        }
        drop(taken.0.take());
        Ok(None)
    }
}
