//! Time that passes between the moment when the store said what time it is and the moment when the
//! cache is told.

use std::time::Duration;

use crate::support::relay::Traffic;
use crate::support::stack::FRESHET;
use crate::support::{Program, Relay, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

fn stored_end(stack: &Stack, key: &str) -> i64 {
    let query = "select expires_ms from freshet.keys where db = 0 and key = $1";
    let rows = stack.sql().unwrap().query(query, &[&key.as_bytes()]);
    rows.unwrap()[0].get(0)
}

/// Its end is decided when the write begins, and then another transaction is in its way for longer than it
/// is to live.
#[test]
fn value_whose_end_passed_while_its_row_was_locked_is_never_shown() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "old"]).unwrap();
    let sql = stack.sql().unwrap();
    sql.execute("begin; select from freshet.keys where key = 'key' for update")
        .unwrap();
    client.send(&["SET", "key", "new", "PX", "300"]).unwrap();
    let watcher = stack.sql().unwrap();
    process::await_true("the write waits", LIMIT, || {
        let waits = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
                        and now() > query_start + interval '400 ms'";
        !watcher.query(waits, &[]).unwrap().is_empty()
    })
    .unwrap();
    sql.execute("commit").unwrap();
    assert_eq!(client.read().unwrap(), Value::Simple("OK".into()));
    // Both answer from the cache, if it shows the key.
    assert_eq!(client.ok(&["GET", "key"]).unwrap(), Value::Null);
    assert_eq!(client.integer(&["EXISTS", "key"]).unwrap(), 0);
}

/// However long the store's answer was on its way, the cache drops the key before its end.
#[test]
fn cache_never_keeps_a_key_longer_than_the_store() {
    let stack = Stack::start().unwrap();
    let (host, database) = stack.database.rsplit_once('/').unwrap();
    let port = host.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let relay = Relay::start(([127, 0, 0, 1], port).into()).unwrap();
    let far = format!("postgres://postgres@{}/{database}", relay.address());
    let slow = Program::start(FRESHET, &far, &stack.cache.url(), &[]).unwrap();
    let mut client = slow.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    client.ok(&["SET", "k", "v", "PX", "20000"]).unwrap();
    let delayed = Traffic::Delayed(Duration::from_millis(150));
    relay.set(delayed, delayed);
    for command in [
        vec!["SET", "k", "v", "PX", "20000"],
        vec!["HSET", "h", "f", "v"],
        vec!["PEXPIRE", "h", "20000"],
        vec!["HSET", "h", "f", "w"],
    ] {
        client.ok(&command).unwrap();
    }
    for key in ["k", "h"] {
        let command = if key == "k" { "GET" } else { "HGETALL" };
        for how in ["written", "read"] {
            client.ok(&[command, key]).unwrap();
            let dies = cache.integer(&["PEXPIRETIME", key]).unwrap();
            assert!(dies > 0, "{key} {how}: it is not cached");
            let ends = stored_end(&stack, key);
            assert!(dies < ends, "{key} {how}: it dies {} ms late", dies - ends);
            cache.ok(&["DEL", key, &format!("\0fc{{{key}}}")]).unwrap();
        }
    }
}
