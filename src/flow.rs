//! One command's story: class -> route -> strategy. Read this first.

use bytes::BytesMut;

use crate::command::Call;
use crate::model::{Db, Protocol, Reply};

/// What the data path must know of the connection that a call came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The selected database.
    pub db: Db,
    /// The protocol in which replies are encoded.
    pub protocol: Protocol,
}

/// How the data path stands, for `INFO` and the admin address.
#[derive(Clone, Debug)]
pub struct Status {
    /// The generation of the cache that this proxy last knew.
    pub generation: i64,
    /// `active`, `closing` or `bypass`.
    pub cache_state: &'static str,
    /// Whether the store answered last time.
    pub store_reachable: bool,
    /// Units waiting for or in a commit lane.
    pub units_in_flight: usize,
}

/// One database's line in `INFO keyspace`.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseSize {
    /// The database.
    pub db: Db,
    /// Its live keys.
    pub keys: i64,
    /// Those of them with an expiry.
    pub expires: i64,
}

/// The data path, shared by all connections; a clone is a handle to the same.
#[derive(Clone)]
pub struct Flow {}

impl Flow {
    /// Runs the data commands of one connection in order (all classes but
    /// `Local` and `Unserved`) and appends their encoded replies to `out`,
    /// one each, in the same order.
    ///
    /// Reads start after the calls before them were answered, and so do
    /// writes after reads: a connection sees its own writes, and none early.
    pub async fn run(&self, origin: Origin, calls: &[Call], out: &mut BytesMut) {
        let _ = (origin, calls, out);
    }

    /// How the data path stands now.
    pub fn status(&self) -> Status {
        Status {
            generation: 0,
            cache_state: "active",
            store_reachable: true,
            units_in_flight: 0,
        }
    }

    /// The databases that have keys, counted by the store; an error reply if it is away.
    pub async fn database_sizes(&self) -> Result<Vec<DatabaseSize>, Reply> {
        Ok(Vec::new())
    }
}
