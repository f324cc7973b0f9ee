//! Scripts, against a plain Redis: the same scripts in the same order, the same bytes in reply.

use crate::support::{Client, Redis, Stack};

/// Scripts of a kind, divided by lines of three dashes; each runs on what those before it left.
const SCRIPTS: &[(&str, &str)] = &[
    ("sandbox", include_str!("sandbox.txt")),
    ("libraries", include_str!("libraries.txt")),
    ("commands", include_str!("commands.txt")),
];

/// Addresses of tables differ.
fn comparable(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    let mut shown = String::new();
    let mut rest = &text[..];
    while let Some(at) = rest.find("0x") {
        let (before, address) = rest.split_at(at + 2);
        shown.push_str(before);
        rest = address.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    shown + rest
}

fn differences(ours: &mut Client, theirs: &mut Client, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for script in text.trim_end().split("\n---\n") {
        let call = ["EVAL", script, "0"];
        let our = comparable(&ours.call_with_bytes(&call).unwrap());
        let their = comparable(&theirs.call_with_bytes(&call).unwrap());
        if our != their {
            found.push(format!("{script}\n   Freshet {our}\n   Redis   {their}"));
        }
    }
    found
}

fn compare(protocol: &str) {
    let mut stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
    for client in [&mut ours, &mut theirs] {
        client.ok(&["HELLO", protocol]).unwrap();
        client.ok(&["LPUSH", "l", "1"]).unwrap();
    }
    let found: Vec<String> = SCRIPTS
        .iter()
        .flat_map(|(_, text)| differences(&mut ours, &mut theirs, text))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    stack.program.stop().unwrap();
}

#[test]
fn scripts_are_answered_as_by_redis() {
    compare("2");
}

#[test]
fn scripts_are_answered_as_by_redis_in_resp3() {
    compare("3");
}

/// Commands about scripts, each of which must be answered with the same bytes.
const CALLS: &[&[&str]] = &[
    &["EVAL", "return 1", "x"],
    &["EVAL", "return 1", "-1"],
    &["EVAL", "return 1", "2", "a"],
    &[
        "EVAL",
        "return {KEYS[1],KEYS[2],ARGV[1],ARGV[2]}",
        "2",
        "a",
        "b",
        "c",
        "d",
    ],
    &["EVAL"],
    &["EVAL", "return 1"],
    &["EVALSHA", "abc", "0"],
    &["EVALSHA", "ffffffffffffffffffffffffffffffffffffffff", "0"],
    &["EVAL_RO", "return redis.call('set','k','v')", "0"],
    &["EVAL_RO", "return redis.pcall('set','k','v')", "0"],
    &["EVAL_RO", "return redis.call('get',KEYS[1])", "1", "k"],
    &[
        "EVAL",
        "#!lua flags=no-writes\nreturn redis.call('set','k','v')",
        "0",
    ],
    &["EVAL", "#!lua flags=no-writes,allow-stale\nreturn 1", "0"],
    &["EVAL", "#!lua flags=nosuch\nreturn 1", "0"],
    &["EVAL", "#!lua flags=\nreturn 1", "0"],
    &["EVAL", "#!lua foo=bar\nreturn 1", "0"],
    &["EVAL", "#!lua name=bar\nreturn 1", "0"],
    &["EVAL", "#!python\nreturn 1", "0"],
    &["EVAL", "#!lua", "0"],
    &["EVAL", "#!lua\nreturn redis.call('incr','x') + nosuch", "0"],
    &["EVAL_RO", "#!lua\nreturn redis.call('set','x','y')", "0"],
    &["SCRIPT", "LOAD", "return (("],
    &["SCRIPT", "LOAD", "return 1"],
    &[
        "SCRIPT",
        "EXISTS",
        "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
        "x",
    ],
    &["SCRIPT", "EXISTS"],
    &["EVALSHA", "E0E1F9FABFC9D4800C877A703B823AC0578FF8DB", "0"],
    &[
        "EVALSHA_RO",
        "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
        "0",
    ],
    &["SCRIPT", "FLUSH", "foo"],
    &["SCRIPT", "FLUSH", "sync"],
    &["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"],
    &["EVAL", "return 'now known'", "0"],
    &["EVALSHA", "0cc5e68ba2a1f5dd0e3ea4cc2d2ba2a3c4d4a5a0", "0"],
    &["SCRIPT", "FLUSH", "async"],
    &["SCRIPT", "KILL"],
    &["SCRIPT", "DEBUG", "NO"],
    &["SCRIPT", "DEBUG", "x"],
    &["SCRIPT", "HELP"],
    &["SCRIPT", "NOSUCH"],
    &["SCRIPT", "LOAD", "#!lua flags=x\nreturn 1"],
    &["MULTI"],
    &["SET", "in", "1"],
    &[
        "EVAL",
        "return redis.call('incrby','in',ARGV[1])",
        "1",
        "in",
        "5",
    ],
    &["EVALSHA", "ffffffffffffffffffffffffffffffffffffffff", "0"],
    &["EVAL", "return ((", "0"],
    &[
        "EVAL",
        "redis.call('set','in','x') return redis.call('incr','in')",
        "1",
        "in",
    ],
    &["GET", "in"],
    &["EXEC"],
    &["GET", "in"],
    &["WATCH", "in"],
    &["EVAL", "return redis.call('set',KEYS[1],'y')", "1", "in"],
    &["MULTI"],
    &["EVAL", "return 1", "0"],
    &["EXEC"],
    &[
        "ACL", "SETUSER", "u", "on", "nopass", "+eval", "+get", "+publish", "~a*", "&x*",
    ],
    &["AUTH", "u", "x"],
    &["EVAL", "return redis.call('set','a','b')", "0"],
    &["EVAL", "return redis.pcall('set','a','b')", "0"],
    &["EVAL", "return redis.pcall('get','b')", "0"],
    &["EVAL", "return redis.call('get','b')", "0"],
    &["EVAL", "return redis.call('get','a')", "0"],
    &["EVAL", "return redis.call('publish','y','m')", "0"],
    &["EVAL", "return redis.call('publish','x','m')", "0"],
    &["EVAL", "return redis.acl_check_cmd('get','b')", "0"],
    &["EVAL", "return redis.acl_check_cmd('get','a')", "0"],
    &["EVAL", "return 1", "1", "b"],
    &["SCRIPT", "LOAD", "return 1"],
];

#[test]
fn commands_about_scripts_are_answered_as_by_redis() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
    for call in CALLS {
        let our = ours.call_with_bytes(call).unwrap();
        let their = theirs.call_with_bytes(call).unwrap();
        assert_eq!(comparable(&our), comparable(&their), "{call:?}");
    }
}

#[test]
fn pipelined_scripts_and_commands_run_in_their_order() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    // The one in the middle is put off by the commit lane: those behind it wait for it.
    let slow =
        "local n = 0 for i = 1, 3000000 do n = n + i end return redis.call('append',KEYS[1],'s')";
    let quick = "return redis.call('append',KEYS[1],ARGV[1])";
    let mut calls: Vec<Vec<&str>> = Vec::new();
    for round in ["a", "b", "c"] {
        calls.push(vec!["APPEND", "k", round]);
        calls.push(vec!["EVAL", quick, "1", "k", round]);
        calls.push(vec!["EVAL", slow, "1", "k"]);
        calls.push(vec!["EVAL", quick, "1", "k", "q"]);
        calls.push(vec!["APPEND", "k", "-"]);
        calls.push(vec!["GET", "k"]);
    }
    let ours = stack.client().unwrap().pipeline(&calls).unwrap();
    let theirs = judge.client().unwrap().pipeline(&calls).unwrap();
    assert_eq!(ours, theirs);
}
