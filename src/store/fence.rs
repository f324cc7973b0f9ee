//! The fence row and the registrations: which generation of the cache is
//! valid, and which proxies may commit.

use deadpool_postgres::Object;

use super::{Store, StoreError};
use crate::model::Generation;

/// Class of the advisory lock that guards the fence row (object 0).
const FENCE_CLASS: i32 = 1_179_796_819;
/// Class of the advisory locks that open transactions of a proxy share.
const TRANSACTION_CLASS: i32 = 1_179_796_820;
/// Class of the advisory locks that the session of a living proxy holds.
const ALIVE_CLASS: i32 = 1_179_796_821;
/// Class of the advisory lock of the proxy that brings the cache back (object 0).
const RETURN_CLASS: i32 = 1_179_796_822;

/// Whether the cache of this generation may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceState {
    /// It is used.
    Active,
    /// It is void; requests are held until every proxy knows.
    Closing,
    /// It is void; all work is done on the store alone.
    Bypass,
}

impl FenceState {
    /// As in the column `freshet.fence.state`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Closing => "closing",
            Self::Bypass => "bypass",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "active" => Ok(Self::Active),
            "closing" => Ok(Self::Closing),
            "bypass" => Ok(Self::Bypass),
            other => Err(StoreError::Schema(format!(
                "unknown state '{other}' in freshet.fence"
            ))),
        }
    }
}

/// The row of `freshet.fence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceRow {
    /// The current generation.
    pub generation: Generation,
    /// Its state.
    pub state: FenceState,
    /// `run_id` of the server that holds this generation.
    pub run_id: Option<String>,
}

/// A proxy's right to commit. It lasts as long as the session that holds its
/// lock: when that ends, anybody may declare the proxy dead.
pub struct Registration {
    /// The proxy's number, unique for ever.
    pub id: i32,
    session: Option<Object>,
}

impl Registration {
    /// Registers a proxy called `name`, which obeys the fence as it is now.
    pub async fn new(store: &Store, name: &str) -> Result<Self, StoreError> {
        let session = store.connection().await?;
        let row = session
            .query_one(
                "INSERT INTO freshet.proxy (name, confirmed)
                 SELECT $1, generation FROM freshet.fence RETURNING id",
                &[&name],
            )
            .await?;
        let id: i32 = row.try_get(0)?;
        session
            .execute("SELECT pg_advisory_lock($1, $2)", &[&ALIVE_CLASS, &id])
            .await?;
        Ok(Self {
            id,
            session: Some(session),
        })
    }

    /// Whether the session that proves that this proxy lives has ended.
    pub fn is_lost(&self) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.is_closed())
    }

    /// Marks this proxy as ended: an orderly stop, after its last commit.
    pub async fn end(self) -> Result<(), StoreError> {
        if let Some(session) = &self.session {
            session
                .execute(
                    "UPDATE freshet.proxy SET alive = false, ended_at = now() WHERE id = $1",
                    &[&self.id],
                )
                .await?;
        }
        Ok(())
    }
}

/// The lock goes with the session, which must not return to the pool with it.
impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(Object::take(session));
        }
    }
}

/// Reads the fence row.
pub(super) async fn read(client: &Object) -> Result<FenceRow, StoreError> {
    let statement = client
        .prepare_cached("SELECT generation, state, run_id FROM freshet.fence")
        .await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok(FenceRow {
        generation: Generation(row.try_get(0)?),
        state: FenceState::parse(row.try_get(1)?)?,
        run_id: row.try_get(2)?,
    })
}

/// Raises the generation from `known` to the next in state `closing`, unless
/// somebody did. Waits for open transactions of the old generation to end.
pub(super) async fn raise(
    client: &mut Object,
    known: Generation,
    reason: &str,
) -> Result<FenceRow, StoreError> {
    exclusively(client, "
        UPDATE freshet.fence
           SET generation = generation + 1, state = 'closing', run_id = NULL, changed_at = now(), reason = $2
         WHERE generation = $1 AND state = 'active'", &[&known.0, &reason])
    .await
}

/// Tells that proxy `id` obeys `generation`, and moves the fence from
/// `closing` to `bypass` if every living proxy does.
pub(super) async fn confirm(
    client: &mut Object,
    id: i32,
    generation: Generation,
) -> Result<FenceRow, StoreError> {
    client
        .execute(
            "UPDATE freshet.proxy SET confirmed = greatest(confirmed, $2) WHERE id = $1",
            &[&id, &generation.0],
        )
        .await?;
    exclusively(client, "
        UPDATE freshet.fence f
           SET state = 'bypass', changed_at = now()
         WHERE generation = $1 AND state = 'closing'
           AND NOT EXISTS (SELECT FROM freshet.proxy p WHERE p.alive AND p.confirmed < f.generation)",
        &[&generation.0])
    .await
}

/// Sets `generation` active on the cache server `run_id`.
pub(super) async fn activate(
    client: &mut Object,
    generation: Generation,
    run_id: &str,
) -> Result<FenceRow, StoreError> {
    exclusively(
        client,
        "
        UPDATE freshet.fence
           SET state = 'active', run_id = $2, changed_at = now(), reason = 'the cache is back'
         WHERE generation = $1 AND state = 'bypass'",
        &[&generation.0, &run_id],
    )
    .await
}

/// Moves the generation above `mark`, which a cache holds though the store never
/// gave it: the store has lost its latest past.
pub(super) async fn skip_to(
    client: &mut Object,
    generation: Generation,
    mark: Generation,
) -> Result<FenceRow, StoreError> {
    exclusively(client, "
        UPDATE freshet.fence
           SET generation = $2::bigint + 1, changed_at = now(), reason = 'the cache is ahead of the store'
         WHERE generation = $1 AND state = 'bypass'", &[&generation.0, &mark.0])
    .await
}

/// Runs `update` while no write transaction is open, and returns the row after it.
async fn exclusively(
    client: &mut Object,
    update: &str,
    values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<FenceRow, StoreError> {
    let transaction = client.transaction().await?;
    lock_exclusively(&transaction).await?;
    transaction.execute(update, values).await?;
    let row = transaction
        .query_one("SELECT generation, state, run_id FROM freshet.fence", &[])
        .await?;
    let row = FenceRow {
        generation: Generation(row.try_get(0)?),
        state: FenceState::parse(row.try_get(1)?)?,
        run_id: row.try_get(2)?,
    };
    transaction.commit().await?;
    Ok(row)
}

/// Waits until no write transaction is open, and keeps new ones out until
/// `transaction` ends.
pub(super) async fn lock_exclusively(
    transaction: &deadpool_postgres::Transaction<'_>,
) -> Result<(), StoreError> {
    transaction
        .execute("SELECT pg_advisory_xact_lock($1, 0)", &[&FENCE_CLASS])
        .await?;
    Ok(())
}

/// The proof that proxy `id` is dead: its session has ended, it is marked, and
/// none of its transactions is open. `false` while it lives.
pub(super) async fn prove_dead(client: &mut Object, id: i32) -> Result<bool, StoreError> {
    let transaction = client.transaction().await?;
    let row = transaction
        .query_one(
            "SELECT pg_try_advisory_xact_lock($1, $2)",
            &[&ALIVE_CLASS, &id],
        )
        .await?;
    let marked: Option<bool> = transaction
        .query_opt("SELECT alive FROM freshet.proxy WHERE id = $1", &[&id])
        .await?
        .map(|row| row.get(0));
    if !row.get::<_, bool>(0) && marked == Some(true) {
        return Ok(false);
    }
    // Waits for its open transactions; one that begins later finds the mark.
    transaction
        .execute(
            "SELECT pg_advisory_xact_lock($1, $2)",
            &[&TRANSACTION_CLASS, &id],
        )
        .await?;
    transaction
        .execute(
            "UPDATE freshet.proxy SET alive = false, ended_at = coalesce(ended_at, now())
              WHERE id = $1 AND alive",
            &[&id],
        )
        .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Marks dead whoever of the registered is dead, so that the fence need not wait for it.
pub(super) async fn bury_the_dead(client: &mut Object, own: i32) -> Result<(), StoreError> {
    let rows = client
        .query(
            "SELECT id FROM freshet.proxy WHERE alive AND id <> $1 ORDER BY id LIMIT 1000",
            &[&own],
        )
        .await?;
    for row in rows {
        let id: i32 = row.try_get(0)?;
        if prove_dead(client, id).await? {
            tracing::info!(
                proxy = id,
                "a proxy that ended without a word is marked dead"
            );
        }
    }
    Ok(())
}

/// Tries to become the one proxy that brings the cache back. The lock is the
/// session's: give the connection to [`end_return`] afterwards.
pub(super) async fn try_return(client: &Object) -> Result<bool, StoreError> {
    let row = client
        .query_one("SELECT pg_try_advisory_lock($1, 0)", &[&RETURN_CLASS])
        .await?;
    Ok(row.try_get(0)?)
}

/// Lets others bring the cache back.
pub(super) async fn end_return(client: &Object) -> Result<(), StoreError> {
    client
        .execute("SELECT pg_advisory_unlock($1, 0)", &[&RETURN_CLASS])
        .await?;
    Ok(())
}
