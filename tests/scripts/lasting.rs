//! Scripts are kept for all proxies, and outlive the cache and the proxy.

use std::time::Duration;

use crate::support::{Program, Stack, process};

const LIMIT: Duration = Duration::from_secs(10);

const KEPT: &str = "return 'kept'";

#[test]
fn a_script_is_known_after_the_cache_and_the_proxy_restarted() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let loaded = client.text(&["SCRIPT", "LOAD", KEPT]).unwrap();
    let evaluated = "return redis.call('incr', KEYS[1])";
    assert_eq!(client.integer(&["EVAL", evaluated, "1", "n"]).unwrap(), 1);
    stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    assert_eq!(client.text(&["EVALSHA", &loaded, "0"]).unwrap(), "kept");
    stack.program.kill().unwrap();
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(client.text(&["EVALSHA", &loaded, "0"]).unwrap(), "kept");
    let sha1 = "return redis.sha1hex(ARGV[1])";
    let named = client.text(&["EVAL", sha1, "0", evaluated]).unwrap();
    assert_eq!(client.integer(&["EVALSHA", &named, "1", "n"]).unwrap(), 2);
}

#[test]
fn a_script_that_one_proxy_evaluated_is_known_to_another() {
    let stack = Stack::start().unwrap();
    let other = stack.second_program().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["EVAL", KEPT, "0"]).unwrap();
    let sha = client.text(&["EVAL", "return redis.sha1hex(ARGV[1])", "0", KEPT]);
    let sha = sha.unwrap();
    let mut client = other.client().unwrap();
    assert_eq!(client.text(&["EVALSHA", &sha, "0"]).unwrap(), "kept");
}

fn knows(program: &Program, sha: &str) -> bool {
    let reply = program.client().unwrap().call(&["EVALSHA", sha, "0"]);
    reply.unwrap().error().is_none()
}

#[test]
fn flushed_scripts_are_forgotten_by_all_proxies() {
    let stack = Stack::start().unwrap();
    let other = stack.second_program().unwrap();
    let mut client = stack.client().unwrap();
    let sha = client.text(&["SCRIPT", "LOAD", KEPT]).unwrap();
    assert!(knows(&stack.program, &sha) && knows(&other, &sha));
    client.ok(&["SCRIPT", "FLUSH"]).unwrap();
    assert!(!knows(&stack.program, &sha));
    process::await_true("the other proxy has noticed", LIMIT, || {
        !knows(&other, &sha)
    })
    .unwrap();
}
