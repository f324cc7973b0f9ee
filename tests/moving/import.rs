//! `freshet import`: another Redis or its file is here afterwards, key by key.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{all_ok, command_on, run};
use crate::support::{Client, Redis, Stack, Value, process};

/// Keys of all types and encodings in two databases.
pub fn fill(source: &mut Client) {
    all_ok(
        source,
        &[
            "SET string one",
            "SET number 12345",
            "SET ends one PX 900000",
            "HSET hash a 1 b 2",
            "RPUSH list a b 3",
            "SADD set a b",
            "SADD intset 1 2 300000",
            "ZADD zset 1 a 2.5 b",
            "XADD stream 1-1 f v",
            "XADD stream 1-2 g w",
            "XGROUP CREATE stream g 0",
            "XREADGROUP GROUP g c COUNT 1 STREAMS stream >",
            "SELECT 5",
            "SET elsewhere five",
            "SELECT 0",
        ],
    );
    let long = "x".repeat(70_000);
    source.ok(&["SET", "long", &long]).unwrap();
    for number in 0..700 {
        let number = number.to_string();
        source.ok(&["HSET", "big-hash", &number, "v"]).unwrap();
        source.ok(&["RPUSH", "big-list", &number]).unwrap();
        source
            .ok(&["SADD", "big-set", &format!("m{number}")])
            .unwrap();
        source
            .ok(&["ZADD", "big-zset", &number, &format!("m{number}")])
            .unwrap();
    }
}

const READS: &[&[&str]] = &[
    &["DBSIZE"],
    &["GET", "string"],
    &["GET", "number"],
    &["PEXPIRETIME", "ends"],
    &["HGETALL", "hash"],
    &["LRANGE", "list", "0", "-1"],
    &["SORT", "set", "ALPHA"],
    &["SMEMBERS", "intset"],
    &["ZRANGE", "zset", "0", "-1", "WITHSCORES"],
    &["XINFO", "STREAM", "stream"],
    &["XPENDING", "stream", "g"],
    &["STRLEN", "long"],
    &["HLEN", "big-hash"],
    &["LRANGE", "big-list", "0", "-1"],
    &["SORT", "big-set", "ALPHA"],
    &["ZRANGE", "big-zset", "0", "-1", "WITHSCORES"],
];

pub(super) fn reads_are_equal(one: &mut Client, other: &mut Client) {
    for read in READS {
        let mut replies = [one.call(read).unwrap(), other.call(read).unwrap()];
        if read[0] == "XINFO" {
            // How the entries lie in memory is no content.
            for reply in &mut replies {
                let Value::Array(items) = reply else {
                    panic!("{reply:?}");
                };
                let is_name = |item: &Value, name| item.text().as_deref() == Some(name);
                for name in ["radix-tree-keys", "radix-tree-nodes"] {
                    let at = items.iter().position(|item| is_name(item, name)).unwrap();
                    items.drain(at..at + 2);
                }
            }
        }
        assert_eq!(replies[0], replies[1], "{read:?}");
    }
    for client in [one, other] {
        client.ok(&["SELECT", "5"]).unwrap();
        assert_eq!(client.text(&["GET", "elsewhere"]).unwrap(), "five");
        client.ok(&["SELECT", "0"]).unwrap();
    }
}

#[test]
fn a_live_redis_is_here_afterwards_and_what_was_here_is_kept_or_replaced() {
    let stack = Stack::start().unwrap();
    let source = Redis::start().unwrap();
    let mut there = source.client().unwrap();
    fill(&mut there);
    let mut here = stack.client().unwrap();
    // The cache knows that it is absent, until it is told otherwise.
    assert_eq!(here.call(&["GET", "string"]).unwrap(), Value::Null);
    all_ok(&mut here, &["SET number here"]);
    let import = ["import", "--from", &source.url(), "--verify"];
    let kept = run(&stack, &import).unwrap();
    assert_eq!(kept.code, 1, "{}{}", kept.out, kept.err);
    assert!(
        kept.out.contains("kept as it is here: 0:number"),
        "{}",
        kept.out
    );
    assert!(
        kept.out.contains("compared key by key: 1 differ"),
        "{}",
        kept.out
    );
    assert_eq!(here.text(&["GET", "number"]).unwrap(), "here");
    assert_eq!(here.text(&["GET", "string"]).unwrap(), "one");

    let replaced = run(&stack, &[&import[..], &["--replace"]].concat()).unwrap();
    assert_eq!(replaced.code, 0, "{}{}", replaced.out, replaced.err);
    // The second run wrote what differed, and nothing else.
    assert!(
        replaced.out.contains("1 written, 14 were the same"),
        "{}",
        replaced.out
    );
    reads_are_equal(&mut there, &mut here);
    let checked = run(&stack, &["reconcile"]).unwrap();
    assert_eq!(checked.code, 0, "{}", checked.out);
}

#[test]
fn an_rdb_file_is_here_afterwards() {
    let stack = Stack::start().unwrap();
    let source = Redis::start().unwrap();
    let mut there = source.client().unwrap();
    fill(&mut there);
    there.ok(&["SAVE"]).unwrap();
    let folder = there.ok(&["CONFIG", "GET", "dir"]).unwrap().items()[1]
        .text()
        .unwrap();
    let file = format!("{folder}/dump.rdb");
    let ran = run(&stack, &["import", "--from", &file, "--verify"]).unwrap();
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    reads_are_equal(&mut there, &mut stack.client().unwrap());

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let damaged = run(&stack, &["import", "--from", &file]).unwrap();
    assert_eq!(damaged.code, 2, "{}", damaged.out);
    std::fs::write(&file, &bytes[..middle]).unwrap();
    let cut = run(&stack, &["import", "--from", &file]).unwrap();
    assert_eq!(cut.code, 2, "{}", cut.out);
}

#[test]
fn what_changes_at_the_source_follows_until_the_cut_over() {
    let stack = Stack::start().unwrap();
    let source = Redis::start().unwrap();
    let mut there = source.client().unwrap();
    fill(&mut there);
    let arguments = ["import", "--from", &source.url(), "--follow", "--verify"];
    let mut command = command_on(&stack.database, &stack.cache.url(), &arguments);
    command.stdout(Stdio::piped());
    let import = process::spawn(command).unwrap();
    let mut here = stack.client().unwrap();
    process::await_true("the first round is over", Duration::from_secs(60), || {
        here.integer(&["DBSIZE"]).is_ok_and(|keys| keys == 14)
    })
    .unwrap();
    // Written here and at the source since: what is here stays.
    all_ok(&mut here, &["SET intset client"]);
    all_ok(&mut there, &["SADD intset 4"]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writer = source.client().unwrap();
        let stop = &stop;
        let written = scope.spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let text = number.to_string();
                all_ok(
                    &mut writer,
                    &[
                        &*format!("SET string {text}"),
                        &*format!("RPUSH list {text}"),
                    ],
                );
                all_ok(&mut writer, &[&*format!("SET new:{} {text}", number % 50)]);
                all_ok(&mut writer, &[&*format!("DEL new:{}", (number * 7) % 50)]);
            }
        });
        process::await_true("changes are followed", Duration::from_secs(60), || {
            here.text(&["GET", "string"])
                .is_ok_and(|text| text != "one")
        })
        .unwrap();
        there.ok(&["DEL", "hash"]).unwrap();
        process::await_true("deletions are followed", Duration::from_secs(60), || {
            here.integer(&["EXISTS", "hash"])
                .is_ok_and(|count| count == 0)
        })
        .unwrap();
        stop.store(true, Ordering::Relaxed);
        written.join().unwrap();
    });
    process::signal(import.id(), "TERM").unwrap();
    let output = import.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    // All but what a client has written here.
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("kept as it is here: 0:intset"), "{out}");
    assert!(
        out.contains("differs: 0:intset\ncompared key by key: 1 differ"),
        "{out}"
    );
    let keys = |client: &mut Client| client.integer(&["DBSIZE"]).unwrap();
    assert_eq!(keys(&mut there), keys(&mut here), "{out}");
    assert_eq!(here.text(&["GET", "intset"]).unwrap(), "client");
}
