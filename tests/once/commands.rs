//! What one client sees of tokens.

use std::time::Duration;

use crate::support::client::encode;
use crate::support::{Client, Redis, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

/// `line` in words, behind `FRESHET.ONCE token`.
fn once<'a>(token: &'a str, line: &'a str) -> Vec<&'a str> {
    let words = line.split(' ');
    ["FRESHET.ONCE", token].into_iter().chain(words).collect()
}

fn error(client: &mut Client, arguments: &[&str]) -> String {
    let reply = client.call(arguments).unwrap();
    let error = reply.error().map(str::to_owned);
    error.unwrap_or_else(|| panic!("{arguments:?}: {reply:?}"))
}

fn block(client: &mut Client, lines: &[&str]) -> Value {
    client.ok(&["MULTI"]).unwrap();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(client.text(&words).unwrap(), "QUEUED", "{line}");
    }
    client.call(&["EXEC"]).unwrap()
}

/// Each with what it needs to be there, and a reply of every form that a write can have.
const WRITES: &[(&str, &str)] = &[
    ("SET k 5", "INCR k"),
    ("SET k v", "SET k w GET"),
    ("SET k v", "SET k w NX"),
    ("SET k v", "SET k w NX GET"),
    ("SET k v", "GETDEL k"),
    ("DEL k", "GETDEL k"),
    ("SET k 1", "INCRBYFLOAT k 0.25"),
    ("MSET k v", "MSETNX k 1 l 2"),
    ("HSET k f 1", "HINCRBYFLOAT k f 0.5"),
    ("RPUSH k a b c", "LPOP k 2"),
    ("DEL k", "LPOP k 2"),
    ("RPUSH k a b c", "LMPOP 2 j k LEFT COUNT 2"),
    ("SADD k a", "SPOP k 5"),
    ("SADD k a", "SPOP k"),
    ("ZADD k 1.5 a", "ZADD k INCR 2 a"),
    ("ZADD k 1.5 a", "ZADD k NX INCR 2 a"),
    ("ZADD k 1.5 a 2.5 b", "ZPOPMIN k 2"),
    ("ZADD k 1.5 a 2.5 b", "ZPOPMAX k"),
    ("ZADD k 1.5 a 2.5 b", "ZMPOP 1 k MIN COUNT 2"),
    ("DEL k", "XADD k 5-1 f v"),
    (
        "SET k x",
        "BITFIELD k INCRBY u8 0 1 OVERFLOW FAIL INCRBY u2 0 9",
    ),
    ("SET k x", "EXPIRE k 100 GT"),
    ("RPUSH k 3 1 2", "SORT k"),
];

#[test]
fn a_repeat_gets_the_reply_in_its_own_protocol_and_changes_nothing() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    for (index, (before, write)) in WRITES.iter().enumerate() {
        for (first, second) in [("2", "3"), ("3", "2")] {
            let token = format!("{index}.{first}");
            let words: Vec<&str> = write.split(' ').collect();
            // What Redis says in a protocol, on the same data.
            let theirs = |protocol: &str| {
                let mut client = judge.client().unwrap();
                client.ok(&["HELLO", protocol]).unwrap();
                client.ok(&["FLUSHALL"]).unwrap();
                client.ok(&before.split(' ').collect::<Vec<_>>()).unwrap();
                client.call_with_bytes(&words).unwrap()
            };
            let mut client = stack.client().unwrap();
            client.ok(&["DEL", "k", "l"]).unwrap();
            client.ok(&before.split(' ').collect::<Vec<_>>()).unwrap();
            for protocol in [first, second] {
                client.ok(&["HELLO", protocol]).unwrap();
                let ours = client.call_with_bytes(&once(&token, write)).unwrap();
                assert_eq!(
                    ours.escape_ascii().to_string(),
                    theirs(protocol).escape_ascii().to_string(),
                    "{write} in RESP{protocol}, first in RESP{first}"
                );
            }
            // What is there is what one of them leaves.
            theirs("2");
            let mut other = judge.client().unwrap();
            for key in ["k", "l"] {
                let dump = |client: &mut Client| client.call(&["DUMP", key]).unwrap();
                client.ok(&["HELLO", "2"]).unwrap();
                assert_eq!(dump(&mut client), dump(&mut other), "{key} after {write}");
            }
        }
    }
}

#[test]
fn another_command_under_a_used_token_is_refused() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(client.integer(&once("t", "INCRBY n 2")).unwrap(), 2);
    assert_eq!(client.integer(&once("t", "incrby n 2")).unwrap(), 2);
    for other in ["INCRBY n 3", "INCRBY m 2", "DECRBY n 2"] {
        let text = error(&mut client, &once("t", other));
        assert!(text.starts_with("ERR the token was used"), "{text}");
    }
    client.ok(&["SELECT", "1"]).unwrap();
    let text = error(&mut client, &once("t", "INCRBY n 2"));
    assert!(text.starts_with("ERR the token was used"), "{text}");
    assert_eq!(client.integer(&["EXISTS", "n", "m"]).unwrap(), 0);
    client.ok(&["SELECT", "0"]).unwrap();
    assert_eq!(client.text(&["GET", "n"]).unwrap(), "2");
    // Within one transaction, too.
    let replies = client
        .pipeline(&[
            once("u", "INCR n"),
            once("u", "INCR n"),
            once("u", "DECR n"),
            vec!["INCR", "n"],
        ])
        .unwrap();
    assert_eq!(replies[..2], [Value::Integer(3), Value::Integer(3)]);
    assert!(replies[2].error().is_some());
    assert_eq!(replies[3], Value::Integer(4));
}

#[test]
fn an_error_that_changed_nothing_leaves_the_token_free() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["RPUSH", "k", "x"]).unwrap();
    let text = error(&mut client, &once("t", "INCR k"));
    assert!(text.starts_with("WRONGTYPE"), "{text}");
    client.ok(&["DEL", "k"]).unwrap();
    assert_eq!(client.integer(&once("t", "INCR k")).unwrap(), 1);
    assert_eq!(client.integer(&once("t", "INCR k")).unwrap(), 1);
}

#[test]
fn a_reply_beyond_the_bound_is_refused_before_anything_is_written() {
    let stack = Stack::start_with(&[("commit.once_reply", "1kB")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    let long = "x".repeat(2000);
    client.ok(&["SET", "k", &long]).unwrap();
    let text = error(&mut client, &once("t", "GETDEL k"));
    assert!(
        text.contains("nothing was written") && text.contains("commit.once_reply"),
        "{text}"
    );
    assert_eq!(client.text(&["GET", "k"]).unwrap(), long);
    // Who shares its transaction is not harmed.
    let replies = client
        .pipeline(&[
            vec!["INCR", "n"],
            once("t", "GETDEL k"),
            once("u", "INCR n"),
        ])
        .unwrap();
    assert_eq!(replies[0], Value::Integer(1));
    assert!(replies[1].error().is_some(), "{:?}", replies[1]);
    assert_eq!(replies[2], Value::Integer(2));
    let reply = block(&mut client, &["FRESHET.ONCE t", "INCR n", "GET k"]);
    assert!(reply.error().is_some(), "{reply:?}");
    assert_eq!(client.text(&["GET", "n"]).unwrap(), "2");
}

#[test]
fn a_block_is_made_once() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let lines = ["FRESHET.ONCE t", "INCR n", "GET n", "RPUSH list a"];
    let first = block(&mut client, &lines);
    assert_eq!(first.items()[0], Value::Simple("OK".into()));
    assert_eq!(first.items()[1], Value::Integer(1));
    client.ok(&["INCR", "n"]).unwrap();
    // Also behind a WATCH of what has changed since.
    client.ok(&["WATCH", "n"]).unwrap();
    stack.client().unwrap().ok(&["INCR", "n"]).unwrap();
    assert_eq!(block(&mut client, &lines), first);
    assert_eq!(client.text(&["GET", "n"]).unwrap(), "3");
    assert_eq!(client.integer(&["LLEN", "list"]).unwrap(), 1);
    let other = block(&mut client, &["FRESHET.ONCE t", "INCR n"]);
    assert!(
        other
            .error()
            .is_some_and(|text| text.starts_with("ERR the token was used"))
    );
    let text = error(&mut client, &once("t", "INCR n"));
    assert!(text.starts_with("ERR the token was used"), "{text}");
    // One that a watched key stopped did nothing, and leaves its token free.
    client.ok(&["WATCH", "n"]).unwrap();
    stack.client().unwrap().ok(&["INCR", "n"]).unwrap();
    assert_eq!(
        block(&mut client, &["FRESHET.ONCE w", "INCR n"]),
        Value::Null
    );
    let reply = block(&mut client, &["FRESHET.ONCE w", "INCR n"]);
    assert_eq!(reply.items()[1], Value::Integer(5));
}

#[test]
fn what_a_block_made_once_may_not_hold_breaks_it() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for (lines, refused, text) in [
        (&["FRESHET.ONCE t"][..], "PUBLISH c m", "not 'publish'"),
        (&["FRESHET.ONCE t", "INCR n"], "FLUSHALL", "not 'flushall'"),
        (&["FRESHET.ONCE t"], "SELECT 1", "not 'select'"),
        (&["INCR n"], "FRESHET.ONCE t", "must be the first command"),
        (
            &["FRESHET.ONCE t"],
            "FRESHET.ONCE t",
            "must be the first command",
        ),
        (
            &[],
            "FRESHET.ONCE t INCR n",
            "not allowed inside a transaction",
        ),
    ] {
        client.ok(&["MULTI"]).unwrap();
        for line in lines {
            client.ok(&line.split(' ').collect::<Vec<_>>()).unwrap();
        }
        let words: Vec<&str> = refused.split(' ').collect();
        let told = error(&mut client, &words);
        assert!(told.contains(text), "{refused}: {told}");
        let told = error(&mut client, &["EXEC"]);
        assert!(told.starts_with("EXECABORT"), "{refused}: {told}");
    }
    let told = error(&mut client, &["FRESHET.ONCE", "t"]);
    assert!(told.contains("makes a MULTI block once"), "{told}");
    assert_eq!(client.integer(&["EXISTS", "n"]).unwrap(), 0);
    // An empty one is no use, and no harm.
    let reply = block(&mut client, &["FRESHET.ONCE t"]);
    assert_eq!(reply.items(), [Value::Simple("OK".into())]);
}

#[test]
fn tokens_survive_a_flush() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(client.integer(&once("t", "INCR n")).unwrap(), 1);
    client.ok(&["FLUSHALL"]).unwrap();
    assert_eq!(client.integer(&once("t", "INCR n")).unwrap(), 1);
    assert_eq!(client.integer(&["EXISTS", "n"]).unwrap(), 0);
}

#[test]
fn a_token_is_forgotten_after_its_time_and_not_before() {
    let retention = ("commit.once_retention", "3s");
    let stack = Stack::start_with(&[retention], &[]).unwrap();
    let mut client = stack.client().unwrap();
    let kept = || -> i64 {
        let query = "select count(*) from freshet.once";
        stack.sql().unwrap().query(query, &[]).unwrap()[0].get(0)
    };
    let start = std::time::Instant::now();
    for number in 0..5 {
        client.ok(&once(&format!("t{number}"), "INCR n")).unwrap();
    }
    let before = kept();
    // Unless the machine stood still for that long.
    assert!(
        before == 5 || start.elapsed() >= Duration::from_secs(3),
        "{before}"
    );
    process::await_true("the tokens are forgotten", LIMIT, || kept() == 0).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(client.integer(&once("t0", "INCR n")).unwrap(), 6);
}

#[test]
fn who_may_run_the_command_may_make_it_once() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let user = [
        "ACL", "SETUSER", "u", "on", ">p", "~a*", "+incr", "+multi", "+exec",
    ];
    client.ok(&user).unwrap();
    client.ok(&["AUTH", "u", "p"]).unwrap();
    assert_eq!(client.integer(&once("t", "INCR a")).unwrap(), 1);
    let text = error(&mut client, &once("t2", "INCR b"));
    assert!(
        text.starts_with("NOPERM") && text.contains("access one of the keys"),
        "{text}"
    );
    let text = error(&mut client, &once("t2", "DECR a"));
    assert!(
        text.starts_with("NOPERM") && text.contains("'decr'"),
        "{text}"
    );
    let reply = block(&mut client, &["FRESHET.ONCE b", "INCR a"]);
    assert_eq!(reply.items()[1], Value::Integer(2));
}

#[test]
fn the_command_family_knows_it() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let judge = Redis::start().unwrap();
    let count = judge
        .client()
        .unwrap()
        .integer(&["COMMAND", "COUNT"])
        .unwrap();
    assert_eq!(client.integer(&["COMMAND", "COUNT"]).unwrap(), count + 1);
    let infos = client.ok(&["COMMAND", "INFO", "freshet.once"]).unwrap();
    assert_eq!(infos.items()[0].items()[0].text().unwrap(), "freshet.once");
    let docs = client.ok(&["COMMAND", "DOCS", "FRESHET.ONCE"]).unwrap();
    assert!(
        docs.items()[1].items()[1].text().unwrap().contains("once"),
        "{docs:?}"
    );
    let keys = client
        .ok(&[
            "COMMAND",
            "GETKEYS",
            "freshet.once",
            "t",
            "MSET",
            "a",
            "1",
            "b",
            "2",
        ])
        .unwrap();
    let keys: Vec<_> = keys.items().iter().filter_map(Value::text).collect();
    assert_eq!(keys, ["a", "b"]);
    let text = error(&mut client, &["COMMAND", "GETKEYS", "FRESHET.ONCE", "t"]);
    assert_eq!(text, "ERR The command has no key arguments");
}

#[test]
fn a_deep_nest_of_tokens_is_refused() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let words = ["FRESHET.ONCE", "t"].repeat(100_000);
    client.send_raw(&encode(&words)).unwrap();
    let reply = client.read().unwrap();
    assert!(
        reply
            .error()
            .is_some_and(|text| text.contains("cannot make 'freshet.once' once"))
    );
}

/// One that is quick runs in the commit lane, one that takes long beside it.
#[test]
fn scripts_are_made_once() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let quick = "redis.call('INCR', KEYS[1]) return redis.status_reply('MADE')";
    let slow =
        "local x = 0 for i = 1, 20000000 do x = x + i end return redis.call('INCR', KEYS[1])";
    for (token, script, key) in [("quick", quick, "q"), ("slow", slow, "s")] {
        let call = ["FRESHET.ONCE", token, "EVAL", script, "1", key];
        let first = client.call(&call).unwrap();
        assert_eq!(first.error(), None);
        assert_eq!(client.call(&call).unwrap(), first);
        assert_eq!(client.text(&["GET", key]).unwrap(), "1");
        let other = ["FRESHET.ONCE", token, "EVAL", script, "1", "other"];
        assert!(error(&mut client, &other).starts_with("ERR the token was used"));
    }
    let in_a_block = "EVAL return(redis.call('INCR',KEYS[1])) 1 b";
    let first = block(&mut client, &["FRESHET.ONCE block", in_a_block]);
    assert_eq!(
        block(&mut client, &["FRESHET.ONCE block", in_a_block]),
        first
    );
    assert_eq!(client.text(&["GET", "b"]).unwrap(), "1");
    let reading = once("t", "EVAL_RO return(1) 0");
    assert!(error(&mut client, &reading).contains("only commands that write keys can"));
}
