//! Pure semantics: (what was loaded, call, time) -> (reply, effects).
//!
//! No socket, no clock, no database: single commands, MULTI blocks and scripts
//! run on the same [`Workspace`], which gathers what they did to each key.

mod workspace;

pub use workspace::{Content, Loaded, Workspace};

use smallvec::SmallVec;

use crate::command::Call;
use crate::model::{Db, Key, Reply, UnixMs};

/// What a call must know of a key before it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Whether it is there, its type, version and expiry.
    Header,
    /// All that, and its value.
    Value,
}

/// What `call` must have loaded into the workspace; nothing for a blind write
/// (a plain `SET`), whose outcome does not depend on what was there.
pub fn needs(call: &Call, db: Db) -> SmallVec<[(Key, Need); 2]> {
    let _ = (call, db);
    SmallVec::new()
}

/// Runs `call` in `db` at `now` on what `workspace` holds, and leaves its
/// effects there. An error reply leaves the workspace as it was.
pub fn execute(call: &Call, db: Db, workspace: &mut Workspace, now: UnixMs) -> Reply {
    let _ = (call, db, workspace, now);
    Reply::OK
}
