//! What the CLIENT command and the Unix socket do.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{Client, Stack, process};

#[test]
fn clients_are_listed_by_name_and_can_be_killed() {
    let stack = Stack::start().unwrap();
    let mut victim = stack.client().unwrap();
    let mut killer = stack.client().unwrap();
    victim.ok(&["CLIENT", "SETNAME", "victim"]).unwrap();
    let id = victim.integer(&["CLIENT", "ID"]).unwrap();
    let list = killer.text(&["CLIENT", "LIST"]).unwrap();
    assert_eq!(list.lines().count(), 2, "{list}");
    let line = list
        .lines()
        .find(|line| line.contains("name=victim"))
        .unwrap();
    assert!(
        line.starts_with(&format!("id={id} addr=127.0.0.1:")),
        "{line}"
    );
    assert_eq!(
        killer
            .integer(&["CLIENT", "KILL", "ID", &id.to_string()])
            .unwrap(),
        1
    );
    assert_eq!(victim.read_to_close().unwrap(), b"");
    process::await_true("the victim is gone", Duration::from_secs(5), || {
        killer.text(&["CLIENT", "LIST"]).unwrap().lines().count() == 1
    })
    .unwrap();
}

#[test]
fn unix_socket_serves_and_has_its_mode() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("freshet.sock");
    let settings = [
        ("listen.unix_socket", path.to_str().unwrap()),
        ("listen.unix_socket_mode", "770"),
    ];
    let mut stack = Stack::start_with(&settings, &[]).unwrap();
    let mut client = Client::connect_unix(&path).unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    assert_eq!(
        stack.client().unwrap().text(&["GET", "key"]).unwrap(),
        "value"
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o770);
    drop(client);
    // After a kill the old socket is in the way, and must not be.
    stack.program.kill().unwrap();
    stack.program.start_again().unwrap();
    let mut client = Client::connect_unix(&path).unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "value");
}
