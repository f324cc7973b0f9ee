//! What was acknowledged is in PostgreSQL.

use crate::support::{Stack, Value};

/// The live strings of a database as people see them: key and value as bytes.
fn rows(stack: &Stack) -> Vec<(i16, Vec<u8>, Vec<u8>)> {
    stack
        .sql()
        .unwrap()
        .query(
            "select db, key_bytes, value_bytes from freshet.strings order by db, key_bytes",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

fn row(db: i16, key: &[u8], value: &[u8]) -> (i16, Vec<u8>, Vec<u8>) {
    (db, key.to_vec(), value.to_vec())
}

#[test]
fn acknowledged_write_is_a_row_in_postgresql() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "greeting", "hello"]).unwrap();
    client
        .ok(&[b"SET".as_slice(), b"\x00\xff\r\n", b"\xde\xad\x00\xbe"])
        .unwrap();
    client.ok(&["APPEND", "greeting", " world"]).unwrap();
    client.ok(&["INCRBY", "count", "41"]).unwrap();
    client.ok(&["INCR", "count"]).unwrap();
    client.ok(&["MSET", "a", "1", "b", "2"]).unwrap();
    client.ok(&["RENAME", "a", "c"]).unwrap();
    client.ok(&["DEL", "b"]).unwrap();
    client.ok(&["SET", "", "no name"]).unwrap();
    client.ok(&["SELECT", "3"]).unwrap();
    client.ok(&["SET", "greeting", "elsewhere"]).unwrap();
    let expected = vec![
        row(0, b"", b"no name"),
        row(0, b"\x00\xff\r\n", b"\xde\xad\x00\xbe"),
        row(0, b"c", b"1"),
        row(0, b"count", b"42"),
        row(0, b"greeting", b"hello world"),
        row(3, b"greeting", b"elsewhere"),
    ];
    assert_eq!(rows(&stack), expected);
    stack.program.stop_quietly().unwrap();
    assert_eq!(rows(&stack), expected);
}

#[test]
fn expiry_and_readable_text_are_in_the_view() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client
        .ok(&["SET", "größe", "42 µm", "PXAT", "4000000000123"])
        .unwrap();
    client.ok(&[b"SET".as_slice(), b"\xff", b"x"]).unwrap();
    let rows = stack
        .sql()
        .unwrap()
        .query(
            "select key, value, expires_at = to_timestamp(4000000000.123)
             from freshet.strings order by key_bytes",
            &[],
        )
        .unwrap();
    let seen: Vec<(String, String, Option<bool>)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(seen[0], ("größe".into(), "42 µm".into(), Some(true)));
    assert_eq!(seen[1], ("\\xff".into(), "x".into(), None));
}

#[test]
fn nothing_is_lost_when_cache_and_proxy_are() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let commands: Vec<Vec<String>> = (0..2000)
        .map(|n| vec!["SET".into(), format!("key:{n}"), format!("value {n}")])
        .collect();
    for reply in client.pipeline(&commands).unwrap() {
        assert_eq!(reply, Value::Simple("OK".into()));
    }
    stack.cache.kill().unwrap();
    stack.program.kill().unwrap();
    stack.cache.start_again().unwrap();
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    let reads: Vec<Vec<String>> = (0..2000)
        .map(|n| vec!["GET".into(), format!("key:{n}")])
        .collect();
    for (n, reply) in client.pipeline(&reads).unwrap().iter().enumerate() {
        assert_eq!(reply.text(), Some(format!("value {n}")));
    }
    assert_eq!(client.integer(&["DBSIZE"]).unwrap(), 2000);
}

#[test]
fn refused_command_changes_nothing() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "text", "abc"]).unwrap();
    for command in [
        vec!["INCR", "text"],
        vec!["SETRANGE", "text", "536870912", "x"],
        vec!["SET", "text", "new", "EX", "0"],
        vec!["MSET", "text", "new", "other"],
        vec!["RENAME", "missing", "text"],
        vec!["COPY", "text", "other", "DB", "99"],
        vec![
            "BITFIELD", "text", "SET", "u8", "0", "1", "INCRBY", "x9", "0", "1",
        ],
        vec!["LPUSH", "text", "x"],
        vec!["EVAL", "return redis.call('set', 'text'", "0"],
    ] {
        let reply = client.call(&command).unwrap();
        assert!(reply.error().is_some(), "{command:?}: {reply:?}");
    }
    assert_eq!(rows(&stack), vec![row(0, b"text", b"abc")]);
    let mut cache = stack.cache.client().unwrap();
    assert_eq!(cache.call(&["EXISTS", "other"]).unwrap(), Value::Integer(0));
    assert_eq!(client.text(&["GET", "text"]).unwrap(), "abc");
}

/// A key that nobody has is not looked up again and again.
#[test]
fn absent_key_is_remembered_and_forgotten_in_time() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for _ in 0..3 {
        assert_eq!(client.call(&["GET", "later"]).unwrap(), Value::Null);
        assert_eq!(client.integer(&["EXISTS", "later"]).unwrap(), 0);
    }
    client.ok(&["SET", "later", "now"]).unwrap();
    assert_eq!(client.text(&["GET", "later"]).unwrap(), "now");
    client.ok(&["DEL", "later"]).unwrap();
    assert_eq!(client.call(&["GET", "later"]).unwrap(), Value::Null);
}
