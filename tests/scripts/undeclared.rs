//! Scripts that come to keys which nobody declared, one after the other.

use std::thread;
use std::time::Duration;

use crate::support::{Client, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

/// A chain of hashes, each of which tells the next: nobody can know them ahead.
const CHAIN: &str = "
    local key = ARGV[1]
    for step = 1, 6 do
        local next = redis.call('hget', key, 'next') or (key .. step)
        redis.call('hset', key, 'next', next)
        key = next
    end
    return redis.call('incr', 'chains')";

#[test]
fn they_share_commits_with_others() {
    const SCRIPTS: usize = 400;
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sha = client.text(&["SCRIPT", "LOAD", CHAIN]).unwrap();
    let batches = || {
        let count = stack.program.metric("freshet_commit_batch_units_count");
        count.unwrap()
    };
    let before = batches();
    let numbers: Vec<usize> = (0..SCRIPTS).collect();
    for some in numbers.chunks(50) {
        let calls: Vec<Vec<String>> = some
            .iter()
            .map(|number| {
                let chain = format!("chain{}:", number % 70);
                vec!["EVALSHA".into(), sha.clone(), "0".into(), chain]
            })
            .collect();
        for (number, reply) in some.iter().zip(client.pipeline(&calls).unwrap()) {
            assert_eq!(reply, Value::Integer(*number as i64 + 1));
        }
    }
    let batches = batches() - before;
    assert!(batches < SCRIPTS as f64 / 4.0, "{batches} batches");
}

#[test]
fn they_wait_for_a_row_that_another_transaction_holds() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "held", "1"]).unwrap();
    let sql = stack.sql().unwrap();
    sql.execute("BEGIN; SELECT FROM freshet.keys WHERE key = 'held' FOR UPDATE")
        .unwrap();
    let address = stack.program.address();
    let script = thread::spawn(move || {
        let mut client = Client::connect(address).unwrap();
        let script = "redis.call('set', 'free', 1) return redis.call('incr', 'held')";
        client.call(&["EVAL", script, "0"]).unwrap()
    });
    let other = stack.sql().unwrap();
    process::await_true("a transaction waits for the row", LIMIT, || {
        let waits = "SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                      WHERE NOT granted AND a.datname = current_database()";
        !other.query(waits, &[]).unwrap().is_empty()
    })
    .unwrap();
    assert!(!script.is_finished());
    sql.execute("COMMIT").unwrap();
    assert_eq!(script.join().unwrap(), Value::Integer(2));
    assert_eq!(client.text(&["GET", "held"]).unwrap(), "2");
}

/// A call of the wrong type loads a part of the key; what takes all of it must not be content with that.
#[test]
fn what_a_call_of_the_wrong_type_has_loaded_is_not_taken_for_the_whole() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for command in [
        "redis.call('rename', 'made', KEYS[1])",
        "redis.call('copy', 'made', KEYS[1])",
        "redis.call('restore', KEYS[1], 0, redis.call('dump', 'made'))",
    ] {
        client.call(&["DEL", "made", "c"]).unwrap();
        client
            .integer(&["HSET", "made", "f", "3", "g", "x"])
            .unwrap();
        let script = format!("redis.pcall('lpop', 'made') {command}");
        client.call(&["EVAL", &script, "1", "c"]).unwrap();
        let count = client.integer(&["HLEN", "c"]).unwrap();
        assert_eq!(count, 2, "{command}");
        let held = client.call(&["HGETALL", "c"]).unwrap();
        assert_eq!(held.items().len(), 4, "{command}: {held:?}");
    }
}
