//! Rows of `freshet.keys` that somebody changes in psql.

use super::await_value;
use crate::support::{Sql, Stack};

fn version(sql: &Sql, key: &str) -> i64 {
    let rows = sql
        .query(
            "SELECT version FROM freshet.keys WHERE db = 0 AND key = $1",
            &[&key.as_bytes()],
        )
        .unwrap();
    rows[0].get(0)
}

fn message(error: anyhow::Error) -> String {
    let error = error.downcast::<tokio_postgres::Error>().unwrap();
    error.as_db_error().unwrap().message().to_owned()
}

#[test]
fn every_way_to_change_a_row_reaches_the_cache() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    for key in ["a", "b", "c", "d"] {
        client.ok(&["SET", key, "old"]).unwrap();
        assert_eq!(client.text(&["GET", key]).unwrap(), "old");
    }
    // An absent mark.
    assert_eq!(client.ok(&["GET", "new"]).unwrap().text(), None);
    let before = version(&sql, "a");
    sql.execute("UPDATE freshet.keys SET value = 'new' WHERE key = 'a'")
        .unwrap();
    assert_eq!(version(&sql, "a"), before + 1);
    await_value(&mut client, "a", Some("new"));
    // Who raises the version himself does not raise it twice.
    sql.execute("UPDATE freshet.keys SET value = 'newer', version = version + 1 WHERE key = 'a'")
        .unwrap();
    assert_eq!(version(&sql, "a"), before + 2);
    await_value(&mut client, "a", Some("newer"));
    sql.execute("INSERT INTO freshet.keys (db, key, kind, value) VALUES (0, 'new', 0, 'here')")
        .unwrap();
    await_value(&mut client, "new", Some("here"));
    sql.execute(
        "INSERT INTO freshet.keys (db, key, kind, value) VALUES (0, 'new', 0, 'there')
             ON CONFLICT (db, key) DO UPDATE SET value = excluded.value",
    )
    .unwrap();
    await_value(&mut client, "new", Some("there"));
    // What is deleted leaves its version.
    let before = version(&sql, "b");
    sql.execute("DELETE FROM freshet.keys WHERE key = 'b'")
        .unwrap();
    assert_eq!(version(&sql, "b"), before + 1);
    await_value(&mut client, "b", None);
    sql.execute("DELETE FROM freshet.keys WHERE key = 'b'")
        .unwrap();
    assert_eq!(version(&sql, "b"), before + 1);
    client.ok(&["SET", "b", "back"]).unwrap();
    assert_eq!(version(&sql, "b"), before + 2);
    sql.execute("UPDATE freshet.keys SET expires_ms = freshet.now_ms() - 1 WHERE key = 'c'")
        .unwrap();
    await_value(&mut client, "c", None);
    sql.execute("UPDATE freshet.keys SET key = 'moved' WHERE key = 'd'")
        .unwrap();
    await_value(&mut client, "d", None);
    await_value(&mut client, "moved", Some("old"));
}

#[test]
fn what_the_cache_could_not_hear_of_is_refused() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    client.ok(&["HSET", "h", "f", "v"]).unwrap();
    for statement in [
        "UPDATE freshet.element SET value = 'w'",
        "DELETE FROM freshet.element",
        "TRUNCATE freshet.element",
        "INSERT INTO freshet.element (content, field, value) VALUES (1, 'g', 'w')",
    ] {
        let text = message(sql.execute(statement).unwrap_err());
        assert!(
            text.starts_with("freshet.element cannot be changed by hand"),
            "{text}"
        );
    }
    let text = message(sql.execute("TRUNCATE freshet.keys").unwrap_err());
    assert!(
        text.starts_with("freshet.keys cannot be truncated"),
        "{text}"
    );
    for row in [
        "77, 'k', 0, 'v'",
        "0, 'k', 1, NULL",
        "0, 'k', 0, NULL",
        "0, 'k', 9, 'v'",
    ] {
        let statement = format!("INSERT INTO freshet.keys (db, key, kind, value) VALUES ({row})");
        let text = message(sql.execute(&statement).unwrap_err());
        assert!(text.starts_with("ERR "), "{text}");
    }
    assert_eq!(client.text(&["HGET", "h", "f"]).unwrap(), "v");
    // Proxies are not stopped from any of it.
    client.ok(&["HSET", "h", "f", "w"]).unwrap();
    client.ok(&["FLUSHALL"]).unwrap();
    assert_eq!(client.integer(&["EXISTS", "h"]).unwrap(), 0);
}

#[test]
fn versions_go_on_above_what_was_purged() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    for _ in 0..5 {
        client.ok(&["SET", "k", "v"]).unwrap();
    }
    client.ok(&["FLUSHALL"]).unwrap();
    sql.execute("SELECT freshet.set('a', 'v'); INSERT INTO freshet.keys (db, key, kind, value) VALUES (0, 'b', 0, 'v')")
        .unwrap();
    assert_eq!((version(&sql, "a"), version(&sql, "b")), (6, 6));
    // Whatever the isolation, and whenever the snapshot was taken.
    sql.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM freshet.keys")
        .unwrap();
    client.ok(&["SET", "a", "v"]).unwrap();
    client.ok(&["FLUSHDB"]).unwrap();
    sql.execute("SELECT freshet.set('c', 'v'); COMMIT").unwrap();
    assert_eq!(version(&sql, "c"), 8);
}

#[test]
fn proxies_leave_no_changes() {
    let stack = Stack::start_with(&[("cdc.capture", "off")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    for command in [
        &["SET", "a", "1"][..],
        &["SET", "a", "2"],
        &["INCR", "a"],
        &["EXPIRE", "a", "100"],
        &["HSET", "h", "f", "v"],
        &["HDEL", "h", "f"],
        &["SETNX", "b", "1"],
        &["RENAME", "b", "c"],
        &["DEL", "c"],
        &["SWAPDB", "0", "1"],
        &["FLUSHDB"],
        &["FLUSHALL"],
    ] {
        client.ok(command).unwrap();
    }
    let sql = stack.sql().unwrap();
    assert!(
        sql.query("SELECT FROM freshet.change", &[])
            .unwrap()
            .is_empty()
    );
    // Nobody reads them here.
    sql.execute("SELECT freshet.set('a', 'v')").unwrap();
    assert_eq!(
        sql.query("SELECT FROM freshet.change", &[]).unwrap().len(),
        1
    );
}
