//! A store that has lost its latest past: what the cache holds of it must not be shown.

use std::time::Duration;

use super::store::Pair;
use super::{LIMIT, await_state, await_write};
use crate::support::{Client, Program, Stack, Value, process};

/// Reads both keys; refusals are waited out.
fn both(client: &mut Client) -> [Option<String>; 2] {
    let mut seen = None;
    process::await_true("both are read", LIMIT, || {
        let reply = client.call(&["MGET", "one", "two"]).unwrap();
        if reply.error().is_none() {
            seen = Some([reply.items()[0].text(), reply.items()[1].text()]);
        }
        seen.is_some()
    })
    .unwrap();
    seen.unwrap()
}

fn texts(one: &str, two: &str) -> [Option<String>; 2] {
    [Some(one.to_owned()), Some(two.to_owned())]
}

fn noticed(program: &Program) {
    program.await_log("another history", LIMIT).unwrap();
    let changes = program
        .metric("freshet_store_history_changes_total")
        .unwrap();
    assert!(changes >= 1.0, "{changes}");
}

#[test]
fn a_promoted_standby_that_lost_commits_voids_the_cache_of_all_proxies() {
    let mut pair = Pair::start();
    let (first, second) = (pair.program(), pair.program());
    let mut clients = [first.client().unwrap(), second.client().unwrap()];
    clients[0]
        .ok(&["MSET", "one", "kept", "two", "kept"])
        .unwrap();
    clients[0].ok(&["SET", "count", "10"]).unwrap();
    for client in &mut clients {
        assert_eq!(both(client), texts("kept", "kept"));
    }
    let query = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
    let standby = crate::support::Sql::connect(&pair.standby_url).unwrap();
    let primary = crate::support::Sql::connect(&pair.url).unwrap();
    let now = primary
        .query("select pg_current_wal_lsn()::text", &[])
        .unwrap()[0]
        .get::<_, String>(0);
    process::await_true("it is replicated", LIMIT, || {
        standby.query(query, &[&now]).unwrap()[0].get(0)
    })
    .unwrap();
    pair.cut_off();
    // Acknowledged, shown, and lost.
    clients[0]
        .ok(&["MSET", "one", "lost", "two", "lost"])
        .unwrap();
    clients[1].ok(&["INCR", "count"]).unwrap();
    clients[0].ok(&["SET", "only here", "lost"]).unwrap();
    for client in &mut clients {
        assert_eq!(both(client), texts("lost", "lost"));
    }
    drop((standby, primary));
    pair.primary.kill().unwrap();
    pair.standby.promote().unwrap();
    // The first write on the new primary gives a key the version that the lost one had.
    await_write(&mut clients[0], "one", "new");
    for client in &mut clients {
        assert_eq!(both(client), texts("new", "kept"));
        assert_eq!(client.call(&["GET", "only here"]).unwrap(), Value::Null);
    }
    assert_eq!(clients[1].integer(&["INCR", "count"]).unwrap(), 11);
    for (program, client) in [&first, &second].into_iter().zip(&mut clients) {
        await_state(program, "active");
        assert_eq!(both(client), texts("new", "kept"));
        assert_eq!(client.text(&["GET", "count"]).unwrap(), "11");
    }
    noticed(&first);
}

/// Files of the cluster as they were: the same timeline, an earlier end of the log, and a generation
/// of the cache that is long over.
#[test]
fn a_store_that_was_taken_back_voids_what_a_running_proxy_knows() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "one", "kept", "two", "kept"]).unwrap();
    stack.postgres().unwrap().stop().unwrap();
    stack.postgres().unwrap().save().unwrap();
    stack.postgres().unwrap().start_again().unwrap();
    await_write(&mut client, "one", "lost");
    await_state(&stack.program, "active");
    // A later generation, which the restored store does not know.
    client.ok(&["FLUSHDB"]).unwrap();
    client.ok(&["MSET", "one", "lost", "two", "lost"]).unwrap();
    await_state(&stack.program, "active");
    let before = stack.program.metric("freshet_generation").unwrap();
    assert_eq!(both(&mut client), texts("lost", "lost"));
    stack.postgres().unwrap().stop().unwrap();
    stack.postgres().unwrap().restore().unwrap();
    stack.postgres().unwrap().start_again().unwrap();
    await_write(&mut client, "two", "new");
    assert_eq!(both(&mut client), texts("kept", "new"));
    await_state(&stack.program, "active");
    assert_eq!(both(&mut client), texts("kept", "new"));
    let after = stack.program.metric("freshet_generation").unwrap();
    assert!(after > before, "{after} after {before}");
    noticed(&stack.program);
}

/// No proxy was there to remember: the cache itself notes how far the store had come.
#[test]
fn a_store_that_was_taken_back_while_no_proxy_ran_voids_the_cache() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "one", "kept", "two", "kept"]).unwrap();
    stack.postgres().unwrap().stop().unwrap();
    stack.postgres().unwrap().save().unwrap();
    stack.postgres().unwrap().start_again().unwrap();
    await_write(&mut client, "one", "lost");
    await_state(&stack.program, "active");
    assert_eq!(both(&mut client), texts("lost", "kept"));
    let mut cache = stack.cache.client().unwrap();
    let note = cache.text(&["GET", "\0f:store"]).unwrap();
    process::await_true("the note is renewed", LIMIT, || {
        cache.text(&["GET", "\0f:store"]).unwrap() != note || {
            client.ok(&["SET", "more", "log"]).unwrap();
            false
        }
    })
    .unwrap();
    stack.program.kill().unwrap();
    stack.postgres().unwrap().stop().unwrap();
    stack.postgres().unwrap().restore().unwrap();
    stack.postgres().unwrap().start_again().unwrap();
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(both(&mut client), texts("kept", "kept"));
    stack
        .program
        .await_log("another history", Duration::from_secs(5))
        .unwrap();
    await_state(&stack.program, "active");
    assert_eq!(both(&mut client), texts("kept", "kept"));
}

/// A crash and a restart lose nothing, and cost the cache nothing.
#[test]
fn a_restart_of_postgresql_is_no_other_history() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "one", "1", "two", "2"]).unwrap();
    let before = stack.program.metric("freshet_generation").unwrap();
    for crash in [true, false] {
        if crash {
            stack.postgres().unwrap().crash().unwrap();
        } else {
            stack.postgres().unwrap().stop().unwrap();
        }
        stack.postgres().unwrap().start_again().unwrap();
        await_write(&mut client, "two", "2");
        assert_eq!(both(&mut client), texts("1", "2"));
    }
    let after = stack.program.metric("freshet_generation").unwrap();
    assert_eq!(after, before);
}
