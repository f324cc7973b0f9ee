//! Clients that ask too much.

use std::time::Duration;

use crate::support::client::encode;
use crate::support::{Redis, Stack, process};

const LIMIT: Duration = Duration::from_secs(20);

pub fn resident_kilobytes(pid: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap()
}

#[test]
fn client_that_never_reads_is_cut_off_within_bounded_memory() {
    let settings = [
        ("limits.output_buffer", "1MB"),
        ("limits.output_timeout", "1s"),
    ];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "large", &"x".repeat(200_000)]).unwrap();
    let before = resident_kilobytes(stack.program.pid().unwrap());
    // 2 GB of replies.
    let requests = encode(&["GET", "large"]).repeat(10_000);
    // It fails when the server has cut the connection.
    let _ = client.send_raw(&requests);
    process::await_true("the client is cut off", LIMIT, || {
        let mut other = stack.client().unwrap();
        let clients = other.text(&["CLIENT", "LIST"]).unwrap();
        clients.lines().count() == 1
    })
    .unwrap();
    let after = resident_kilobytes(stack.program.pid().unwrap());
    assert!(after < before + 100_000, "{before} KB, then {after} KB");
    assert!(client.read_to_close().unwrap().len() < 1_000_000_000);
}

#[test]
fn clients_that_never_read_are_cut_off_when_all_together_are_too_much() {
    const CLIENTS: usize = 30;
    let settings = [
        ("limits.output_total", "8MB"),
        ("limits.output_timeout", "1h"),
    ];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let mut worker = stack.client().unwrap();
    worker.ok(&["SET", "large", &"x".repeat(500_000)]).unwrap();
    let requests = encode(&["GET", "large"]).repeat(1000);
    let mut silent: Vec<_> = (0..CLIENTS).map(|_| stack.client().unwrap()).collect();
    for client in &mut silent {
        client.send_raw(&requests).unwrap();
    }
    process::await_true("most are cut off", LIMIT, || {
        // Nobody else is: who works goes on.
        worker.ok(&["GET", "large"]).unwrap();
        let clients = worker.text(&["CLIENT", "LIST"]).unwrap();
        clients.lines().count() <= 1 + CLIENTS / 3
    })
    .unwrap();
    // Of each, the replies to the first sixteen requests may wait before anybody is cut off; of all
    // requests they would be 15 GB.
    let waiting = CLIENTS as u64 * 16 * 500;
    let resident = resident_kilobytes(stack.program.pid().unwrap());
    assert!(resident < waiting + 100_000, "{resident} KB");
}

#[test]
fn huge_pipeline_is_answered_within_bounded_memory() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", &"x".repeat(1000)]).unwrap();
    let before = resident_kilobytes(stack.program.pid().unwrap());
    let mut reader = stack.client().unwrap();
    let requests = encode(&["GET", "key"]).repeat(1000);
    for _ in 0..100 {
        reader.send_raw(&requests).unwrap();
        for _ in 0..1000 {
            reader.read().unwrap();
        }
    }
    let after = resident_kilobytes(stack.program.pid().unwrap());
    assert!(after < before + 100_000, "{before} KB, then {after} KB");
}

#[test]
fn client_above_the_limit_gets_the_error_of_redis() {
    let stack = Stack::start_with(&[("listen.max_clients", "3")], &[]).unwrap();
    let judge = Redis::start_with(&["--maxclients", "3"]).unwrap();
    let answer = |connect: &dyn Fn() -> crate::support::Client| {
        let mut clients: Vec<_> = (0..3).map(|_| connect()).collect();
        for client in &mut clients {
            client.ok(&["PING"]).unwrap();
        }
        let refused = connect().read_to_close().unwrap();
        drop(clients);
        refused.escape_ascii().to_string()
    };
    let ours = answer(&|| stack.client().unwrap());
    let theirs = answer(&|| judge.client().unwrap());
    assert_eq!(ours, theirs);
    process::await_true("places are free again", LIMIT, || {
        stack
            .client()
            .is_ok_and(|mut client| client.ok(&["PING"]).is_ok())
    })
    .unwrap();
}

#[test]
fn idle_client_is_disconnected() {
    let stack = Stack::start_with(&[("listen.idle_timeout", "300ms")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["PING"]).unwrap();
    assert_eq!(client.read_to_close().unwrap(), b"");
}
