//! Programs of two versions on one schema and one cache.

use std::time::Duration;

use super::await_state;
use crate::support::stack::FRESHET;
use crate::support::{Program, Stack};

/// A later program was here: what it says of older ones counts, not its number.
#[test]
fn a_newer_schema_is_accepted_if_it_says_so_and_refused_otherwise() {
    let mut stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    sql.execute(
        "insert into freshet.migration (version, program, oldest) values (1000, 'freshet 9', 2)",
    )
    .unwrap();
    let second = stack.second_program().unwrap();
    second
        .client()
        .unwrap()
        .ok(&["SET", "key", "value"])
        .unwrap();
    drop(second);
    sql.execute("update freshet.migration set oldest = 1000 where version = 1000")
        .unwrap();
    let mut refused = Program::stopped(FRESHET, &stack.database, &stack.cache.url(), &[]).unwrap();
    refused.spawn().unwrap();
    let status = refused.await_exit(Duration::from_secs(20)).unwrap();
    assert!(!status.success());
    let said = refused.log_text();
    assert!(said.contains("start a newer freshet"), "{said}");
    // Those that run go on.
    stack
        .client()
        .unwrap()
        .ok(&["SET", "key", "value"])
        .unwrap();
    stack.program.stop().unwrap();
}

/// As the schema was before migrations told of older programs.
#[test]
fn a_ledger_without_the_column_is_brought_up_to_date() {
    let mut stack = Stack::start().unwrap();
    stack
        .client()
        .unwrap()
        .ok(&["SET", "key", "value"])
        .unwrap();
    stack.program.stop().unwrap();
    let sql = stack.sql().unwrap();
    sql.execute(
        "delete from freshet.migration where version between 3 and 7;
         alter table freshet.migration drop column oldest;
         alter table freshet.fence drop column replication_id;
         alter table freshet.proxy drop column lease_ms;
         drop function freshet.server;
         drop table freshet.once, freshet.scan, freshet.script, freshet.library,
                    freshet.script_epoch, freshet.reconciliation, freshet.difference",
    )
    .unwrap();
    stack.program.start_again().unwrap();
    await_state(&stack.program, "active");
    let mut client = stack.client().unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "value");
    let rows = sql
        .query(
            "select count(*) from freshet.migration where version > 2 and oldest = 2",
            &[],
        )
        .unwrap();
    assert!(rows[0].get::<_, i64>(0) >= 1);
}

/// A program of another build has a library of its own in the cache, which stays as it is.
#[test]
fn libraries_of_two_builds_stand_side_by_side() {
    let stack = Stack::start().unwrap();
    let mut cache = stack.cache.client().unwrap();
    let other = "#!lua name=freshet1\nredis.register_function('freshet1_begin', function() return 'other' end)";
    cache.ok(&["FUNCTION", "LOAD", other]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "value");
    assert_eq!(
        cache.text(&["FCALL", "freshet1_begin", "0"]).unwrap(),
        "other"
    );
    let second = stack.second_program().unwrap();
    await_state(&second, "active");
    assert_eq!(
        second.client().unwrap().text(&["GET", "key"]).unwrap(),
        "value"
    );
    assert_eq!(
        cache.text(&["FCALL", "freshet1_begin", "0"]).unwrap(),
        "other"
    );
    let libraries = cache.call(&["FUNCTION", "LIST"]).unwrap();
    assert_eq!(libraries.items().len(), 2);
}
