//! Who may come in.

use crate::support::{Redis, Stack};

#[test]
fn password_is_asked_for_like_redis_does() {
    let stack = Stack::start_with(&[("auth.password", "secret")], &[]).unwrap();
    let judge = Redis::start().unwrap();
    judge
        .client()
        .unwrap()
        .ok(&["CONFIG", "SET", "requirepass", "secret"])
        .unwrap();
    let dialogue = [
        vec!["GET", "key"],
        vec!["PING"],
        vec!["CLIENT", "ID"],
        vec!["nosuchcommand"],
        vec!["HELLO", "3"],
        vec!["AUTH", "wrong"],
        vec!["AUTH", "nobody", "secret"],
        vec!["HELLO", "3", "AUTH", "default", "wrong"],
        vec!["AUTH", "secret"],
        vec!["SET", "key", "value"],
        vec!["GET", "key"],
        vec!["AUTH", "wrong"],
        vec!["GET", "key"],
        vec!["RESET"],
        vec!["GET", "key"],
        vec!["AUTH", "default", "secret"],
        vec!["GET", "key"],
    ];
    let mut ours = stack.client().unwrap();
    let mut theirs = judge.client().unwrap();
    for command in dialogue {
        assert_eq!(
            ours.call(&command).unwrap(),
            theirs.call(&command).unwrap(),
            "{command:?}"
        );
    }
    let mut resp3 = stack.client().unwrap();
    resp3
        .ok(&["HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me"])
        .unwrap();
    assert_eq!(resp3.text(&["CLIENT", "GETNAME"]).unwrap(), "me");
    assert_eq!(resp3.text(&["GET", "key"]).unwrap(), "value");
}

#[test]
fn secret_is_never_logged() {
    let mut stack = Stack::start_with(
        &[("auth.password", "hidden-away"), ("log.level", "trace")],
        &[],
    )
    .unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["AUTH", "hidden-away"]).unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    stack.program.stop().unwrap();
    assert!(!stack.program.log_text().contains("hidden-away"));
}
