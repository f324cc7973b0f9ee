//! Stream commands with likely and unlikely arguments (see `commands` for the
//! pattern letters), and what of them tells the time.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::support::client::Value;

pub const PATTERNS: &[&str] = &[
    "XADD k j a v",
    "XADD k j a v a v",
    "XADD k 3-* a v",
    "XADD k 7-* a v",
    "XADD k 7-* F v",
    "XADD k 7-* F 1",
    "XADD k 7-* F 1",
    "XADD k NOMKSTREAM j a v ?a ?v",
    "XADD k * a v",
    "XADD k ?NOMKSTREAM MAXLEN n 7-* F v",
    "XADD k MAXLEN = n 7-* F v",
    "XADD k MAXLEN ~ n ?LIMIT ?n 7-* F v",
    "XADD k MAXLEN ~ 5 7-* F v",
    "XADD k MINID j ?NOMKSTREAM 7-* F v",
    "XADD k MINID ~ j 7-* F v",
    "XADD k MINID = j ?LIMIT ?i 7-* F v",
    "XADD k MAXLEN i ?MINID ?j 7-* F v",
    "XADD k w a v",
    "XADD k l a v",
    "XLEN k",
    "XRANGE k - +",
    "XRANGE k l l ?COUNT ?n",
    "XRANGE k j j COUNT n",
    "XRANGE k l l COUNT i ?w",
    "XREVRANGE k + -",
    "XREVRANGE k l l ?COUNT ?n",
    "XREVRANGE k l l COUNT i ?w",
    "XDEL k j *j",
    "XDEL k j j l",
    "XTRIM k MAXLEN n",
    "XTRIM k MAXLEN = n",
    "XTRIM k MAXLEN ~ n ?LIMIT ?n",
    "XTRIM k MINID j",
    "XTRIM k MINID ~ j ?LIMIT ?n",
    "XTRIM k MAXLEN i ?LIMIT ?i",
    "XTRIM k MINID l ?w",
    "XTRIM k LIMIT n ?w",
    "XSETID k j",
    "XSETID k l ?ENTRIESADDED ?i ?MAXDELETEDID ?j",
    "XSETID k 9-9 ENTRIESADDED n MAXDELETEDID j",
    "XSETID k 9-9 MAXDELETEDID l ?w",
    "XREAD ?COUNT ?n STREAMS k j",
    "XREAD COUNT n STREAMS k k j j",
    "XREAD COUNT 2 BLOCK 1 STREAMS k k l j",
    "XREAD BLOCK 1 STREAMS k $",
    "XREAD ?COUNT i STREAMS k l",
    "XREAD BLOCK x STREAMS k j",
    "XREAD ?NOACK ?GROUP ?q ?c STREAMS k >",
    "XREAD w n STREAMS k j",
    "XGROUP CREATE k q j ?MKSTREAM",
    "XGROUP CREATE k q $ MKSTREAM ?ENTRIESREAD n",
    "XGROUP CREATE k q 0 MKSTREAM",
    "XGROUP CREATE k q l ?MKSTREAM ?ENTRIESREAD ?i ?w",
    "XGROUP SETID k q j",
    "XGROUP SETID k q $ ?ENTRIESREAD ?n",
    "XGROUP SETID k q l ?ENTRIESREAD i ?w",
    "XGROUP DESTROY k q",
    "XGROUP CREATECONSUMER k q c",
    "XGROUP DELCONSUMER k q c",
    "XREADGROUP GROUP q c STREAMS k >",
    "XREADGROUP GROUP q c COUNT n STREAMS k >",
    "XREADGROUP GROUP q c COUNT 2 STREAMS k >",
    "XREADGROUP GROUP q c COUNT 1 ?NOACK STREAMS k >",
    "XREADGROUP GROUP q c COUNT 2 STREAMS k k > >",
    "XREADGROUP GROUP q c COUNT 2 STREAMS k k > 0",
    "XREADGROUP GROUP q c ?COUNT ?n STREAMS k j",
    "XREADGROUP GROUP q c ?NOACK ?BLOCK ?1 STREAMS k l",
    "XREADGROUP NOACK NOACK NOACK ?COUNT ?1 STREAMS k >",
    "XACK k q j *j",
    "XACK k q j j l",
    "XPENDING k q",
    "XPENDING k q - + n ?c",
    "XPENDING k q l l i ?c",
    "XPENDING k q IDLE 0 l l 10 ?c",
    "XPENDING k q IDLE 50000 - + 10 ?c ?w",
    "XPENDING k q IDLE -1 - +",
    "XPENDING k q w",
    "XCLAIM k q c 0 j *j",
    "XCLAIM k q c 0 j j ?FORCE ?JUSTID",
    "XCLAIM k q c 0 j j IDLE 100000 ?RETRYCOUNT ?n ?FORCE ?JUSTID",
    "XCLAIM k q c 50000 j j j ?FORCE ?JUSTID",
    "XCLAIM k q c 0 j ?FORCE TIME n ?RETRYCOUNT i ?LASTID ?j",
    "XCLAIM k q c i j ?IDLE ?x ?w",
    "XCLAIM k q c 0 l LASTID j ?FORCE",
    "XAUTOCLAIM k q c 0 0 ?COUNT ?n ?JUSTID",
    "XAUTOCLAIM k q c 0 j COUNT 1 ?JUSTID",
    "XAUTOCLAIM k q c 50000 - ?COUNT ?2",
    "XAUTOCLAIM k q c x l ?COUNT ?i ?w",
    "XINFO STREAM k",
    "XINFO STREAM k FULL",
    "XINFO STREAM k FULL COUNT n",
    "XINFO STREAM k w ?COUNT ?i",
    "XINFO GROUPS k",
    "XINFO CONSUMERS k q",
    "DEL k",
    "RENAME k k",
    "COPY k k REPLACE",
    "EXPIRE k 100000",
];

/// Ends of ranges, and what is no id at all.
pub const BOUNDS: &[&[u8]] = &[
    b"-",
    b"+",
    b"0",
    b"0-0",
    b"0-1",
    b"(1-1",
    b"(3",
    b"(7-1",
    b"(",
    b"(-",
    b"(0-0",
    b"3",
    b"7",
    b"6-18446744073709551615",
    b"18446744073709551615",
    b"18446744073709551615-18446744073709551615",
    b"18446744073709551616-0",
    b"(18446744073709551615-18446744073709551615",
    b"*",
    b"5-*",
    b"$",
    b">",
    b"-1",
    b"1--1",
    b" 2-01",
    b"1-1-1",
    b"x",
    b"",
    b"2-1\x00x",
];

pub const GROUPS: &[&[u8]] = &[b"g1", b"g1", b"g1", b"g2", b"\x00\r\n", b""];

pub const CONSUMERS: &[&[u8]] = &[b"c1", b"c1", b"c2", b"c2", b"\xff\r\n", b""];

/// An id that an entry may well have; now and then any other.
pub fn id(random: &mut StdRng) -> Vec<u8> {
    let (ms, seq) = match random.random_range(0..20) {
        0 => return BOUNDS.choose(random).expect("not empty").to_vec(),
        1 => return b"4".to_vec(),
        2..=10 => (7, random.random_range(0..12)),
        _ => (random.random_range(1..6), random.random_range(0..3)),
    };
    format!("{ms}-{seq}").into_bytes()
}

/// What makes Redis do the same as the engine did: `XADD` with the id that was
/// made from the time.
pub fn as_repeated(name: &str, arguments: &[Vec<u8>], reply: &Value) -> Vec<Vec<u8>> {
    let mut sent = arguments.to_vec();
    let ("XADD", Value::Bulk(id)) = (name, reply) else {
        return sent;
    };
    let mut index = 2;
    while index < sent.len() {
        index += match sent[index].to_ascii_uppercase().as_slice() {
            b"NOMKSTREAM" => 1,
            b"MAXLEN" | b"MINID" if matches!(&sent[index + 1][..], b"~" | b"=") => 3,
            b"MAXLEN" | b"MINID" | b"LIMIT" => 2,
            b"*" => {
                sent[index] = id.clone();
                break;
            }
            _ => break,
        };
    }
    sent
}

/// How far the two clocks may be apart.
const TOLERANCE_MS: i64 = 2_000;

/// Whether two encoded replies are equal but for times, which are Redis's and ours.
pub fn equal_but_for_times(name: &str, ours: &[u8], theirs: &[u8]) -> bool {
    let tells_times = matches!(name, "XPENDING" | "XINFO|STREAM" | "XINFO|CONSUMERS");
    tells_times && are_close(ours, theirs)
}

/// A time stands before the number of deliveries. The numbers behind the names in [`OPEN`] do not matter.
pub fn are_close(ours: &[u8], theirs: &[u8]) -> bool {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
            .collect()
    };
    let number = |line: &[u8]| -> Option<i64> {
        let digits = line.strip_prefix(b":")?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let is_close = |index: usize| {
        let before = index.checked_sub(1).map_or(&b""[..], |i| &ours[i]);
        let is_time = matches!(before, b"seen-time" | b"idle")
            || ours
                .get(index + 1)
                .is_some_and(|next| number(next).is_some());
        match (number(&ours[index]), number(&theirs[index])) {
            (Some(_), Some(_)) if OPEN.contains(&before) => true,
            (Some(one), Some(other)) => is_time && one.abs_diff(other) < TOLERANCE_MS as u64,
            _ => false,
        }
    };
    ours.len() == theirs.len()
        && (0..ours.len()).all(|index| ours[index] == theirs[index] || is_close(index))
}

/// In which blocks entries stand is Redis's own business: there a trim can leave
/// an empty block behind, and one that was not full is filled up later. When a
/// consumer was seen, Redis also notes as it reads in vain; the engine writes
/// nothing then.
const OPEN: &[&[u8]] = &[
    b"radix-tree-keys",
    b"radix-tree-nodes",
    b"seen-time",
    b"idle",
];
