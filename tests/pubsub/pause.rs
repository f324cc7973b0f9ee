//! CLIENT PAUSE and UNPAUSE.

use std::time::{Duration, Instant};

use crate::support::{Redis, Stack};

const PAUSE: Duration = Duration::from_millis(400);

#[test]
fn mistakes_are_answered_like_redis() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    for command in [
        &["CLIENT", "PAUSE"][..],
        &["CLIENT", "PAUSE", "x"],
        &["CLIENT", "PAUSE", "-1"],
        &["CLIENT", "PAUSE", "99999999999999999999"],
        &["CLIENT", "PAUSE", "10", "SOME"],
        &["CLIENT", "PAUSE", "10", "WRITE", "x"],
        &["CLIENT", "PAUSE", "0"],
        &["CLIENT", "PAUSE", "0", "all"],
        &["CLIENT", "UNPAUSE"],
        &["CLIENT", "UNPAUSE", "x"],
    ] {
        let ours = stack.client().unwrap().call(command).unwrap();
        let theirs = judge.client().unwrap().call(command).unwrap();
        assert_eq!(ours, theirs, "{command:?}");
    }
}

#[test]
fn writes_wait_and_reads_go_on() {
    let stack = Stack::start().unwrap();
    let mut writer = stack.client().unwrap();
    let mut other = stack.client().unwrap();
    writer.ok(&["SET", "k", "1"]).unwrap();
    other.ok(&["CLIENT", "PAUSE", "10000", "WRITE"]).unwrap();
    let commands = [
        vec!["GET", "k"],
        vec!["SET", "k", "2"],
        vec!["GET", "k"],
        vec!["PUBLISH", "a", "b"],
    ];
    writer.send_all(&commands).unwrap();
    assert_eq!(writer.read().unwrap().text().unwrap(), "1");
    writer.set_reply_limit(PAUSE).unwrap();
    assert!(writer.read().is_err(), "a write was not held");
    assert_eq!(other.text(&["GET", "k"]).unwrap(), "1");
    other.ok(&["CLIENT", "UNPAUSE"]).unwrap();
    writer.set_reply_limit(Duration::from_secs(10)).unwrap();
    assert_eq!(writer.read().unwrap().text().unwrap(), "OK");
    assert_eq!(writer.read().unwrap().text().unwrap(), "2");
    writer.read().unwrap();
    // A block that writes waits at EXEC, also if it was queued before.
    writer.ok(&["MULTI"]).unwrap();
    writer.ok(&["SET", "k", "3"]).unwrap();
    other
        .ok(&["CLIENT", "PAUSE", &PAUSE.as_millis().to_string(), "WRITE"])
        .unwrap();
    let start = Instant::now();
    writer.ok(&["EXEC"]).unwrap();
    assert!(start.elapsed() >= PAUSE - Duration::from_millis(20));
}

#[test]
fn everything_waits_and_messages_are_delivered_meanwhile() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut listener = stack.client().unwrap();
    listener.ok(&["HELLO", "3"]).unwrap();
    listener.ok(&["SUBSCRIBE", "a"]).unwrap();
    let start = Instant::now();
    client
        .ok(&["CLIENT", "PAUSE", &PAUSE.as_millis().to_string()])
        .unwrap();
    listener.send(&["PING"]).unwrap();
    stack
        .cache
        .client()
        .unwrap()
        .ok(&["PUBLISH", "a", "x"])
        .unwrap();
    let message = listener.read().unwrap();
    assert_eq!(message.items().len(), 3, "{message:?}");
    assert!(start.elapsed() < PAUSE);
    client.ok(&["PING"]).unwrap();
    assert!(start.elapsed() >= PAUSE - Duration::from_millis(20));
    assert_eq!(listener.read().unwrap().text().unwrap(), "PONG");
    // A client that is held can be killed, and the program stopped.
    client.ok(&["CLIENT", "PAUSE", "100000"]).unwrap();
    client.send(&["SET", "k", "v"]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stack.program.stop_quietly().unwrap();
    assert_eq!(client.read().unwrap().text().unwrap(), "OK");
}
