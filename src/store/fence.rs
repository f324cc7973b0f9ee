//! The fence row and the registrations: which generation of the cache is
//! valid, and which proxies may commit.

use std::time::Duration;

use deadpool_postgres::Object;

use super::{History, Store, StoreError};
use crate::model::Generation;

/// Class of the advisory lock that guards the fence row (object 0).
pub(super) const FENCE_CLASS: i32 = 1_179_796_819;
/// Waits for the lock on the fence row, of class `$1`.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock($1, 0)";
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
    /// `run_id` of the server that holds this generation, or held the one before.
    pub run_id: Option<String>,
    /// Its replication id, if it was noted.
    pub replication_id: Option<String>,
}

const COLUMNS: &str = "generation, state, run_id, replication_id";

impl FenceRow {
    fn of(row: &tokio_postgres::Row) -> Result<Self, StoreError> {
        Ok(Self {
            generation: Generation(row.try_get(0)?),
            state: FenceState::parse(row.try_get(1)?)?,
            run_id: row.try_get(2)?,
            replication_id: row.try_get(3)?,
        })
    }
}

/// What one look at the store tells a proxy about its rights.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The fence.
    pub row: FenceRow,
    /// Whether the proxy that asks is registered and not declared dead.
    pub is_alive: bool,
    /// Which history the store has, if it tells.
    pub history: Option<History>,
}

/// The value of `freshet.proxy.confirmed` of a proxy that uses no cache at all.
const OBEYS_EVERY_GENERATION: i64 = i64::MAX;

/// A proxy's right to commit. It lasts as long as the session that holds its
/// lock: when that ends, anybody may declare the proxy dead.
pub struct Registration {
    /// The proxy's number, unique for ever.
    pub id: i32,
    session: Option<Object>,
}

impl Registration {
    /// Registers a proxy called `name`, which uses hits for up to `lease` after the last look at
    /// the fence. It obeys the fence as it is now, or while it `uses` a generation, no later one:
    /// it may not have looked since that was closed.
    pub async fn new(
        store: &Store,
        name: &str,
        lease: Duration,
        uses: Option<Generation>,
    ) -> Result<Self, StoreError> {
        let session = store.connection().await?;
        let lease_ms = lease.as_millis() as i64;
        let obeyed = uses.map_or(OBEYS_EVERY_GENERATION, |generation| generation.0);
        let registering = async {
            let row = session
                .query_one(
                    "INSERT INTO freshet.proxy (name, confirmed, lease_ms)
                     SELECT $1, least(generation, $3), $2 FROM freshet.fence RETURNING id",
                    &[&name, &lease_ms, &obeyed],
                )
                .await?;
            let id: i32 = row.try_get(0)?;
            session
                .execute("SELECT pg_advisory_lock($1, $2)", &[&ALIVE_CLASS, &id])
                .await?;
            Ok(id)
        };
        let id = store.bounded(registering).await;
        match id {
            Ok(id) => Ok(Self {
                id,
                session: Some(session),
            }),
            Err(error) => {
                drop(Object::take(session));
                Err(error)
            }
        }
    }

    /// Whether the session that proves that this proxy lives has ended.
    pub fn is_lost(&self) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.is_closed())
    }

    /// Marks this proxy as ended: after its last commit, and when it uses no hit any more.
    pub async fn end(mut self, store: &Store) -> Result<(), StoreError> {
        let (id, session) = (self.id, self.session.take());
        let ending = async {
            match &session {
                Some(session) if !session.is_closed() => end(session, id).await,
                _ => end(&*store.connection().await?, id).await,
            }
        };
        let ended = store.bounded(ending).await;
        if let Some(session) = session {
            drop(Object::take(session));
        }
        ended
    }
}

async fn end(client: &tokio_postgres::Client, id: i32) -> Result<(), StoreError> {
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&id, &OBEYS_EVERY_GENERATION];
    client
        .execute(
            "UPDATE freshet.proxy SET alive = false, ended_at = clock_timestamp(), confirmed = $2 WHERE id = $1",
            &values,
        )
        .await?;
    Ok(())
}

/// The lock goes with the session, which must not return to the pool with it.
impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(Object::take(session));
        }
    }
}

/// Looks at the fence, the registration of `proxy` and the server's history in one snapshot.
pub(super) async fn sight(client: &Object, proxy: i32) -> Result<Sight, StoreError> {
    const SIGHT: &str = "
        SELECT generation, state, run_id, replication_id,
               coalesce((SELECT alive FROM freshet.proxy WHERE id = $1), false), system, timeline, lsn
          FROM freshet.fence, freshet.server()";
    let statement = client.prepare_cached(SIGHT).await?;
    let row = client.query_one(&statement, &[&proxy]).await?;
    Ok(Sight {
        row: FenceRow::of(&row)?,
        is_alive: row.try_get(4)?,
        history: History::of_row(&row, 5)?,
    })
}

/// Reads the fence row.
pub(super) async fn read(client: &Object) -> Result<FenceRow, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM freshet.fence");
    let statement = client.prepare_cached(&sql).await?;
    FenceRow::of(&client.query_one(&statement, &[]).await?)
}

/// Whether a proxy other than `own` that lives may use the cache of `generation`.
pub(super) async fn others_use(
    client: &mut Object,
    own: i32,
    generation: Generation,
) -> Result<bool, StoreError> {
    bury_the_dead(client, own).await?;
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT FROM freshet.proxy WHERE alive AND id <> $1 AND confirmed = $2)",
            &[&own, &generation.0],
        )
        .await?;
    Ok(row.try_get(0)?)
}

/// Tells that proxy `id` uses the cache of `generation` from now on, or none (`None`): then
/// nobody waits for it when that is taken out of use. Whoever begins to use it looks at the
/// fence once more *after* this, since it may have been moved without waiting.
pub(super) async fn declare_use(
    client: &Object,
    id: i32,
    generation: Option<Generation>,
) -> Result<(), StoreError> {
    let confirmed = generation.map_or(OBEYS_EVERY_GENERATION, |generation| generation.0);
    client
        .execute(
            "UPDATE freshet.proxy SET confirmed = $2 WHERE id = $1 AND confirmed <> $2",
            &[&id, &confirmed],
        )
        .await?;
    Ok(())
}

/// Raises the generation from `known` to the next in state `closing`, unless
/// somebody did. Waits for open transactions of the old generation to end.
pub(super) async fn raise(
    client: &mut Object,
    known: Generation,
    reason: &str,
) -> Result<FenceRow, StoreError> {
    exclusively(
        client,
        "
        UPDATE freshet.fence
           SET generation = generation + 1, state = 'closing', changed_at = now(), reason = $2
         WHERE generation = $1 AND state = 'active'",
        &[&known.0, &reason],
    )
    .await
}

/// Raises the generation above `known` in state `closing`, whatever state it is in, unless it is
/// above: for a store that has lost its latest past.
pub(super) async fn void(
    client: &mut Object,
    known: Generation,
    reason: &str,
) -> Result<FenceRow, StoreError> {
    exclusively(
        client,
        "
        UPDATE freshet.fence
           SET generation = $1::bigint + 1, state = 'closing', changed_at = now(), reason = $2
         WHERE generation <= $1",
        &[&known.0, &reason],
    )
    .await
}

/// Whether the content of the generation before may still be somewhere to be hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldContent {
    /// Perhaps: each proxy must have given it up, or have lost its right by time.
    MayBeThere,
    /// It was deleted after the fence began to close.
    Gone,
}

/// Tells that proxy `id` obeys `generation`, and moves the fence from `closing` to `bypass` if nobody
/// can have hits of the old content any more: every living proxy has confirmed, or stood still for longer
/// than it uses hits, since nobody can renew that right in `closing`; and those that ended
/// without a word have been dead for so long; or that content is gone. The caller has seen the fence
/// closing since `waited` ago.
pub(super) async fn confirm(
    client: &mut Object,
    id: i32,
    generation: Generation,
    content: OldContent,
    waited: Duration,
) -> Result<FenceRow, StoreError> {
    client
        .execute(
            "UPDATE freshet.proxy SET confirmed = greatest(confirmed, $2) WHERE id = $1",
            &[&id, &generation.0],
        )
        .await?;
    let gone = content == OldContent::Gone;
    let waited_ms = waited.as_millis() as i64;
    // A row of a program that wrote no lease: it had the default, 30 s. A second for clocks that drift.
    exclusively(client, "
        UPDATE freshet.fence f
           SET state = 'bypass', changed_at = now()
         WHERE generation = $1 AND state = 'closing'
           AND ($2 OR NOT EXISTS (
               SELECT FROM freshet.proxy p WHERE p.confirmed < f.generation
                  AND $3 < coalesce(p.lease_ms, 30000) + 1000
                  AND (p.alive OR p.ended_at IS NULL OR
                       clock_timestamp() < p.ended_at + (coalesce(p.lease_ms, 30000) + 1000) * interval '1 ms')))",
        &[&generation.0, &gone, &waited_ms])
    .await
}

/// Sets `generation` active on this cache server.
pub(super) async fn activate(
    client: &mut Object,
    generation: Generation,
    run_id: &str,
    replication_id: &str,
) -> Result<FenceRow, StoreError> {
    exclusively(
        client,
        "
        UPDATE freshet.fence
           SET state = 'active', run_id = $2, replication_id = $3, changed_at = now(), reason = 'the cache is back'
         WHERE generation = $1 AND state = 'bypass'",
        &[&generation.0, &run_id, &replication_id],
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
    let sql = format!("SELECT {COLUMNS} FROM freshet.fence");
    let row = FenceRow::of(&transaction.query_one(&sql, &[]).await?)?;
    transaction.commit().await?;
    Ok(row)
}

/// Waits until no write transaction is open, and keeps new ones out until
/// `transaction` ends.
pub(super) async fn lock_exclusively(
    transaction: &deadpool_postgres::Transaction<'_>,
) -> Result<(), StoreError> {
    transaction.execute(LOCK, &[&FENCE_CLASS]).await?;
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
            "UPDATE freshet.proxy SET alive = false WHERE id = $1 AND alive",
            &[&id],
        )
        .await?;
    transaction.commit().await?;
    // From when on it is dead for all: it renews its right to hits no more. So the time is taken
    // after the mark is committed.
    client
        .execute(
            "UPDATE freshet.proxy SET ended_at = clock_timestamp() WHERE id = $1 AND NOT alive AND ended_at IS NULL",
            &[&id],
        )
        .await?;
    Ok(true)
}

/// Marks dead whoever of the registered is dead, so that the fence need not wait for it.
pub(super) async fn bury_the_dead(client: &mut Object, own: i32) -> Result<(), StoreError> {
    let rows = client
        .query(
            "SELECT id FROM freshet.proxy WHERE (alive OR ended_at IS NULL) AND id <> $1 ORDER BY id LIMIT 1000",
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

/// The right to bring the cache back, or to keep it out of use until an order is carried out: one
/// proxy has it at a time. It ends with its session.
pub struct Return {
    session: Option<Object>,
}

impl Return {
    /// Takes it, unless another proxy has it.
    pub(super) async fn take(session: Object) -> Result<Option<Self>, StoreError> {
        // If this is given up before the answer came, the session ends.
        let mut taken = Self {
            session: Some(session),
        };
        let Some(session) = &taken.session else {
            return Ok(None);
        };
        let row = session
            .query_one("SELECT pg_try_advisory_lock($1, 0)", &[&RETURN_CLASS])
            .await?;
        if row.try_get(0)? {
            return Ok(Some(taken));
        }
        drop(taken.session.take());
        Ok(None)
    }

    /// Whether its session has ended.
    pub fn is_lost(&self) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.is_closed())
    }

    /// Gives it to whoever wants it, and the connection back to the pool.
    pub async fn give_back(mut self, store: &Store) {
        let Some(session) = self.session.take() else {
            return;
        };
        let unlocking = async {
            session
                .execute("SELECT pg_advisory_unlock($1, 0)", &[&RETURN_CLASS])
                .await?;
            Ok(())
        };
        if store.bounded(unlocking).await.is_err() {
            // The lock ends with the session; it must not go back to the pool with it.
            drop(Object::take(session));
        }
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(Object::take(session));
        }
    }
}
