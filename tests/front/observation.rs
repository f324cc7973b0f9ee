//! What an operator sees.

use std::time::Duration;

use crate::support::Stack;

#[test]
fn metrics_and_health_pages_tell_what_happened() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for n in 0..10 {
        client.ok(&["SET", &format!("key:{n}"), "value"]).unwrap();
        client.ok(&["GET", &format!("key:{n}")]).unwrap();
    }
    client.call(&["GET", "missing"]).unwrap();
    client.call(&["INCR", "key:0"]).unwrap();
    assert_eq!(stack.program.http("/healthz").unwrap().0, 200);
    assert_eq!(stack.program.http("/readyz").unwrap().0, 200);
    assert_eq!(stack.program.http("/nosuch").unwrap().0, 404);
    let (status, metrics) = stack.program.http("/metrics").unwrap();
    assert_eq!(status, 200);
    for name in [
        "freshet_commands_total",
        "freshet_build_info",
        "freshet_command_seconds",
    ] {
        assert!(metrics.contains(name), "{name} is missing in:\n{metrics}");
    }
    assert!(stack.program.metric("freshet_commands_total").unwrap() >= 22.0);
    let info = client.text(&["INFO"]).unwrap();
    for part in [
        "# Server",
        "redis_version:7",
        "# Clients",
        "# Memory",
        "# Stats",
        "# Keyspace",
        "db0:keys=10",
        "# Freshet",
    ] {
        assert!(info.contains(part), "{part} is missing in:\n{info}");
    }
}

#[test]
fn setting_changed_in_the_file_takes_effect_at_sighup() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    stack
        .program
        .append_to_configuration("\n[auth]\npassword = \"secret\"\n")
        .unwrap();
    stack.program.signal("HUP").unwrap();
    stack
        .program
        .await_log("reloaded", Duration::from_secs(10))
        .unwrap();
    let mut stranger = stack.client().unwrap();
    let refused = stranger.call(&["GET", "key"]).unwrap();
    assert!(
        refused.error().unwrap().starts_with("NOAUTH"),
        "{refused:?}"
    );
    stranger.ok(&["AUTH", "secret"]).unwrap();
    assert_eq!(stranger.text(&["GET", "key"]).unwrap(), "value");
}
