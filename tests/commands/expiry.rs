//! Keys whose time comes.

use std::time::Duration;

use crate::support::{Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn key_ends_at_its_time_in_the_cache_and_in_the_store() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "short", "value", "PX", "150"]).unwrap();
    client.ok(&["SET", "long", "value", "EX", "1000"]).unwrap();
    assert_eq!(client.text(&["GET", "short"]).unwrap(), "value");
    process::await_true("the key ends", LIMIT, || {
        client.call(&["GET", "short"]).unwrap() == Value::Null
    })
    .unwrap();
    // The cache knows nothing of it any more: now the store says so.
    stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    assert_eq!(client.call(&["GET", "short"]).unwrap(), Value::Null);
    assert_eq!(client.integer(&["EXISTS", "short"]).unwrap(), 0);
    assert_eq!(client.integer(&["PTTL", "short"]).unwrap(), -2);
    assert_eq!(client.integer(&["DBSIZE"]).unwrap(), 1);
    assert_eq!(client.text(&["GET", "long"]).unwrap(), "value");
    let left = client.integer(&["PTTL", "long"]).unwrap();
    assert!((900_000..=1_000_000).contains(&left), "{left}");
}

#[test]
fn set_on_an_ended_key_starts_anew() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "counter", "41", "PX", "60"]).unwrap();
    process::await_true("the key ends", LIMIT, || {
        client.integer(&["EXISTS", "counter"]).unwrap() == 0
    })
    .unwrap();
    assert_eq!(client.integer(&["INCR", "counter"]).unwrap(), 1);
    assert_eq!(client.integer(&["PTTL", "counter"]).unwrap(), -1);
    assert_eq!(
        client.call(&["SET", "counter", "5", "NX"]).unwrap(),
        Value::Null
    );
}

#[test]
fn expiry_survives_the_loss_of_cache_and_proxy() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    client.ok(&["PEXPIREAT", "key", "4000000000123"]).unwrap();
    stack.program.kill().unwrap();
    stack.cache.kill().unwrap();
    stack.cache.start_again().unwrap();
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(
        client.integer(&["PEXPIRETIME", "key"]).unwrap(),
        4_000_000_000_123
    );
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "value");
    client.ok(&["PERSIST", "key"]).unwrap();
    assert_eq!(client.integer(&["PEXPIRETIME", "key"]).unwrap(), -1);
}

/// The native dies at a time of its own, which is nobody's business.
#[test]
fn time_in_the_cache_is_never_told_as_the_time_of_the_key() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    let asked = [
        "GET",
        "PEXPIRETIME",
        "PTTL",
        "TTL",
        "EXPIRETIME",
        "PEXPIRETIME",
    ];
    let commands: Vec<Vec<&str>> = asked.iter().map(|name| vec![*name, "key"]).collect();
    for _ in 0..20 {
        cache.ok(&["DEL", "key"]).unwrap();
        let replies = client.pipeline(&commands).unwrap();
        assert_eq!(replies[0].text().as_deref(), Some("value"));
        assert_eq!(replies[1..], vec![Value::Integer(-1); 5]);
    }
}
