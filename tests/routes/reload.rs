//! Routes as a whole: they come into force while serving, unless that would lose keys; what they
//! say of the cache; read-only keys.

use super::{LIMIT, add_routes, call, error, stack_with, text};
use crate::support::stack::FRESHET;
use crate::support::{Stack, Value, process};

#[test]
fn writes_of_read_only_keys_are_refused_and_change_nothing() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(text(&mut client, "SET r:1 before"), "OK");
    assert_eq!(text(&mut client, "SET free before"), "OK");
    add_routes(
        &stack.program,
        "\n[[route]]\nmatch = \"r:*\"\nstrategy = \"read-only\"\n",
    );
    for line in [
        "SET r:1 x",
        "DEL r:1",
        "EXPIRE r:1 1",
        "MSET free x r:1 x",
        "COPY free r:1 REPLACE",
        "RENAME r:1 free",
        "BLPOP r:list 1",
        "FLUSHALL",
        "FLUSHDB",
    ] {
        assert!(error(&mut client, line).starts_with("READONLY "), "{line}");
    }
    // A block is done as a whole or not at all.
    assert_eq!(text(&mut client, "MULTI"), "OK");
    assert_eq!(text(&mut client, "SET free x"), "QUEUED");
    assert_eq!(text(&mut client, "SET r:1 x"), "QUEUED");
    assert!(error(&mut client, "EXEC").starts_with("READONLY "));
    assert_eq!(text(&mut client, "GET r:1"), "before");
    assert_eq!(text(&mut client, "GET free"), "before");
    assert_eq!(call(&mut client, "COPY r:1 copied"), Value::Integer(1));
    // Who has no such route may write; its value is seen.
    let other = stack.second_program().unwrap();
    assert_eq!(text(&mut other.client().unwrap(), "SET r:1 after"), "OK");
    assert_eq!(text(&mut client, "GET r:1"), "after");
    let refused = stack.program.http("/metrics").unwrap().1;
    let counted =
        "freshet_route_keys_total{route=\"r:*\",strategy=\"read-only\",access=\"refused\"}";
    assert!(refused.contains(counted), "{refused}");
}

#[test]
fn keys_of_a_cdc_route_are_written_by_sql_alone() {
    let stack = stack_with("\n[[route]]\nmatch = \"q:*\"\nstrategy = \"cdc\"\n");
    let mut client = stack.client().unwrap();
    let refused = error(&mut client, "SET q:1 x");
    assert_eq!(
        refused,
        "READONLY keys of the route `q:*` are written by SQL; nothing was written"
    );
    assert!(error(&mut client, "FLUSHALL").starts_with("READONLY "));
    assert_eq!(call(&mut client, "GET q:1"), Value::Null);
    let sql = stack.sql().unwrap();
    sql.query("SELECT freshet.set('q:1', 'by sql')", &[])
        .unwrap();
    process::await_true("the cache follows", LIMIT, || {
        call(&mut client, "GET q:1") == Value::Bulk(b"by sql".to_vec())
    })
    .unwrap();
}

#[test]
fn a_route_says_how_long_and_how_much_the_cache_keeps() {
    let stack = stack_with(
        "\n[[route]]\nmatch = \"s:*\"\nttl = \"1h\"\nttl_jitter = 50\nabsent_ttl = \"5s\"\n\
         fill_limit = \"1kB\"\n",
    );
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    let mut lives = Vec::new();
    for n in 0..20 {
        let key = format!("s:{n}");
        assert_eq!(text(&mut client, &format!("SET {key} v")), "OK");
        lives.push(cache.integer(&["PTTL", &key]).unwrap());
        // Also what is read from the store.
        cache.ok(&["DEL", &key]).unwrap();
        assert_eq!(text(&mut client, &format!("GET {key}")), "v");
        lives.push(cache.integer(&["PTTL", &key]).unwrap());
        assert_eq!(call(&mut client, &format!("TTL {key}")), Value::Integer(-1));
    }
    let hour = 3_600_000;
    assert!(
        lives
            .iter()
            .all(|life| (hour / 2 - 5_000..=hour).contains(life)),
        "{lives:?}"
    );
    assert!(
        lives.iter().max().unwrap() - lives.iter().min().unwrap() > 60_000,
        "{lives:?}"
    );
    assert_eq!(call(&mut client, "HSET s:h f v"), Value::Integer(1));
    assert!(cache.integer(&["PTTL", "s:h"]).unwrap() <= hour);
    assert_eq!(text(&mut client, "SET other v"), "OK");
    assert!(cache.integer(&["PTTL", "other"]).unwrap() > 20 * hour);

    assert_eq!(call(&mut client, "GET s:absent"), Value::Null);
    let mark = cache.integer(&["PTTL", "\0fc{s:absent}"]).unwrap();
    assert!((1..=5_000).contains(&mark), "{mark}");
    assert_eq!(call(&mut client, "DEL s:0"), Value::Integer(1));
    let mark = cache.integer(&["PTTL", "\0fc{s:0}"]).unwrap();
    assert!((1..=5_000).contains(&mark), "{mark}");

    let long = "x".repeat(2_000);
    assert_eq!(text(&mut client, &format!("SET s:long {long}")), "OK");
    assert_eq!(text(&mut client, "GET s:long"), long);
    assert_eq!(cache.integer(&["EXISTS", "s:long"]).unwrap(), 0);
}

#[test]
fn a_reload_that_would_lose_cache_only_keys_changes_no_route() {
    let stack = stack_with("\n[[route]]\nmatch = \"c:*\"\nstrategy = \"cache-only\"\n");
    let mut client = stack.client().unwrap();
    stack
        .program
        .await_log("this route is cache-only now", LIMIT)
        .unwrap();
    assert_eq!(text(&mut client, "SET c:1 kept"), "OK");
    stack
        .program
        .replace_in_configuration("\"cache-only\"", "\"atomic\"")
        .unwrap();
    stack.program.signal("HUP").unwrap();
    stack
        .program
        .await_log("routes not reloaded", LIMIT)
        .unwrap();
    assert_eq!(text(&mut client, "GET c:1"), "kept");
    // What does not concern them may be added.
    stack
        .program
        .replace_in_configuration("\"atomic\"", "\"cache-only\"")
        .unwrap();
    add_routes(
        &stack.program,
        "\n[[route]]\nmatch = \"r:*\"\nstrategy = \"read-only\"\n",
    );
    let refused = || error(&mut stack.client().unwrap(), "SET r:1 x");
    process::await_true("it is in force", LIMIT, || {
        call(&mut stack.client().unwrap(), "SET r:1 x")
            .error()
            .is_some()
    })
    .unwrap();
    assert!(refused().starts_with("READONLY"));
    assert_eq!(text(&mut client, "GET c:1"), "kept");
}

#[test]
fn the_command_line_explains_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    std::fs::write(
        &file,
        "[[route]]\nmatch = \"s:*\"\nstrategy = \"eventual\"\n",
    )
    .unwrap();
    let explained = std::process::Command::new(FRESHET)
        .args(["routes", "explain", "s:1", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.status.success());
    assert!(
        told.contains("route:     1 of 1, line 1: match = \"s:*\""),
        "{told}"
    );
    assert!(told.contains("strategy:  eventual: "), "{told}");

    std::fs::write(
        &file,
        "[[route]]\nmatch = \"s:*\"\nstrategy = \"sometimes\"\n",
    )
    .unwrap();
    let checked = std::process::Command::new(FRESHET)
        .args(["check-config", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(!checked.status.success());
    assert!(
        told.contains(":3: route[1].strategy must be one of atomic"),
        "{told}"
    );
}
