//! An element that is there from the beginning of a scan to its end is returned, whatever
//! happens to the cache between two calls.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::support::{Client, Stack, Value, process};

/// What is there throughout.
const KEPT: usize = 600;
const LIMIT: Duration = Duration::from_secs(20);
/// No scan takes more calls.
const CALLS_MAX: usize = 2_000;

/// All that a scan returns; `disturb` is called between two calls with their number.
fn scan(
    client: &mut Client,
    head: &[&str],
    mut disturb: impl FnMut(usize) -> Result<()>,
) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    for calls in 0..CALLS_MAX {
        let command = [head, &[&cursor, "COUNT", "60"]].concat();
        let reply = client.ok(&command)?;
        let [next, page] = reply.items() else {
            bail!("{head:?} replied {reply:?}");
        };
        found.extend(page.items().iter().filter_map(Value::text));
        cursor = next.text().unwrap_or_default();
        if cursor == "0" {
            return Ok(found);
        }
        disturb(calls)?;
    }
    bail!("{head:?} does not end")
}

fn words(line: &str, number: usize) -> Vec<String> {
    let number = number.to_string();
    line.split(' ')
        .map(|word| word.replace('N', &number))
        .collect()
}

fn write_all(client: &mut Client, line: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    let commands: Vec<Vec<String>> = numbers.map(|number| words(line, number)).collect();
    client.pipeline(&commands)?;
    Ok(())
}

/// Loses the cache, or the key in it, or has the key grow or shrink so far that Redis
/// makes its table anew.
fn disturb(stack: &Stack, calls: usize, add: &str, remove: &str) -> Result<()> {
    let mut client = stack.client()?;
    let mut cache = stack.cache.client()?;
    match calls % 5 {
        0 => write_all(&mut client, add, KEPT..3 * KEPT)?,
        1 => drop(cache.ok(&["DEL", "k"])?),
        2 => write_all(&mut client, remove, KEPT..3 * KEPT)?,
        3 => drop(cache.ok(&["FUNCTION", "FLUSH"])?),
        _ => drop(cache.ok(&["FLUSHALL"])?),
    }
    Ok(())
}

/// Waits until `k` is in the cache again: else the store answers, with all at once.
fn refilled(stack: &Stack) -> Result<()> {
    let mut client = stack.client()?;
    let mut cache = stack.cache.client()?;
    process::await_true("k is in the cache", LIMIT, || {
        client.text(&["TYPE", "k"]).is_ok() && cache.integer(&["EXISTS", "k"]).is_ok_and(|n| n == 1)
    })
}

#[test]
fn scan_of_a_key_returns_what_is_there_throughout() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for (name, add, remove) in [
        ("HSCAN", "HSET k member:N value", "HDEL k member:N"),
        ("SSCAN", "SADD k member:N", "SREM k member:N"),
        ("ZSCAN", "ZADD k N member:N", "ZREM k member:N"),
    ] {
        client.ok(&["DEL", "k"]).unwrap();
        write_all(&mut client, add, 0..KEPT).unwrap();
        let mut disturbed = 0;
        let found = scan(&mut client, &[name, "k"], |number| {
            disturbed = number + 1;
            disturb(&stack, number, add, remove)?;
            refilled(&stack)
        })
        .unwrap();
        assert!(disturbed > 0, "{name} was not disturbed");
        for number in 0..KEPT {
            let member = format!("member:{number}");
            assert!(found.contains(&member), "{name} lost {member}");
        }
    }
}

/// Few elements are returned at once, many not, and the one may become the other.
#[test]
fn scan_of_a_key_that_becomes_small_or_large_returns_what_is_there_throughout() {
    for (before, limit) in [(600, "100000"), (600, "500"), (300, "200")] {
        let stack = Stack::start_with(&[("cache.fill_elements", limit)], &[]).unwrap();
        let mut client = stack.client().unwrap();
        write_all(&mut client, "SADD k member:N", 0..before).unwrap();
        let found = scan(&mut client, &["SSCAN", "k"], |number| {
            let mut client = stack.client()?;
            if number == 1 {
                write_all(&mut client, "SREM k member:N", 20..before)?;
                stack.cache.client()?.ok(&["FLUSHALL"])?;
            }
            Ok(())
        })
        .unwrap();
        for number in 0..20 {
            assert!(found.contains(&format!("member:{number}")), "{number}");
        }
    }
}

#[test]
fn scan_of_all_keys_returns_what_is_there_throughout() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    write_all(&mut client, "SET key:N value", 0..KEPT).unwrap();
    let found = scan(&mut client, &["SCAN"], |number| {
        disturb(&stack, number, "SET key:N value", "DEL key:N")
    })
    .unwrap();
    for number in 0..KEPT {
        let key = format!("key:{number}");
        assert!(found.contains(&key), "SCAN lost {key}");
    }
}
