//! `freshet reconcile`: finds every kind of damage, and none that is not there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value as Json;

use super::{Ran, all_ok, run, run_on};
use crate::support::{Client, Stack, process, seed};

/// One key of each type and some more, all in the cache afterwards.
fn write_and_read(stack: &Stack) {
    let mut client = stack.client().unwrap();
    all_ok(
        &mut client,
        &[
            "SET string one",
            "SET forever one",
            "SET ends one PX 900000",
            "SET later one PX 900000",
            "SET other-type one",
            "SET deleted one",
            "SET fine one",
            "HSET hash a 1 b 2 c 3",
            "HSET hash-value a 1 b 2",
            "HSET version a 1",
            "RPUSH list a b c",
            "RPUSH list-short a b c",
            "SADD set a b c",
            "ZADD zset 1 a 2 b",
            "ZADD zset-long 0.1 a 2 b",
            "XADD stream 1-1 f v",
            "XADD stream-group 1-1 f v",
            "XGROUP CREATE stream-group g 0",
            "EXISTS absent",
            "EXISTS nothing",
            "SELECT 3",
            "SET string three",
        ],
    );
    warm(&mut client);
    client.ok(&["SELECT", "0"]).unwrap();
    warm(&mut client);
}

/// Reads every key of the selected database.
fn warm(client: &mut Client) {
    let keys = client.ok(&["KEYS", "*"]).unwrap();
    for key in keys.items() {
        let key = key.text().unwrap();
        let read: &[&str] = match &*client.text(&["TYPE", &key]).unwrap() {
            "string" => &["GET", &key],
            "hash" => &["HGETALL", &key],
            "list" => &["LRANGE", &key, "0", "-1"],
            "set" => &["SMEMBERS", &key],
            "zset" => &["ZRANGE", &key, "0", "-1"],
            _ => &["XRANGE", &key, "-", "+"],
        };
        client.ok(read).unwrap();
    }
}

fn json(ran: &Ran) -> Json {
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}\n{}", ran.out, ran.err))
}

/// The findings of a report: kinds by `db/key`.
fn kinds(report: &Json) -> BTreeMap<String, String> {
    let findings = report["findings"].as_array().unwrap();
    let one = |finding: &Json| {
        let key = finding["key"].as_str().unwrap();
        let name = format!("{}/{key}", finding["db"]);
        (name, finding["kind"].as_str().unwrap().to_owned())
    };
    findings.iter().map(one).collect()
}

/// Damages the cache and, behind Freshet's back, the store; what must be found.
fn damage(stack: &Stack) -> BTreeMap<String, String> {
    let mut cache = stack.cache.client().unwrap();
    all_ok(
        &mut cache,
        &[
            "SET string two KEEPTTL",
            "PERSIST forever",
            "PEXPIRE ends 5000000",
            "SET other-type x",
            "DEL other-type",
            "SADD other-type x",
            "PEXPIRE other-type 1000000",
            "HDEL hash b",
            "HSET hash-value b 3",
            "LMOVE list list LEFT RIGHT",
            "RPOP list-short",
            "SADD set d",
            "ZADD zset 3 b",
            "ZADD zset-long 0.10000000000000002 a",
            "XADD stream 1-2 f v",
            "XGROUP SETID stream-group g 1-1",
            "SET stranger x EX 10000",
            "SELECT 3",
            "SET string four KEEPTTL",
        ],
    );
    let sql = stack.sql().unwrap();
    sql.execute(
        // As if no proxy had heard of it.
        "SET freshet.writer = 'test';
         UPDATE freshet.keys SET kind = NULL, value = NULL, version = version + 1 WHERE key = 'deleted';
         UPDATE freshet.keys SET version = version + 1 WHERE key = 'version';
         UPDATE freshet.keys SET expires_ms = expires_ms + 100000 WHERE key = 'later';
         INSERT INTO freshet.keys (db, key, kind, version, value) VALUES (0, 'absent', 0, 50, 'here')
             ON CONFLICT (db, key) DO UPDATE SET kind = 0, version = 50, value = 'here'",
    )
    .unwrap();
    [
        ("0/string", "value"),
        ("0/forever", "ttl"),
        ("0/ends", "ttl"),
        ("0/later", "ttl"),
        ("0/other-type", "type"),
        ("0/hash", "missing"),
        ("0/hash-value", "value"),
        ("0/list", "order"),
        ("0/list-short", "missing"),
        ("0/set", "extra"),
        ("0/zset", "value"),
        ("0/zset-long", "value"),
        ("0/stream", "extra"),
        ("0/stream-group", "value"),
        ("0/stranger", "unknown"),
        ("0/deleted", "unknown"),
        ("0/version", "version"),
        ("0/absent", "absent"),
        ("3/string", "value"),
    ]
    .map(|(key, kind)| (key.to_owned(), kind.to_owned()))
    .into()
}

#[test]
fn damage_of_every_kind_is_found_told_of_and_repaired() {
    let stack = Stack::start().unwrap();
    write_and_read(&stack);
    let clean = run(&stack, &["reconcile", "--json"]).unwrap();
    assert_eq!(clean.code, 0, "{}{}", clean.out, clean.err);
    assert_eq!(json(&clean)["keys"], 20, "{}", clean.out);

    let planted = damage(&stack);
    let found = run(&stack, &["reconcile", "--json"]).unwrap();
    assert_eq!(kinds(&json(&found)), planted, "{}", found.err);
    assert_eq!(found.code, 1);
    let matching = run(&stack, &["reconcile", "--json", "--match", "zset*"]).unwrap();
    assert_eq!(kinds(&json(&matching)).len(), 2);

    let repaired = run(&stack, &["reconcile", "--repair"]).unwrap();
    assert_eq!(repaired.code, 1);
    let text = "db 0 \"hash\": missing: 1 missing, 0 extra; missing is \"b\"; version ";
    assert!(repaired.out.contains(text), "{}", repaired.out);
    assert!(
        repaired.out.contains("19 differ, 19 repaired, 0 undecided"),
        "{}",
        repaired.out
    );
    // The first of them is as old as the run that first saw it, which came after a clean one.
    let first = &json(&found)["findings"][0];
    assert!(first["not_seen_at"].is_string(), "{first}");
    let since = format!(
        "first seen {}, not yet ",
        first["first_seen"].as_str().unwrap()
    );
    assert!(repaired.out.contains(&since), "{since}\n{}", repaired.out);

    let after = run(&stack, &["reconcile"]).unwrap();
    assert_eq!(after.code, 0, "{}", after.out);
    let mut client = stack.client().unwrap();
    assert_eq!(client.text(&["GET", "string"]).unwrap(), "one");
    assert_eq!(client.text(&["GET", "absent"]).unwrap(), "here");
    assert_eq!(
        client.integer(&["EXISTS", "stranger", "deleted"]).unwrap(),
        0
    );
    assert_eq!(client.integer(&["TTL", "forever"]).unwrap(), -1);
    assert_eq!(client.text(&["HGET", "hash", "b"]).unwrap(), "2");
}

/// Writes and reads a few keys of all types without a pause.
fn traffic(mut client: Client, mut rng: StdRng, stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let key = |kind: &str, rng: &mut StdRng| format!("{kind}:{}", rng.random_range(0..8));
        let mut commands: Vec<Vec<String>> = Vec::new();
        for kind in ["s", "h", "l", "t", "z", "x", "e"] {
            let name = key(kind, &mut rng);
            let member = rng.random_range(0..20);
            let line = match (kind, rng.random_range(0..10)) {
                (_, 0) => format!("DEL {name}"),
                (_, 1) => format!("PEXPIRE {name} {}", rng.random_range(1..300)),
                ("s", _) => format!("SET {name} {number}"),
                ("e", _) => format!("SET {name} {number} PX {}", rng.random_range(1..100)),
                ("h", _) => format!("HSET {name} f{member} {number}"),
                ("l", 2..5) => format!("LPOP {name}"),
                ("l", _) => format!("RPUSH {name} {number}"),
                ("t", 2..5) => format!("SREM {name} m{member}"),
                ("t", _) => format!("SADD {name} m{member}"),
                ("z", _) => format!("ZADD {name} {number} m{member}"),
                _ => format!("XADD {name} MAXLEN 20 * n {number}"),
            };
            commands.push(line.split(' ').map(str::to_owned).collect());
            let read = match kind {
                "h" => "HGETALL",
                "t" => "SMEMBERS",
                "l" => "LLEN",
                "z" => "ZCARD",
                "x" => "XLEN",
                _ => "GET",
            };
            commands.push(vec![read.to_owned(), key(kind, &mut rng)]);
        }
        if number % 3 == 0 {
            commands.insert(0, vec!["MULTI".to_owned()]);
            commands.push(vec!["EXEC".to_owned()]);
        }
        client.pipeline(&commands).unwrap();
    }
}

#[test]
fn nothing_is_reported_that_is_not_there_while_traffic_runs() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let mut client = stack.client().unwrap();
    all_ok(&mut client, &["SET idle one", "GET idle"]);
    let seed = seed::seed();
    println!("FRESHET_SEED={seed}");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..4 {
            let program = if number % 2 == 0 {
                &stack.program
            } else {
                &second
            };
            let client = program.client().unwrap();
            let rng = StdRng::seed_from_u64(seed.wrapping_add(number));
            let stop = &stop;
            scope.spawn(move || traffic(client, rng, stop));
        }
        let runs: Vec<Ran> = (0..6)
            .map(|_| run(&stack, &["reconcile", "--json"]).unwrap())
            .collect();
        stack
            .cache
            .client()
            .unwrap()
            .ok(&["SET", "idle", "two", "KEEPTTL"])
            .unwrap();
        let damaged = run(&stack, &["reconcile", "--json"]).unwrap();
        stop.store(true, Ordering::Relaxed);
        for ran in runs {
            assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
            assert!(json(&ran)["keys"].as_u64().unwrap() > 10, "{}", ran.out);
        }
        let expected = BTreeMap::from([("0/idle".to_owned(), "value".to_owned())]);
        assert_eq!(kinds(&json(&damaged)), expected, "{}", damaged.out);
    });
}

#[test]
fn the_background_finds_and_repairs_by_one_proxy_at_a_time() {
    let settings = [("reconcile.interval", "300ms")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let mut client = stack.client().unwrap();
    all_ok(&mut client, &["SET k one", "GET k"]);
    let mut cache = stack.cache.client().unwrap();
    cache.ok(&["SET", "k", "two", "KEEPTTL"]).unwrap();
    process::await_true("the key is repaired", Duration::from_secs(20), || {
        let repaired = stack.program.metric("freshet_reconcile_repaired_total");
        repaired.is_ok_and(|count| count >= 1.0)
    })
    .unwrap();
    assert_eq!(client.text(&["GET", "k"]).unwrap(), "one");
    let metric = |name| stack.program.metric(name).unwrap();
    assert!(metric("freshet_reconciled_keys_total") >= 1.0);
    assert!(metric("freshet_reconcile_finished_timestamp_seconds") > 1e9);
    assert!((metric("freshet_reconcile_differences_total") - 1.0).abs() < f64::EPSILON);
    // While somebody has the lock, nobody else begins.
    let sql = stack.sql().unwrap();
    sql.query("SELECT pg_advisory_lock(1179796823, 0)", &[])
        .unwrap();
    let running = "SELECT count(*) FROM freshet.reconciliation WHERE finished_at IS NULL";
    process::await_true("the last run is over", Duration::from_secs(20), || {
        sql.query(running, &[])
            .is_ok_and(|rows| rows[0].get::<_, i64>(0) == 0)
    })
    .unwrap();
    let count = || -> i64 {
        let rows = sql.query("SELECT max(id) FROM freshet.reconciliation", &[]);
        rows.unwrap()[0].get(0)
    };
    let before = count();
    let looks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory_lock%'";
    process::await_true("it was asked for", Duration::from_secs(20), || {
        sql.query(looks, &[])
            .is_ok_and(|rows| rows[0].get::<_, i64>(0) > 0)
    })
    .unwrap();
    assert_eq!(count(), before);
}

#[test]
fn what_cannot_be_done_is_told_by_exit_code_2() {
    let stack = Stack::start().unwrap();
    let nowhere = "postgresql://freshet@127.0.0.1:1/freshet";
    let ran = run_on(nowhere, &stack.cache.url(), &["reconcile"]).unwrap();
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.err.contains("cannot use postgresql://"), "{}", ran.err);
}
