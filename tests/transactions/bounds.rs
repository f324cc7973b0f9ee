//! A client between MULTI and EXEC cannot fill the memory.

use crate::support::Stack;

#[test]
fn a_block_beyond_the_limit_is_refused_and_the_client_goes_on() {
    let stack = Stack::start_with(&[("limits.query_buffer", "1MB")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    let value = "x".repeat(300_000);
    client.ok(&["MULTI"]).unwrap();
    for _ in 0..3 {
        client.ok(&["SET", "key", &value]).unwrap();
    }
    let refused = client.call(&["SET", "key", &value]).unwrap();
    assert!(refused.error().unwrap().contains("too long"), "{refused:?}");
    let reply = client.call(&["EXEC"]).unwrap();
    assert!(reply.error().unwrap().starts_with("EXECABORT"), "{reply:?}");
    assert_eq!(client.integer(&["EXISTS", "key"]).unwrap(), 0);
}

#[test]
fn what_waits_for_exec_is_bounded_for_all_clients_together() {
    let settings = [("limits.requests_in_flight_bytes", "1MB")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let value = "x".repeat(200_000);
    let mut clients: Vec<_> = (0..8).map(|_| stack.client().unwrap()).collect();
    let mut refused = 0;
    for client in &mut clients {
        client.ok(&["MULTI"]).unwrap();
        let reply = client.call(&["SET", "key", &value]).unwrap();
        refused += u32::from(reply.error().is_some());
    }
    assert!((2..8).contains(&refused), "{refused} of 8 were refused");
    // Others are served, and the room is given back.
    stack
        .client()
        .unwrap()
        .ok(&["SET", "other", &value])
        .unwrap();
    drop(clients);
    let mut client = stack.client().unwrap();
    crate::support::process::await_true("room", std::time::Duration::from_secs(10), || {
        client.ok(&["MULTI"]).unwrap();
        let queued = client
            .call(&["SET", "key", &value])
            .unwrap()
            .error()
            .is_none();
        client.ok(&["DISCARD"]).unwrap();
        queued
    })
    .unwrap();
}

/// There is nothing to load for them, and so nothing to wait for.
#[test]
fn a_block_of_commands_that_name_no_key_is_answered() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MULTI"]).unwrap();
    client.ok(&["XREAD", "9", "STREAMS", "k", "0"]).unwrap();
    client.ok(&["SINTERCARD", "0", "k"]).unwrap();
    let replies = client.call(&["EXEC"]).unwrap();
    let errors: Vec<_> = replies.items().iter().map(|reply| reply.error()).collect();
    assert!(
        matches!(errors[..], [Some("ERR syntax error"), Some(_)]),
        "{replies:?}"
    );
}
