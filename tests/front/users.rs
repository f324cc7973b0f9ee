//! Who may come in.

use std::time::Duration;

use crate::support::stack::FRESHET;
use crate::support::{Program, Redis, Stack};

/// As the variable takes it.
const USERS: &str = "{ reader = { password = \"p\", rules = \"~a:* &news +@read +subscribe (~b:* +get)\" }, \
                     anyone = { rules = \"nopass %R~* allchannels +@all -@dangerous\" }, all = \"q\" }";

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

#[test]
fn users_of_the_configuration_have_the_rules_that_acl_setuser_would_give_them() {
    let stack = Stack::start_with(&[("auth.password", "r"), ("auth.users", USERS)], &[]).unwrap();
    let judge = Redis::start().unwrap();
    let mut theirs = judge.client().unwrap();
    for line in [
        "reader on ~a:* &news +@read +subscribe (~b:* +get) >p",
        "anyone on nopass %R~* allchannels +@all -@dangerous",
        "all on ~* &* +@all >q",
        "default resetpass >r",
    ] {
        let words: Vec<&str> = ["ACL", "SETUSER"]
            .into_iter()
            .chain(line.split(' '))
            .collect();
        theirs.ok(&words).unwrap();
    }
    let mut ours = stack.client().unwrap();
    ours.ok(&["AUTH", "r"]).unwrap();
    let listed = |reply: crate::support::Value| {
        let mut lines: Vec<String> = reply
            .items()
            .iter()
            .map(|line| line.text().unwrap())
            .collect();
        lines.sort();
        lines
    };
    let list = ["ACL", "LIST"];
    assert_eq!(
        listed(ours.call(&list).unwrap()),
        listed(theirs.call(&list).unwrap())
    );
    // And they are in force.
    let mut reader = stack.client().unwrap();
    reader.ok(&["AUTH", "reader", "p"]).unwrap();
    for (command, is_allowed) in [
        (["GET", "a:1", ""], true),
        (["GET", "b:1", ""], true),
        (["SET", "b:1", "v"], false),
        (["SET", "a:1", "v"], false),
        (["GET", "c:1", ""], false),
    ] {
        let words: Vec<&str> = command
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        let reply = reader.call(&words).unwrap();
        let is_refused = reply.error().is_some_and(|text| text.starts_with("NOPERM"));
        assert_eq!(is_refused, !is_allowed, "{words:?}: {reply:?}");
    }
}

#[test]
fn wrong_rules_are_told_of_at_the_start_and_by_a_reload() {
    let stack = Stack::start().unwrap();
    let settings = [(
        "auth.users",
        "{ bob = { password = \"p\", rules = \"+foo\" } }",
    )];
    let started = Program::start(FRESHET, &stack.database, &stack.cache.url(), &settings);
    let said = started.err().unwrap().to_string();
    let mistake = "auth.users: user `bob` has the rule `+foo`: Unknown command or category name";
    assert!(said.contains(mistake), "{said}");
    let users = "\n[auth.users]\nbob = { password = \"p\", rules = \"+foo\" }\n";
    stack.program.append_to_configuration(users).unwrap();
    stack.program.signal("HUP").unwrap();
    stack
        .program
        .await_log("not reloaded", Duration::from_secs(20))
        .unwrap();
    // Nobody has to log in, as before.
    assert_eq!(stack.client().unwrap().text(&["PING"]).unwrap(), "PONG");
}
