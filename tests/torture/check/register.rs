//! Registers: every value is written once, and read any number of times.
//!
//! The algorithm is that of Gibbons and Korach ("Testing Shared Memories", SIAM J. Comput. 26,
//! 1997, section 4), which is exact when no value is written twice. All operations on a value
//! form a *zone*, from the first end among them to the last beginning. If the zone goes
//! forward, the register held the value all that time; if backward, all operations overlap, and one
//! moment in it suffices. A history is linearizable if nothing is read before it is written, no two
//! forward zones overlap, and no backward zone lies within a forward one.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::torture::history::{Ask, NEVER, Operation, Time, Token, Told};

#[derive(Clone, Copy, Debug)]
struct Zone {
    value: Option<Token>,
    /// When the write was sent.
    written: Time,
    first_end: Time,
    last_beginning: Time,
}

impl Zone {
    fn is_forward(&self) -> bool {
        self.first_end < self.last_beginning
    }
}

/// Whether writes and reads of a register that was absent at first can be put in order. A
/// swap is not for registers: it reads one value and writes another.
pub fn check(operations: &[&Operation]) -> Verdict {
    let mut zones = written_values(operations)?;
    let mut seen = BTreeSet::new();
    for read in operations.iter().filter(|one| one.ask == Ask::Read) {
        let value = match &read.told {
            Told::Value(value) => *value,
            Told::Unknown(_) | Told::Refused(_) => continue,
            other => return Err(format!("a read was told {other:?}: {read:?}")),
        };
        let Some(zone) = zones.get_mut(&value) else {
            return Err(format!("nobody wrote what was read: {read:?}"));
        };
        if read.over < zone.written {
            return Err(format!("read before it was written: {read:?}"));
        }
        seen.insert(value);
        zone.first_end = zone.first_end.min(read.over);
        zone.last_beginning = zone.last_beginning.max(read.sent);
    }
    // A write of unknown outcome that nobody has seen may as well not have happened.
    zones.retain(|value, zone| zone.first_end != NEVER || seen.contains(value));
    compare(zones.into_values().collect())
}

fn written_values(operations: &[&Operation]) -> Result<BTreeMap<Option<Token>, Zone>, String> {
    let mut zones = BTreeMap::new();
    // At the beginning of time the register was found absent.
    zones.insert(
        None,
        Zone {
            value: None,
            written: 0,
            first_end: 0,
            last_beginning: 0,
        },
    );
    for write in operations {
        let Ask::Write(token) = write.ask else {
            continue;
        };
        match &write.told {
            Told::Refused(_) => continue,
            Told::Done | Told::Unknown(_) => {}
            other => return Err(format!("a write was told {other:?}: {write:?}")),
        }
        let zone = Zone {
            value: Some(token),
            written: write.sent,
            first_end: write.over,
            last_beginning: write.sent,
        };
        zones.insert(Some(token), zone);
    }
    Ok(zones)
}

fn compare(zones: Vec<Zone>) -> Verdict {
    let (mut forward, backward): (Vec<Zone>, Vec<Zone>) =
        zones.into_iter().partition(Zone::is_forward);
    forward.sort_by_key(|zone| zone.first_end);
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_beginning {
            return Err(format!(
                "{:?} was there until {} at least, and {:?} from {} to {}",
                pair[0].value,
                pair[0].last_beginning,
                pair[1].value,
                pair[1].first_end,
                pair[1].last_beginning
            ));
        }
    }
    for inner in backward {
        // Backward zones go from the last beginning to the first end.
        let (from, to) = (inner.last_beginning, inner.first_end);
        let before = forward.partition_point(|zone| zone.first_end < from);
        if let Some(outer) = before.checked_sub(1).map(|index| forward[index])
            && to < outer.last_beginning
        {
            return Err(format!(
                "{:?} was there between {from} and {to}, though {:?} was from {} to {}",
                inner.value, outer.value, outer.first_end, outer.last_beginning
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::check::hand_made::{read, refused, unknown, write};

    fn verdict(operations: Vec<Operation>) -> Verdict {
        check(&operations.iter().collect::<Vec<_>>())
    }

    #[test]
    fn orders_that_exist_are_found() {
        verdict(vec![]).unwrap();
        verdict(vec![read(1, 2, None), write(3, 5, 1), read(4, 6, None)]).unwrap();
        verdict(vec![
            write(1, 10, 1),
            write(2, 9, 2),
            read(3, 4, Some(1)),
            read(5, 6, Some(2)),
        ])
        .unwrap();
        // Unknown, and seen long after.
        verdict(vec![
            unknown(write(1, 2, 1)),
            write(3, 4, 2),
            read(5, 6, Some(2)),
            read(7, 8, Some(1)),
        ])
        .unwrap();
        // Unknown, and never seen.
        verdict(vec![
            write(1, 2, 1),
            unknown(write(3, 4, 2)),
            read(5, 6, Some(1)),
        ])
        .unwrap();
        verdict(vec![refused(write(1, 2, 1)), read(3, 4, None)]).unwrap();
    }

    #[test]
    fn stale_reads_are_found() {
        verdict(vec![write(1, 2, 1), read(3, 4, None)]).unwrap_err();
        verdict(vec![write(1, 2, 1), write(3, 4, 2), read(5, 6, Some(1))]).unwrap_err();
        // Each alone is within the write; together one goes back.
        verdict(vec![
            write(1, 2, 1),
            write(3, 20, 2),
            read(5, 6, Some(2)),
            read(7, 8, Some(1)),
        ])
        .unwrap_err();
        // There and back again.
        verdict(vec![
            write(1, 10, 1),
            write(1, 10, 2),
            read(2, 3, Some(1)),
            read(4, 5, Some(2)),
            read(6, 7, Some(1)),
        ])
        .unwrap_err();
        // An unknown write that was seen, overwritten and seen again.
        verdict(vec![
            unknown(write(1, 2, 1)),
            read(3, 4, Some(1)),
            write(5, 6, 2),
            read(7, 8, Some(1)),
        ])
        .unwrap_err();
    }

    #[test]
    fn lost_and_invented_values_are_found() {
        verdict(vec![read(1, 2, Some(1)), write(3, 4, 1)]).unwrap_err();
        verdict(vec![read(1, 2, Some(7))]).unwrap_err();
        verdict(vec![refused(write(1, 2, 1)), read(3, 4, Some(1))]).unwrap_err();
        verdict(vec![write(1, 2, 1), write(3, 4, 2), read(5, 6, None)]).unwrap_err();
    }
}
