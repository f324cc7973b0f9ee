//! `eventual`: acknowledged after the store's commit, and never stale over fresh.

use super::{LIMIT, add_routes, text};
use crate::support::stack::FRESHET;
use crate::support::{Program, Stack, Value, process};

const ROUTE: &str = "\n[[route]]\nmatch = \"e:*\"\nstrategy = \"eventual\"\n";

/// A further proxy, in which every apply happens late.
fn slow_program(stack: &Stack, stall: &str) -> Program {
    let mut slow = Program::stopped(FRESHET, &stack.database, &stack.cache.url(), &[]).unwrap();
    slow.arm(&format!("before-apply=stall:{stall}"));
    slow.start_again().unwrap();
    add_routes(&slow, ROUTE);
    slow
}

#[test]
fn a_proxy_that_dies_between_acknowledgement_and_apply_leaves_nothing_stale() {
    let stack = Stack::start().unwrap();
    let mut other = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    let mut slow = slow_program(&stack, "600000");
    assert_eq!(text(&mut other, "SET e:1 old"), "OK");
    assert_eq!(cache.text(&["GET", "e:1"]).unwrap(), "old");
    // It is acknowledged although the cache will not be told for ten minutes.
    assert_eq!(text(&mut slow.client().unwrap(), "SET e:1 new"), "OK");
    assert_eq!(cache.call(&["GET", "e:1"]).unwrap(), Value::Null);
    assert_eq!(text(&mut other, "GET e:1"), "new");
    slow.kill().unwrap();
    assert_eq!(text(&mut other, "GET e:1"), "new");
    // What it left behind is taken away: the key can be cached again.
    process::await_true("the key is in the cache again", LIMIT, || {
        assert_eq!(text(&mut other, "GET e:1"), "new");
        cache.call(&["GET", "e:1"]).unwrap() == Value::Bulk(b"new".to_vec())
    })
    .unwrap();
}

#[test]
fn whoever_reads_after_the_acknowledgement_sees_the_write_through_any_proxy() {
    let stack = Stack::start().unwrap();
    let slow = slow_program(&stack, "15");
    add_routes(&stack.program, ROUTE);
    let mut clients = [stack.client().unwrap(), slow.client().unwrap()];
    for number in 0..120 {
        let value = number.to_string();
        let (writer, reader) = (number % 2, (number / 2) % 2);
        assert_eq!(
            text(&mut clients[writer], &format!("SET e:1 {value}")),
            "OK"
        );
        assert_eq!(text(&mut clients[reader], "GET e:1"), value);
        assert_eq!(text(&mut clients[1 - reader], "GET e:1"), value);
    }
    assert!(slow.metric("freshet_eventual_lag_seconds_count").unwrap() > 0.0);
}

#[test]
fn a_proxy_that_stops_tells_the_cache_first() {
    let stack = Stack::start().unwrap();
    let mut slow = slow_program(&stack, "400");
    assert_eq!(text(&mut slow.client().unwrap(), "SET e:1 new"), "OK");
    slow.stop().unwrap();
    let mut cache = stack.cache.client().unwrap();
    assert_eq!(cache.text(&["GET", "e:1"]).unwrap(), "new");
    assert_eq!(cache.integer(&["EXISTS", "\0fc{e:1}"]).unwrap(), 0);
}

#[test]
fn a_unit_with_another_key_waits_for_the_cache() {
    let stack = Stack::start().unwrap();
    let slow = slow_program(&stack, "300");
    let mut client = slow.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    assert_eq!(text(&mut client, "MSET e:1 a plain b"), "OK");
    assert_eq!(cache.text(&["GET", "e:1"]).unwrap(), "a");
    assert_eq!(text(&mut client, "MULTI"), "OK");
    assert_eq!(text(&mut client, "SET e:1 c"), "QUEUED");
    assert_eq!(text(&mut client, "SET plain d"), "QUEUED");
    assert_eq!(client.call(&["EXEC"]).unwrap().items().len(), 2);
    assert_eq!(cache.text(&["GET", "e:1"]).unwrap(), "c");
}
