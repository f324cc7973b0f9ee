//! What a call must know of the one key that is its first argument.

use bytes::Bytes;

use super::{Need, Needs};
use crate::command::Call;
use crate::model::{Db, Key};

fn needing(call: &Call, db: Db, need: Need) -> Needs {
    let key = Key::new(db, call.request.arg_bytes(1));
    Needs::from_iter([(key, need)])
}

/// Its size and type.
pub(super) fn header(call: &Call, db: Db) -> Needs {
    needing(call, db, Need::header())
}

/// All of it.
pub(super) fn whole(call: &Call, db: Db) -> Needs {
    needing(call, db, Need::value())
}

/// The element that the second argument names.
pub(super) fn element(call: &Call, db: Db) -> Needs {
    needing(call, db, Need::fields([call.request.arg_bytes(2)]))
}

/// The elements that all other arguments name.
pub(super) fn elements(call: &Call, db: Db) -> Needs {
    needing(call, db, Need::fields(arguments(call, 1)))
}

/// The elements that every other argument names, from the second on.
pub(super) fn elements_of_pairs(call: &Call, db: Db) -> Needs {
    needing(call, db, Need::fields(arguments(call, 2)))
}

/// So many elements at random as `count` says of the call.
pub(super) fn random(call: &Call, db: Db, count: u64) -> Needs {
    needing(call, db, Need::random(count))
}

fn arguments(call: &Call, step: usize) -> impl Iterator<Item = Bytes> + '_ {
    let indices = (2..call.request.len()).step_by(step);
    indices.map(|index| call.request.arg_bytes(index))
}
