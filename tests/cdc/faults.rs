//! The proxy whose turn it is dies or stands still, the cache is away, there are too many changes.

use std::thread;
use std::time::Duration;

use super::{LIMIT, await_turn, await_value, tells};
use crate::support::stack::FRESHET;
use crate::support::{Client, Detour, Program, Sql, Stack, process};

/// Longer than a turn lasts without renewal.
const LONGER_THAN_A_TURN: Duration = Duration::from_secs(6);

fn changes(sql: &Sql) -> usize {
    sql.query("SELECT FROM freshet.change", &[]).unwrap().len()
}

fn await_no_changes(sql: &Sql) {
    process::await_true("all changes are told of", LIMIT, || changes(sql) == 0).unwrap();
}

/// Sets keys whose old values are in the cache.
fn cache_and_change(client: &mut Client, sql: &Sql, value: &str) {
    for key in ["a", "b", "c"] {
        client.ok(&["GET", key]).unwrap();
    }
    sql.execute(&format!(
        "SELECT freshet.set('a', '{value}'), freshet.set('b', '{value}');
         UPDATE freshet.keys SET value = '{value}' WHERE key = 'c'"
    ))
    .unwrap();
}

fn await_all(client: &mut Client, value: &str) {
    for key in ["a", "b", "c"] {
        await_value(client, key, Some(value));
    }
}

#[test]
fn another_proxy_takes_over_from_one_that_dies_at_any_step() {
    let mut stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let second = stack.second_program().unwrap();
    let mut client = second.client().unwrap();
    client.ok(&["MSET", "a", "0", "b", "0", "c", "0"]).unwrap();
    for (round, point) in ["before-tell", "before-forget"].into_iter().enumerate() {
        // The one that is armed gets the turn, if nobody else is there to take it.
        second.signal("STOP").unwrap();
        stack.program.kill().unwrap();
        stack.program.arm(&format!("{point}=exit@1"));
        stack.program.start_again().unwrap();
        await_turn(&stack.program);
        second.signal("CONT").unwrap();
        let value = format!("{point} {round}");
        cache_and_change(&mut client, &sql, &value);
        process::await_some("it dies", LIMIT, || stack.program.try_exit()).unwrap();
        assert!(changes(&sql) > 0, "{point}: nothing was left to the other");
        await_all(&mut client, &value);
        await_no_changes(&sql);
        stack.program.disarm();
        stack.program.start_again().unwrap();
    }
}

#[test]
fn one_that_is_stopped_leaves_its_turn_at_once() {
    let mut stack = Stack::start().unwrap();
    await_turn(&stack.program);
    stack.program.stop().unwrap();
    let sql = stack.sql().unwrap();
    let left = "SELECT FROM freshet.teller WHERE until = '-infinity'";
    assert_eq!(sql.query(left, &[]).unwrap().len(), 1);
}

#[test]
fn one_that_stood_still_for_long_does_no_harm_when_it_goes_on() {
    for point in ["before-tell", "before-forget"] {
        let mut stack = Stack::start_with(&[("cdc.capture", "off")], &[]).unwrap();
        let sql = stack.sql().unwrap();
        let mut slow = Program::stopped(FRESHET, &stack.database, &stack.cache.url(), &[]).unwrap();
        slow.arm(&format!(
            "{point}=stall:{}@1",
            LONGER_THAN_A_TURN.as_millis()
        ));
        slow.start_again().unwrap();
        await_turn(&slow);
        let other = stack.second_program().unwrap();
        let mut client = other.client().unwrap();
        client.ok(&["MSET", "a", "0", "b", "0", "c", "0"]).unwrap();
        cache_and_change(&mut client, &sql, "1");
        slow.await_log("fault point: stall", LIMIT).unwrap();
        await_turn(&other);
        await_all(&mut client, "1");
        // Newer values are there when it goes on with the old ones, some by SQL and some by clients.
        for value in 2..200 {
            let value = value.to_string();
            cache_and_change(&mut client, &sql, &value);
            client.ok(&["SET", "a", &value]).unwrap();
            await_all(&mut client, &value);
            thread::sleep(Duration::from_millis(30));
            assert_eq!(client.text(&["GET", "b"]).unwrap(), value);
        }
        await_no_changes(&sql);
        let counted = slow.metric("freshet_cdc_changes_total").unwrap();
        assert!(counted > 0.0, "it did not go on");
        stack.program.stop().unwrap();
    }
}

#[test]
fn one_that_alone_does_not_reach_the_cache_leaves_it_to_others() {
    let stack = Stack::start_with(&[("cdc.capture", "off")], &[]).unwrap();
    let sql = stack.sql().unwrap();
    let detour = Detour::to(stack.cache.address()).unwrap();
    let url = format!("redis://{}", detour.address());
    let cut_off = Program::start(FRESHET, &stack.database, &url, &[]).unwrap();
    await_turn(&cut_off);
    let other = stack.second_program().unwrap();
    let mut client = other.client().unwrap();
    client.ok(&["MSET", "a", "0", "b", "0", "c", "0"]).unwrap();
    detour.cut();
    let mut value = 0;
    process::await_true("the other has the turn", LIMIT, || {
        value += 1;
        sql.execute(&format!("SELECT freshet.set('a', '{value}')"))
            .unwrap();
        tells(&other)
    })
    .unwrap();
    cache_and_change(&mut client, &sql, "last");
    await_all(&mut client, "last");
    await_no_changes(&sql);
    assert!(!tells(&cut_off));
}

#[test]
fn what_was_written_while_the_cache_was_away_is_shown_when_it_is_back() {
    let mut stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "a", "0", "b", "0", "c", "0"]).unwrap();
    cache_and_change(&mut client, &sql, "1");
    stack.cache.kill().unwrap();
    for round in 0..50 {
        cache_and_change(&mut client, &sql, &format!("away {round}"));
        thread::sleep(Duration::from_millis(20));
    }
    await_all(&mut client, "away 49");
    // It does not grow while the cache is away.
    await_no_changes(&sql);
    stack.cache.start_again().unwrap();
    for round in 0..50 {
        cache_and_change(&mut client, &sql, &format!("back {round}"));
        thread::sleep(Duration::from_millis(20));
    }
    stack.await_cache_in_use().unwrap();
    await_all(&mut client, "back 49");
    await_no_changes(&sql);
}

#[test]
fn it_goes_on_when_the_store_is_back() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "a", "0", "b", "0", "c", "0"]).unwrap();
    for value in ["1", "2"] {
        let sql = stack.sql().unwrap();
        cache_and_change(&mut client, &sql, value);
        stack.postgres().unwrap().crash().unwrap();
        stack.postgres().unwrap().start_again().unwrap();
        await_all(&mut client, value);
        await_no_changes(&stack.sql().unwrap());
    }
}

fn noting(sql: &Sql) -> String {
    let rows = sql
        .query("SELECT state FROM freshet.change_limit", &[])
        .unwrap();
    rows[0].get(0)
}

#[test]
fn the_cache_is_voided_for_more_changes_than_are_kept() {
    let stack = Stack::start_with(&[("cdc.capture", "off")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    let (sql, open) = (stack.sql().unwrap(), stack.sql().unwrap());
    client.ok(&["MSET", "a", "0", "b", "0", "c", "0"]).unwrap();
    sql.execute("UPDATE freshet.change_limit SET changes = 1000")
        .unwrap();
    sql.execute("SELECT freshet.set('other:' || n, 'v') FROM generate_series(1, 5000) n")
        .unwrap();
    assert_eq!(noting(&sql), "full");
    assert_eq!(changes(&sql), 2000);
    // Of these nothing is noted, and one is not committed yet.
    cache_and_change(&mut client, &sql, "new");
    open.execute("BEGIN; SELECT freshet.set('d', 'late')")
        .unwrap();
    assert_eq!(client.ok(&["GET", "d"]).unwrap().text(), None);
    assert_eq!(changes(&sql), 2000);
    let before = stack.program.metric("freshet_generation").unwrap();
    let second = Program::start(
        FRESHET,
        &stack.database,
        &stack.cache.url(),
        &[("cdc.backlog", "1000")],
    )
    .unwrap();
    process::await_true("it waits for the open transaction", LIMIT, || {
        let waits = sql
            .query(
                "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%change_limit%'
                    AND datname = current_database()",
                &[],
            )
            .unwrap();
        !waits.is_empty()
    })
    .unwrap();
    assert_eq!(noting(&sql), "full");
    open.execute("COMMIT").unwrap();
    process::await_true("changes are noted again", LIMIT, || noting(&sql) == "open").unwrap();
    assert!(second.metric("freshet_generation").unwrap() > before);
    await_all(&mut client, "new");
    await_value(&mut client, "d", Some("late"));
    await_no_changes(&sql);
    cache_and_change(&mut client, &sql, "newer");
    await_all(&mut client, "newer");
}
