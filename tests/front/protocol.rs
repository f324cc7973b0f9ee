//! What the protocol's edges answer, with a plain Redis as the judge.

use std::time::Duration;

use crate::support::client::encode;
use crate::support::{Client, Redis, Stack, Value};

/// Where Redis waits for more, Freshet does too, and neither for long.
const REPLY_LIMIT: Duration = Duration::from_secs(2);

/// Requests after which Redis answers and closes, or goes on until QUIT.
const REQUESTS: &[&str] = &[
    "PING\r\n",
    "PING\n",
    "\r\n\r\nPING\r\n",
    "*0\r\nPING\r\n",
    "*-1\r\nPING\r\n",
    "*-5\r\nPING\r\n",
    "set 'a b' \"c\\x41\\n\\\"\"\r\nget \"a b\"\r\n",
    "   echo   x   \r\n",
    "echo 'it\\'s'\r\n",
    "echo \"\"\r\n",
    "echo \"unbalanced\r\n",
    "echo 'unbalanced\r\n",
    "echo \"a\"b\r\n",
    "*abc\r\n",
    "*\r\n",
    "*2147483648\r\n",
    "*99999999999999999999\r\n",
    "*1\r\n+PING\r\n",
    "*1\r\nPING\r\n",
    "*1\r\n$abc\r\n",
    "*1\r\n$-1\r\n",
    "*1\r\n$536870913\r\n",
    "*2\r\n$4\r\nECHO\r\n:1\r\n",
    "*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
    "*1\r\n$0\r\n\r\n",
    "GET\r\n",
    "get a b c\r\n",
    "nosuchcommand a b\r\n",
    "CLIENT\r\n",
    "CLIENT NOSUCH\r\n",
    "COMMAND COUNT x\r\n",
    "OBJECT\r\n",
    "CONFIG\r\n",
    "SELECT 16\r\n",
    "SELECT -1\r\n",
    "SELECT x\r\n",
    "HELLO 4\r\n",
    "HELLO 1\r\n",
    "HELLO x\r\n",
    "HELLO 3 AUTH\r\n",
    "HELLO 3 AUTH default\r\n",
    "HELLO 3 SETNAME\r\n",
    "HELLO 3 NOSUCH\r\n",
    "HELLO 3 SETNAME \"a b\"\r\n",
    "AUTH x\r\n",
    "AUTH default x\r\n",
    "AUTH nobody x\r\n",
    "AUTH a b c\r\n",
    "CLIENT SETNAME \"a b\"\r\n",
    "CLIENT SETNAME x\r\nCLIENT GETNAME\r\n",
    "CLIENT GETNAME\r\n",
    "CLIENT KILL ID 0\r\n",
    "CLIENT KILL 1.2.3.4:5\r\n",
    "CLIENT NO-EVICT on\r\nCLIENT NO-EVICT x\r\n",
    "CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON\r\nPING\r\n",
    "CLIENT REPLY SKIP\r\nPING\r\nECHO x\r\n",
    "RESET\r\n",
    "PING a b\r\n",
    "ECHO\r\n",
];

fn requests() -> Vec<Vec<u8>> {
    let mut requests: Vec<Vec<u8>> = REQUESTS
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    requests.push(vec![b'x'; 70_000]);
    requests.push([vec![b'x'; 70_000], b"\r\n".to_vec()].concat());
    requests.push([b"*1\r\n$".to_vec(), vec![b'1'; 70_000]].concat());
    requests.push(encode(&[b"ECHO".as_slice(), b"\x00\xff\r\n"]));
    requests.push(encode(&[b"nosuch\r\ncommand".as_slice(), b"a\nb"]));
    requests.push(encode(&["x".repeat(300), "y".repeat(300)]));
    requests
}

#[test]
fn requests_right_and_wrong_are_answered_like_redis_byte_for_byte() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let mut differences = Vec::new();
    for mut request in requests() {
        request.extend_from_slice(b"QUIT\r\n");
        let answer = |mut client: Client| {
            client.set_reply_limit(REPLY_LIMIT).unwrap();
            // A server that refuses early may close before it has read all.
            let _ = client.send_raw(&request);
            client
                .read_to_close()
                .map_err(|error| error.to_string())
                .map(|bytes| bytes.escape_ascii().to_string())
        };
        let ours = answer(stack.client().unwrap());
        let theirs = answer(judge.client().unwrap());
        if ours != theirs {
            let shown: String = request
                .escape_ascii()
                .to_string()
                .chars()
                .take(90)
                .collect();
            differences.push(format!(
                "{shown}\n  Freshet: {ours:?}\n  Redis:   {theirs:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Redis 7.0 sets no limit but that of an `int`; Freshet keeps the one of other versions.
#[test]
fn request_of_more_than_a_million_arguments_is_refused() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.send_raw(b"*1048577\r\n").unwrap();
    let reply = client.read_to_close().unwrap();
    assert_eq!(reply, b"-ERR Protocol error: invalid multibulk length\r\n");
}

#[test]
fn ten_thousand_commands_at_once_are_answered_in_order() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut commands = Vec::new();
    for n in 0..5_000 {
        commands.push(vec![
            "SET".to_owned(),
            format!("key:{}", n % 100),
            n.to_string(),
        ]);
        commands.push(vec!["GET".to_owned(), format!("key:{}", n % 100)]);
    }
    let replies = client.pipeline(&commands).unwrap();
    for (n, pair) in replies.chunks(2).enumerate() {
        assert_eq!(pair[0], Value::Simple("OK".into()));
        assert_eq!(pair[1].text(), Some(n.to_string()));
    }
}

#[test]
fn request_in_single_bytes_is_understood() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for byte in encode(&["SET", "key", "some value"]) {
        client.send_raw(&[byte]).unwrap();
    }
    assert_eq!(client.read().unwrap(), Value::Simple("OK".into()));
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "some value");
}

#[test]
fn large_values_go_through_whole() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    // Above the limit up to which the cache is filled, too.
    for size in [100_000, 5_000_000, 20_000_000] {
        let value: Vec<u8> = (0..size)
            .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        client.ok(&[b"SET".as_slice(), b"large", &value]).unwrap();
        for _ in 0..2 {
            assert!(client.ok(&["GET", "large"]).unwrap() == Value::Bulk(value.clone()));
        }
        stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
        assert!(client.ok(&["GET", "large"]).unwrap() == Value::Bulk(value.clone()));
        assert_eq!(
            client.integer(&["STRLEN", "large"]).unwrap(),
            i64::from(size)
        );
    }
}

#[test]
fn hello_switches_the_protocol_and_tells_of_the_server() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    for version in ["2", "3"] {
        let names = |reply: Value| -> Vec<Option<String>> {
            match reply {
                Value::Map(pairs) => pairs.iter().map(|(name, _)| name.text()).collect(),
                Value::Array(items) => items.iter().step_by(2).map(Value::text).collect(),
                other => panic!("HELLO {version}: {other:?}"),
            }
        };
        let mut client = stack.client().unwrap();
        let ours = names(client.ok(&["HELLO", version, "SETNAME", "me"]).unwrap());
        let theirs = names(judge.client().unwrap().ok(&["HELLO", version]).unwrap());
        assert_eq!(ours, theirs);
        assert_eq!(client.text(&["CLIENT", "GETNAME"]).unwrap(), "me");
        let null: &[u8] = if version == "3" { b"_\r\n" } else { b"$-1\r\n" };
        client.send(&["GET", "nothing"]).unwrap();
        assert_eq!(client.read_with_bytes().unwrap().1, null);
        client.ok(&["RESET"]).unwrap();
        client.send(&["GET", "nothing"]).unwrap();
        assert_eq!(client.read_with_bytes().unwrap().1, b"$-1\r\n");
    }
}

#[test]
fn command_that_could_write_behind_our_back_never_reaches_the_cache() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    for command in [
        vec!["FCALL", "freshet1_open", "0", "9"],
        vec!["EVALSHA", "0000000000000000000000000000000000000000", "0"],
        vec!["MIGRATE", "127.0.0.1", "1", "key", "0", "10"],
        vec!["SHUTDOWN", "NOSAVE"],
        vec!["REPLICAOF", "127.0.0.1", "1"],
        vec!["DEBUG", "FLUSHALL"],
        vec!["CONFIG", "SET", "maxmemory", "1"],
    ] {
        let reply = client.call(&command).unwrap();
        assert!(reply.error().is_some(), "{command:?}: {reply:?}");
    }
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "value");
    // Clients' functions are Freshet's own business: those in the cache are not theirs.
    client.ok(&["FUNCTION", "FLUSH"]).unwrap();
    let libraries = stack.cache.client().unwrap().call(&["FUNCTION", "LIST"]);
    assert_ne!(libraries.unwrap(), Value::Array(Vec::new()));
    client.ok(&["SET", "key", "again"]).unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "again");
}
