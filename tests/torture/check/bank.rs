//! A bank: transfers between accounts, each with a number of its own. No sum is ever lost or found.

use std::collections::BTreeMap;

use super::Verdict;
use super::ordered::{Placed, check_places};
use crate::torture::history::{Ask, Operation, Told};

type Balances = Vec<i64>;

/// What is known of the transfer with a number.
#[derive(Clone, Copy)]
struct Known<'a> {
    operation: &'a Operation,
    from: usize,
    to: usize,
    amount: i64,
    after: (i64, i64),
}

/// Whether `accounts` accounts, all 0 at first, were changed by transfers only: numbered without gap
/// or double (as a counter is), every reader saw balances whose sum is 0 and that the transfers up to the number
/// it saw explain.
///
/// Exact but for one thing: where two or more transfers of unknown outcome lie between two readers, what
/// they moved together is not looked for among them.
pub fn check(operations: &[&Operation], accounts: usize) -> Verdict {
    let mut placed = Vec::new();
    let mut unknown = Vec::new();
    let mut transfers: BTreeMap<u64, Known<'_>> = BTreeMap::new();
    let mut seen: BTreeMap<u64, (Balances, &Operation)> = BTreeMap::new();
    for &one in operations {
        let number = match (&one.ask, &one.told) {
            (_, Told::Refused(_)) | (Ask::Read, Told::Unknown(_)) => continue,
            (Ask::Transfer(..), Told::Unknown(_)) => {
                unknown.push(one);
                continue;
            }
            (Ask::Transfer(from, to, amount), Told::Balances(number, after))
                if after.len() == 2 =>
            {
                let known = Known {
                    operation: one,
                    from: *from,
                    to: *to,
                    amount: *amount,
                    after: (after[0], after[1]),
                };
                transfers.insert(*number, known);
                *number
            }
            (Ask::Read, Told::Balances(number, all)) if all.len() == accounts => {
                note_reading(&mut seen, *number, all, one)?;
                *number
            }
            _ => return Err(format!("no answer of a bank: {one:?}")),
        };
        placed.push(Placed {
            place: number,
            is_change: matches!(one.ask, Ask::Transfer(..)),
            sent: one.sent,
            over: one.over,
        });
    }
    check_places(placed, unknown.iter().map(|one| one.sent).collect())?;
    replay(accounts, &transfers, &seen, unknown)
}

fn note_reading<'a>(
    seen: &mut BTreeMap<u64, (Balances, &'a Operation)>,
    number: u64,
    all: &Balances,
    reader: &'a Operation,
) -> Verdict {
    if all.iter().sum::<i64>() != 0 {
        return Err(format!("the sum is not 0: {reader:?}"));
    }
    match seen.insert(number, (all.clone(), reader)) {
        Some((other, earlier)) if other != *all => Err(format!(
            "two readers saw different balances after the same transfer: {earlier:?}, {reader:?}"
        )),
        _ => Ok(()),
    }
}

fn replay(
    accounts: usize,
    transfers: &BTreeMap<u64, Known<'_>>,
    seen: &BTreeMap<u64, (Balances, &Operation)>,
    mut unknown: Vec<&Operation>,
) -> Verdict {
    let most = transfers.keys().chain(seen.keys()).max().copied();
    let mut balances = vec![0; accounts];
    // Transfers that nobody was told of, since all balances were certain.
    let mut untold = 0;
    for number in 0..=most.unwrap_or(0) {
        match transfers.get(&number) {
            Some(known) => {
                balances[known.from] -= known.amount;
                balances[known.to] += known.amount;
                let after = (balances[known.from], balances[known.to]);
                if untold == 0 && after != known.after {
                    return Err(format!(
                        "told {:?} instead of {after:?}: {:?}",
                        known.after, known.operation
                    ));
                }
            }
            None if number > 0 => untold += 1,
            None => {}
        }
        let Some((all, reader)) = seen.get(&number) else {
            continue;
        };
        let moved: Balances = all.iter().zip(&balances).map(|(a, b)| a - b).collect();
        match untold {
            0 if moved.iter().any(|amount| *amount != 0) => {
                return Err(format!("{balances:?} are the balances, but: {reader:?}"));
            }
            1 => take_unknown(&mut unknown, &moved)
                .map_err(|()| format!("nobody moved {moved:?} before {reader:?}"))?,
            _ => {}
        }
        balances.clone_from(all);
        untold = 0;
    }
    Ok(())
}

/// Uses up the unknown transfer that moved this.
fn take_unknown(unknown: &mut Vec<&Operation>, moved: &[i64]) -> Result<(), ()> {
    let index = unknown.iter().position(|one| {
        let Ask::Transfer(from, to, amount) = one.ask else {
            return false;
        };
        let mut would = vec![0; moved.len()];
        would[from] -= amount;
        would[to] += amount;
        would == moved
    });
    unknown.swap_remove(index.ok_or(())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::check::hand_made::{operation, refused, unknown};
    use crate::torture::history::Time;

    fn verdict(operations: Vec<Operation>) -> Verdict {
        check(&operations.iter().collect::<Vec<_>>(), 3)
    }

    fn transfer(
        time: Time,
        (from, to, amount): (usize, usize, i64),
        number: u64,
        after: [i64; 2],
    ) -> Operation {
        let told = Told::Balances(number, after.to_vec());
        operation(time, time + 1, Ask::Transfer(from, to, amount), told)
    }

    fn all(time: Time, number: u64, balances: [i64; 3]) -> Operation {
        operation(
            time,
            time + 1,
            Ask::Read,
            Told::Balances(number, balances.to_vec()),
        )
    }

    #[test]
    fn transfers_that_add_up_pass() {
        verdict(vec![
            all(0, 0, [0, 0, 0]),
            transfer(2, (0, 1, 5), 1, [-5, 5]),
            unknown(transfer(4, (1, 2, 3), 0, [0, 0])),
            all(6, 2, [-5, 2, 3]),
            transfer(8, (2, 0, 1), 3, [2, -4]),
            all(10, 3, [-4, 2, 2]),
        ])
        .unwrap();
        verdict(vec![
            unknown(transfer(1, (0, 1, 5), 0, [0, 0])),
            refused(transfer(1, (0, 1, 5), 0, [0, 0])),
            all(6, 0, [0, 0, 0]),
        ])
        .unwrap();
    }

    #[test]
    fn torn_lost_and_doubled_transfers_fail() {
        let first = || transfer(2, (0, 1, 5), 1, [-5, 5]);
        verdict(vec![first(), all(4, 1, [-5, 0, 0])]).unwrap_err();
        verdict(vec![first(), all(4, 1, [0, 0, 0])]).unwrap_err();
        verdict(vec![first(), all(4, 0, [0, 0, 0])]).unwrap_err();
        verdict(vec![first(), all(4, 1, [-10, 10, 0])]).unwrap_err();
        verdict(vec![first(), all(4, 2, [-10, 10, 0])]).unwrap_err();
        verdict(vec![first(), transfer(4, (0, 1, 1), 2, [-1, 1])]).unwrap_err();
        verdict(vec![
            unknown(transfer(2, (0, 1, 5), 1, [0, 0])),
            all(4, 1, [-6, 6, 0]),
        ])
        .unwrap_err();
        verdict(vec![
            unknown(transfer(2, (0, 1, 5), 1, [0, 0])),
            all(4, 2, [-10, 10, 0]),
        ])
        .unwrap_err();
    }
}
