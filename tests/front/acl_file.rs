//! Users of an ACL file, beside a plain Redis with the same file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::support::stack::FRESHET;
use crate::support::{Program, Redis, Stack};

const USERS: &str = "user default on nopass ~* &* +@all\nuser alice on >pw ~a:* +get (+set ~b)\n";

#[test]
fn users_of_a_file_are_loaded_and_saved_as_by_redis() {
    let folder = TempDir::with_prefix("freshet-acl-").unwrap();
    // Texts name the file: both use the same one, in turn.
    let file = folder.path().join("users.acl");
    let path = file.to_str().unwrap();
    fs::write(&file, USERS).unwrap();
    let stack = Stack::start_with(&[("acl.file", path)], &[]).unwrap();
    let judge = Redis::start_with(&["--aclfile", path]).unwrap();
    let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
    for text in [
        USERS,
        "",
        "user bob +foo\nnonsense\nuser x on ~* ~y\nuser x\n",
        "user alice (+get\n",
        "user carol on #123\n",
        "user carol off >secret +@read ~c\n",
    ] {
        fs::write(&file, text).unwrap();
        for command in [["ACL", "LOAD"], ["ACL", "USERS"], ["ACL", "LIST"]] {
            let (ours, theirs) = (ours.call(&command), theirs.call(&command));
            assert_eq!(ours.unwrap(), theirs.unwrap(), "{command:?} of {text:?}");
        }
    }
    fs::remove_file(&file).unwrap();
    let (missing, expected) = (ours.call(&["ACL", "LOAD"]), theirs.call(&["ACL", "LOAD"]));
    assert_eq!(missing.unwrap(), expected.unwrap());
    ours.ok(&["ACL", "SETUSER", "dave", "on", ">hidden", "+get", "~d"])
        .unwrap();
    ours.ok(&["ACL", "SAVE"]).unwrap();
    let saved = fs::read_to_string(&file).unwrap();
    assert!(
        saved.contains("user dave on #") && !saved.contains("hidden"),
        "{saved}"
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Redis reads what was written.
    theirs.ok(&["ACL", "LOAD"]).unwrap();
    assert_eq!(
        ours.ok(&["ACL", "LIST"]).unwrap(),
        theirs.ok(&["ACL", "LIST"]).unwrap()
    );
}

#[test]
fn who_is_not_the_default_user_has_to_log_in_again_after_a_load() {
    let folder = TempDir::with_prefix("freshet-acl-").unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, USERS).unwrap();
    let stack = Stack::start_with(&[("acl.file", file.to_str().unwrap())], &[]).unwrap();
    let mut alice = stack.client().unwrap();
    alice.ok(&["AUTH", "alice", "pw"]).unwrap();
    let refused = alice.call(&["GET", "other"]).unwrap();
    assert!(refused.error().unwrap().starts_with("NOPERM"));
    stack.client().unwrap().ok(&["ACL", "LOAD"]).unwrap();
    assert!(alice.read_to_close().unwrap().is_empty());
}

#[test]
fn a_file_with_mistakes_is_told_of_at_the_start() {
    let folder = TempDir::with_prefix("freshet-acl-").unwrap();
    let file = folder.path().join("users.acl");
    fs::write(&file, "user bob +foo\n").unwrap();
    let stack = Stack::start().unwrap();
    let settings = [("acl.file", file.to_str().unwrap())];
    let program = FRESHET;
    let started = Program::start(program, &stack.database, &stack.cache.url(), &settings);
    let said = started.err().unwrap().to_string();
    assert!(
        said.contains("Error in applying operation '+foo'"),
        "{said}"
    );
}
