//! An element that is there from the beginning of a scan to its end is returned, whatever
//! happens to the cache between two calls.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::support::stack::FRESHET;
use crate::support::{Client, Program, Stack, Value, process};

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

/// A key that the cache does not take is told in pages, each from where the last one ended, by
/// whichever proxy is asked; and so it goes on if the cache takes the key meanwhile.
#[test]
fn scan_of_a_key_that_is_not_in_the_cache_is_told_in_pages() {
    const ELEMENTS: usize = 3_000;
    // COUNT is 60; fewer than 100 elements are not worth a step.
    const PAGE: usize = 100;
    let settings = [("cache.fill_elements", "1000")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let other = Program::start(FRESHET, &stack.database, &stack.cache.url(), &settings).unwrap();
    for (name, add, remove, width) in [
        ("HSCAN", "HSET k member:N value", "HDEL k member:N", 2),
        ("SSCAN", "SADD k member:N", "SREM k member:N", 1),
        ("ZSCAN", "ZADD k N member:N", "ZREM k member:N", 2),
    ] {
        let mut clients = [stack.client().unwrap(), other.client().unwrap()];
        clients[0].ok(&["DEL", "k"]).unwrap();
        write_all(&mut clients[0], add, 0..ELEMENTS).unwrap();
        let long = format!("member:{}", "x".repeat(3_000));
        write_all(&mut clients[0], &add.replace("member:N", &long), 0..1).unwrap();
        let (mut found, mut cursor, mut calls) = (BTreeSet::new(), "0".to_owned(), 0);
        loop {
            let command = [name, "k", &cursor, "COUNT", "60"];
            let reply = clients[calls % 2].ok(&command).unwrap();
            let [next, page] = reply.items() else {
                panic!("{name} replied {reply:?}");
            };
            assert!(page.items().len() <= width * PAGE, "{}", page.items().len());
            found.extend(page.items().iter().filter_map(Value::text));
            cursor = next.text().unwrap();
            calls += 1;
            if cursor == "0" {
                break;
            }
            // Within what JavaScript's numbers tell apart.
            assert!(cursor.parse::<u64>().unwrap() < 1 << 53, "{cursor}");
            match calls {
                5 => write_all(&mut clients[0], add, ELEMENTS..ELEMENTS + 500).unwrap(),
                // From here on the cache takes it.
                10 => {
                    write_all(&mut clients[0], remove, KEPT..ELEMENTS + 500).unwrap();
                    refilled(&stack).unwrap();
                }
                _ => {}
            }
        }
        assert!(calls > 10, "{name} told all in {calls} calls");
        let kept = (0..KEPT).map(|number| format!("member:{number}"));
        for member in kept.chain([long]) {
            assert!(found.contains(&member), "{name} lost {member}");
        }
    }
}

/// Nothing is left out of a scan whose cursor nobody knows any more, and nothing is refused.
#[test]
fn scan_with_a_cursor_that_is_forgotten_begins_anew() {
    let stack = Stack::start_with(&[("cache.fill_elements", "10")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    write_all(&mut client, "HSET k member:N value", 0..KEPT).unwrap();
    stack
        .sql()
        .unwrap()
        .execute("TRUNCATE freshet.scan")
        .unwrap();
    let first = client.ok(&["HSCAN", "k", "0"]).unwrap();
    for cursor in ["4503599627370496", "9007199254740991", "17"] {
        let reply = client.ok(&["HSCAN", "k", cursor]).unwrap();
        assert_eq!(reply.items()[1], first.items()[1], "{cursor}");
    }
    let pattern = ["HSCAN", "k", "0", "MATCH", "*:1", "COUNT", "10000"];
    let reply = client.ok(&pattern).unwrap();
    assert_eq!(reply.items()[0].text().as_deref(), Some("0"));
    assert_eq!(reply.items()[1].items().len(), 2);
    for (command, error) in [
        (["HSCAN", "k", "x", "COUNT", "1"], "ERR invalid cursor"),
        (["HSCAN", "k", "0", "COUNT", "0"], "ERR syntax error"),
        (
            ["HSCAN", "k", "4503599627370496", "COUNT", "x"],
            "ERR value is not an integer or out of range",
        ),
        (
            ["SSCAN", "k", "4503599627370496", "COUNT", "1"],
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
    ] {
        let reply = client.call(&command).unwrap();
        assert_eq!(reply.error(), Some(error), "{command:?}");
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
