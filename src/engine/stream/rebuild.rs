//! A whole stream as commands, as Redis itself writes one into its append-only file.

use bytes::Bytes;

use super::entry;
use super::id::Id;
use super::state::{self, Group, Header, Pending};
use super::words;
use crate::model::{CacheCommand, Collection, NotLoaded};

/// The commands that make the stream in a cache where the key is not there.
///
/// # Errors
/// Unless the whole stream is known; and if more entries were ever added, or read by a group, than
/// `XSETID` and `XGROUP` can say: beyond that Redis itself only counts.
pub fn rebuild(stream: &Collection) -> Result<Vec<CacheCommand>, NotLoaded> {
    let header = Header::of(stream);
    let groups = state::groups(stream)?;
    let mut counts = groups.iter().filter_map(|(_, group)| group.read);
    if counts.any(is_beyond_commands) || is_beyond_commands(header.added) {
        return Err(NotLoaded);
    }
    let mut live = Vec::new();
    let mut gone = Vec::new();
    for (name, _) in &groups {
        for (id, held) in state::pending(stream, name)? {
            let is_live = stream.get(&id.field())?.is_some();
            let list = if is_live { &mut live } else { &mut gone };
            list.push((name.clone(), id, held));
        }
    }
    let create = groups.iter().map(|(name, group)| create(name, group));
    let mut commands = Vec::new();
    if !gone.is_empty() {
        commands.extend(entries_for(&gone));
        commands.extend(create.clone());
        commands.extend(gone.iter().map(|(group, id, held)| claim(group, *id, held)));
        commands.push(words(&["XTRIM", "MAXLEN", "=", "0"]));
        commands.push(words(&["XSETID", "0-0"]));
    }
    commands.extend(entries(stream)?);
    if commands.is_empty() {
        // An entry makes the key, and goes at once.
        commands.push(words(&["XADD", "MAXLEN", "=", "0", "0-1", "f", "v"]));
    }
    commands.extend(bounds(&header));
    if gone.is_empty() {
        commands.extend(create);
    }
    for (name, _) in &groups {
        for (consumer, _) in state::consumers(stream, name)? {
            let mut command = words(&["XGROUP", "CREATECONSUMER"]);
            command.extend([name.clone(), consumer]);
            commands.push(command);
        }
    }
    commands.extend(live.iter().map(|(group, id, held)| claim(group, *id, held)));
    Ok(commands)
}

/// Redis reads these counts as signed numbers, and refuses negative ones.
fn is_beyond_commands(count: u64) -> bool {
    i64::try_from(count).is_err()
}

fn entries(stream: &Collection) -> Result<Vec<CacheCommand>, NotLoaded> {
    let all = state::entries_from(stream, Id::MIN, usize::MAX)?;
    let commands = all.into_iter().map(|(id, element)| {
        let pairs = entry::decode(element);
        [words(&["XADD"]), vec![id.text()], pairs].concat()
    });
    Ok(commands.collect())
}

/// An entry that is pending can be claimed only while it is there. For those
/// that are gone others stand in, which then go by a trim: that leaves no trace
/// in the stream's header, as `XDEL` would.
fn entries_for(gone: &[(Bytes, Id, Pending)]) -> Vec<CacheCommand> {
    let mut ids: Vec<Id> = gone.iter().map(|(_, id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    let stand_in = words(&["f", "v"]);
    ids.into_iter()
        .map(|id| [words(&["XADD"]), vec![id.text()], stand_in.clone()].concat())
        .collect()
}

/// Redis refuses a last id below the highest deleted one only where both are
/// given together.
fn bounds(header: &Header) -> Vec<CacheCommand> {
    let highest = header.last.max(header.max_deleted);
    let mut commands = vec![set_id(
        highest,
        Some(header.added),
        Some(header.max_deleted),
    )];
    if highest > header.last {
        commands.push(set_id(header.last, None, None));
    }
    commands
}

/// `XSETID`.
pub(super) fn set_id(last: Id, added: Option<u64>, max_deleted: Option<Id>) -> CacheCommand {
    let mut command = words(&["XSETID"]);
    command.push(last.text());
    if let Some(added) = added {
        command.extend(words(&["ENTRIESADDED"]));
        command.push(Bytes::from(added.to_string()));
    }
    if let Some(max_deleted) = max_deleted {
        command.extend(words(&["MAXDELETEDID"]));
        command.push(max_deleted.text());
    }
    command
}

/// `XGROUP CREATE`.
pub(super) fn create(name: &Bytes, group: &Group) -> CacheCommand {
    group_command("CREATE", name, group)
}

/// `XGROUP SETID`.
pub(super) fn set_group_id(name: &Bytes, group: &Group) -> CacheCommand {
    group_command("SETID", name, group)
}

fn group_command(word: &'static str, name: &Bytes, group: &Group) -> CacheCommand {
    let mut command = words(&["XGROUP", word]);
    let read = group.read.map_or("-1".to_owned(), |read| read.to_string());
    command.extend([name.clone(), group.last.text()]);
    command.extend(words(&["ENTRIESREAD"]));
    command.push(Bytes::from(read));
    command
}

fn claim(group: &Bytes, id: Id, held: &Pending) -> CacheCommand {
    let mut command = claim_begin(group, &held.consumer);
    command.push(id.text());
    command.extend(claim_end(held.delivered, held.count));
    command
}

/// `XCLAIM` up to the ids.
pub(super) fn claim_begin(group: &Bytes, consumer: &Bytes) -> CacheCommand {
    let mut command = words(&["XCLAIM"]);
    command.extend([group.clone(), consumer.clone(), Bytes::from_static(b"0")]);
    command
}

/// What stands behind the ids of an `XCLAIM` that gives them just this state.
pub(super) fn claim_end(delivered: i64, count: u64) -> CacheCommand {
    let mut command = words(&["TIME"]);
    command.push(Bytes::from(delivered.to_string()));
    command.extend(words(&["RETRYCOUNT"]));
    command.push(Bytes::from(count.to_string()));
    command.extend(words(&["FORCE", "JUSTID"]));
    command
}
