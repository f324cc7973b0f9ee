//! What of a stream counts when two are compared.

use super::entry;
use super::id::Id;
use super::state::{self, Header};
use crate::model::{Collection, NotLoaded};

/// Tells `add` of each part in order; see `engine::digest`.
///
/// # Errors
/// Unless everything is known.
pub(in crate::engine) fn add_to_digest(
    stream: &Collection,
    add: &mut dyn FnMut(&[u8]),
) -> Result<(), NotLoaded> {
    let header = Header::of(stream);
    add(&header.last.to_bytes());
    add(&header.max_deleted.to_bytes());
    add(&header.added.to_le_bytes());
    for (id, element) in state::entries_from(stream, Id::MIN, usize::MAX)? {
        add(&id.to_bytes());
        let pairs = entry::decode(element);
        add(&pairs.len().to_le_bytes());
        pairs.iter().for_each(|part| add(part));
    }
    for (name, group) in state::groups(stream)? {
        add(b"group");
        add(&name);
        add(&group.last.to_bytes());
        for (id, held) in state::pending(stream, &name)? {
            add(&id.to_bytes());
            add(&held.count.to_le_bytes());
            add(&held.consumer);
        }
        for (consumer, _) in state::consumers(stream, &name)? {
            add(b"consumer");
            add(&consumer);
        }
    }
    Ok(())
}
