//! `cache-only`: kept by the cache alone, answered as by Redis.

use super::{assert_same_replies, call, error, stack_with, text};
use crate::support::{Redis, Value};

const ROUTE: &str = "\n[[route]]\nmatch = \"c:*\"\nstrategy = \"cache-only\"\n\
                     [[route]]\nmatch = \"{c}*\"\nstrategy = \"cache-only\"\nttl = \"1h\"\n";

/// On keys `c:*` only, and with a reply that does not depend on chance or time.
const COMMANDS: &[&str] = &[
    "SET c:1 v",
    "GET c:1",
    "APPEND c:1 w",
    "INCR c:1",
    "INCR c:n",
    "MSET c:2 a c:3 b",
    "MGET c:2 c:3 c:none",
    "EXISTS c:1 c:2 c:none",
    "EXPIRE c:2 100",
    "TTL c:2",
    "TTL c:none",
    "RENAME c:none c:3",
    "RENAME c:3 c:4",
    "TYPE c:4",
    "HSET c:h f v g w",
    "HGETALL c:h",
    "RPUSH c:l a b c",
    "LRANGE c:l 0 -1",
    "LMPOP 2 c:none c:l LEFT",
    "LMOVE c:l c:l2 LEFT RIGHT",
    "LPUSH c:1 x",
    "ZADD c:z 1 a 2 b",
    "ZMPOP 1 c:z MIN",
    "ZUNIONSTORE c:zz 2 c:z c:none",
    "SADD c:s c",
    "SORT c:l2 ALPHA STORE c:sorted",
    "XADD c:x 1-1 f v",
    "XREAD COUNT 1 STREAMS c:x c:none 0 0",
    "XREADGROUP GROUP g me STREAMS c:x >",
    "XGROUP CREATE c:x g 0",
    "XGROUP CREATE c:none g 0",
    "XREADGROUP GROUP g me STREAMS c:x >",
    "PFADD c:p a b",
    "PFCOUNT c:p",
    "OBJECT ENCODING c:h",
    "BITCOUNT c:1",
    "SET c:1",
    "GET c:h",
    "DEL c:1 c:2 c:none",
];

#[test]
fn replies_are_those_of_redis() {
    let stack = stack_with(ROUTE);
    let plain = Redis::start().unwrap();
    for protocol in ["2", "3"] {
        let (mut ours, mut theirs) = (stack.client().unwrap(), plain.client().unwrap());
        for client in [&mut ours, &mut theirs] {
            client.ok(&["HELLO", protocol]).unwrap();
        }
        theirs.ok(&["FLUSHALL"]).unwrap();
        ours.ok(&["FLUSHALL"]).unwrap();
        // It is emptied, and these keys wait for it.
        stack.await_cache_in_use().unwrap();
        assert_same_replies(&mut ours, &mut theirs, COMMANDS, protocol);
        for client in [&mut ours, &mut theirs] {
            assert_eq!(text(client, "MULTI"), "OK");
            for line in ["SET c:1 1", "INCR c:1", "LPUSH c:1 x", "LMPOP 1 c:l2 LEFT"] {
                assert_eq!(text(client, line), "QUEUED");
            }
        }
        let expected = theirs.call_with_bytes(&["EXEC"]).unwrap();
        assert_eq!(ours.call_with_bytes(&["EXEC"]).unwrap(), expected);
    }
}

#[test]
fn the_store_never_has_them_and_lists_do_not_show_them() {
    let stack = stack_with(ROUTE);
    let mut client = stack.client().unwrap();
    assert_eq!(text(&mut client, "SET c:1 v"), "OK");
    assert_eq!(text(&mut client, "SET kept v"), "OK");
    let rows = stack
        .sql()
        .unwrap()
        .query("SELECT key FROM freshet.keys ORDER BY key", &[])
        .unwrap();
    let keys: Vec<Vec<u8>> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(keys, [b"kept".to_vec()]);
    assert_eq!(call(&mut client, "DBSIZE"), Value::Integer(1));
    assert_eq!(call(&mut client, "KEYS *").items().len(), 1);
    assert_eq!(text(&mut client, "RANDOMKEY"), "kept");
    // It is apart from a key of the same name that the cache holds for the store.
    let mut cache = stack.cache.client().unwrap();
    assert_eq!(cache.text(&["GET", "\x01f=c:1"]).unwrap(), "v");
    assert_eq!(cache.integer(&["EXISTS", "c:1"]).unwrap(), 0);
    let other = stack.second_program().unwrap();
    assert_eq!(call(&mut other.client().unwrap(), "GET c:1"), Value::Null);
    assert_eq!(text(&mut other.client().unwrap(), "SET c:1 stored"), "OK");
    assert_eq!(text(&mut client, "GET c:1"), "v");
    // Whatever empties the cache loses them.
    assert_eq!(text(&mut client, "FLUSHDB"), "OK");
    stack.await_cache_in_use().unwrap();
    assert_eq!(call(&mut client, "GET c:1"), Value::Null);
}

#[test]
fn a_key_without_an_expiry_gets_the_life_of_its_route() {
    let stack = stack_with(ROUTE);
    let mut client = stack.client().unwrap();
    assert_eq!(text(&mut client, "SET {c}1 v"), "OK");
    let left = client.integer(&["PTTL", "{c}1"]).unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    assert_eq!(text(&mut client, "SET {c}1 v EX 10"), "OK");
    assert!(client.integer(&["PTTL", "{c}1"]).unwrap() <= 10_000);
    let replies = client
        .pipeline(&[
            vec!["SET", "{c}2", "v"],
            vec!["INCR", "{c}n"],
            vec!["GET", "{c}2"],
        ])
        .unwrap();
    let expected = [
        Value::Simple("OK".into()),
        Value::Integer(1),
        Value::Bulk(b"v".to_vec()),
    ];
    assert_eq!(replies, expected);
    assert!(client.integer(&["PTTL", "{c}n"]).unwrap() > 0);
}

#[test]
fn what_cannot_be_done_with_them_is_refused() {
    let stack = stack_with(ROUTE);
    let mut client = stack.client().unwrap();
    for (line, start) in [
        (
            "MSET c:1 v other v",
            "ERR keys of the cache-only route `c:*` and others",
        ),
        ("BLPOP c:l 1", "ERR BLPOP which may wait is not served"),
        ("WATCH c:1", "ERR WATCH is not served for cache-only keys"),
        ("SORT c:l BY w*", "ERR SORT with BY or GET is not served"),
        (
            "FRESHET.ONCE t SET c:1 v",
            "ERR SET under a token is not served",
        ),
    ] {
        let found = error(&mut client, line);
        assert!(found.starts_with(start), "{line}: {found}");
    }
    assert_eq!(text(&mut client, "MULTI"), "OK");
    assert_eq!(text(&mut client, "SET c:1 v"), "QUEUED");
    assert_eq!(text(&mut client, "SET other v"), "QUEUED");
    let found = error(&mut client, "EXEC");
    assert!(
        found.starts_with("ERR cache-only keys and others"),
        "{found}"
    );
    assert_eq!(call(&mut client, "EXISTS other"), Value::Integer(0));
    assert_eq!(call(&mut client, "EXISTS c:1"), Value::Integer(0));
}

#[test]
fn scripts_are_judged_command_by_command() {
    let routes = format!("{ROUTE}[[route]]\nmatch = \"r:*\"\nstrategy = \"read-only\"\n");
    let stack = stack_with(&routes);
    let mut client = stack.client().unwrap();
    let refused = |reply: Value| {
        reply
            .error()
            .unwrap_or_else(|| panic!("{reply:?}"))
            .to_owned()
    };
    // Declared, or come upon.
    let declared = client.call(&["EVAL", "return 1", "1", "c:1"]).unwrap();
    assert!(refused(declared).starts_with("ERR EVAL is not served for keys of the cache-only"));
    for (body, part) in [
        (
            "return redis.call('SET', 'c:1', 'v')",
            "keys of cache-only routes are not served",
        ),
        (
            "return redis.call('GET', 'c:1')",
            "keys of cache-only routes are not served",
        ),
        (
            "return redis.call('SET', 'r:1', 'v')",
            "READONLY the route `r:*` is read-only",
        ),
    ] {
        let found = refused(client.call(&["EVAL", body, "0"]).unwrap());
        assert!(found.contains(part), "{body}: {found}");
    }
    // Others are served, and so are reads of read-only keys.
    let body = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', 'r:1')";
    assert_eq!(
        client.call(&["EVAL", body, "1", "a", "v"]).unwrap(),
        Value::Null
    );
    assert_eq!(text(&mut client, "GET a"), "v");
    let rows = stack
        .sql()
        .unwrap()
        .query("SELECT key FROM freshet.keys WHERE kind IS NOT NULL", &[])
        .unwrap();
    assert_eq!(rows.len(), 1);
}
