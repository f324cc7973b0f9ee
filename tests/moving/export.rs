//! `freshet export`: what is here is at another Redis, or in a file that Redis loads, afterwards.

use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::import::{fill, reads_are_equal};
use super::{Ran, all_ok, command_on, differing, keys, run};
use crate::support::{Client, Redis, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(60);

/// Collections that are too large to be moved in one piece: by their elements, and one by its bytes.
fn fill_large(client: &mut Client) {
    for thousand in 0..101 {
        let words = |name: &str, each: &dyn Fn(u32) -> Vec<String>| {
            let mut words: Vec<String> = name.split(' ').map(str::to_owned).collect();
            let numbers = thousand * 1000..(thousand + 1) * 1000;
            words.extend(numbers.flat_map(each));
            words
        };
        let commands = [
            words("HSET large-hash", &|n| vec![format!("f{n}"), n.to_string()]),
            words("RPUSH large-list", &|n| vec![n.to_string()]),
            words("SADD large-set", &|n| vec![format!("m{n}")]),
            words("ZADD large-zset", &|n| {
                vec![format!("{}.5", n % 700), format!("m{n}")]
            }),
        ];
        for reply in client.pipeline(&commands).unwrap() {
            assert!(matches!(reply, Value::Integer(_)), "{reply:?}");
        }
    }
    client.ok(&["PEXPIRE", "large-set", "9000000"]).unwrap();
    let long = "x".repeat(1 << 20);
    for number in 0..36 {
        let item = format!("{number}{long}");
        client.ok(&["RPUSH", "long-list", &item]).unwrap();
    }
}

/// All keys of all databases are the same.
fn all_keys_are_equal(here: &mut Client, there: &mut Client) {
    let differing = differing(here, there);
    assert!(differing.is_empty(), "{differing:?}");
}

/// A Redis that has loaded this file.
fn loaded(file: &Path) -> Redis {
    let (folder, name) = (file.parent().unwrap(), file.file_name().unwrap());
    let (folder, name) = (folder.to_str().unwrap(), name.to_str().unwrap());
    Redis::start_with(&["--dir", folder, "--dbfilename", name]).unwrap()
}

fn assert_went_well(ran: &Ran) {
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    if ran.out.contains("compared") {
        assert!(ran.out.contains("by key: 0 differ"), "{}", ran.out);
    }
}

#[test]
fn everything_is_at_another_redis_and_in_a_file_afterwards() {
    let stack = Stack::start().unwrap();
    let mut here = stack.client().unwrap();
    fill(&mut here);
    fill_large(&mut here);
    let (there, folder) = (Redis::start().unwrap(), TempDir::new().unwrap());
    all_ok(
        &mut there.client().unwrap(),
        &["SET string other", "SADD number x"],
    );
    let to_redis = run(&stack, &["export", "--to", &there.url(), "--verify"]).unwrap();
    assert_went_well(&to_redis);
    // The note of how far it was is gone, and so are the names under which pieces stood.
    all_keys_are_equal(&mut here, &mut there.client().unwrap());
    reads_are_equal(&mut here, &mut there.client().unwrap());

    let file = folder.path().join("all.rdb");
    let to_file = run(
        &stack,
        &["export", "--to", file.to_str().unwrap(), "--verify"],
    )
    .unwrap();
    assert_went_well(&to_file);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    all_keys_are_equal(&mut here, &mut loaded(&file).client().unwrap());
}

#[test]
fn only_what_matches_and_lives_is_moved() {
    let stack = Stack::start().unwrap();
    let mut here = stack.client().unwrap();
    all_ok(
        &mut here,
        &[
            "SET user:1 a",
            "SET user:2 b",
            "SET user:short c PX 1",
            "SET other d",
            "SET user:gone e",
            "DEL user:gone",
            "SELECT 9",
            "SET user:9 f",
        ],
    );
    let (there, folder) = (Redis::start().unwrap(), TempDir::new().unwrap());
    let file = folder.path().join("users.rdb");
    let chosen = ["--match", "user:*", "--verify"];
    for target in [&*there.url(), file.to_str().unwrap()] {
        let ran = run(&stack, &[&["export", "--to", target], &chosen[..]].concat()).unwrap();
        assert_went_well(&ran);
        assert!(ran.out.contains("3 keys written"), "{}", ran.out);
    }
    for server in [there, loaded(&file)] {
        let mut client = server.client().unwrap();
        assert_eq!(keys(&mut client), ["user:1", "user:2"]);
        all_ok(&mut client, &["SELECT 9"]);
        assert_eq!(keys(&mut client), ["user:9"]);
    }
    let own = run(&stack, &["export", "--to", &stack.cache.url()]).unwrap();
    assert_eq!(own.code, 2, "{}", own.out);
    assert!(own.err.contains("own cache"), "{}", own.err);
    let nowhere = run(&stack, &["export", "--to", "/nowhere/at/all.rdb"]).unwrap();
    assert_eq!(nowhere.code, 2, "{}", nowhere.out);
}

/// Many small keys.
fn fill_small(client: &mut Client, count: u32) {
    for numbers in (0..count).collect::<Vec<_>>().chunks(500) {
        let sets: Vec<Vec<String>> = numbers
            .iter()
            .map(|n| vec!["SET".to_owned(), format!("key:{n:06}"), n.to_string()])
            .collect();
        client.pipeline(&sets).unwrap();
    }
}

fn spawn(stack: &Stack, arguments: &[&str]) -> Child {
    let mut command = command_on(&stack.database, &stack.cache.url(), arguments);
    command.stdout(Stdio::piped());
    process::spawn(command).unwrap()
}

fn kill(mut child: Child) {
    process::signal(child.id(), "KILL").unwrap();
    child.wait().unwrap();
}

#[test]
fn one_that_was_killed_goes_on_at_a_redis() {
    let stack = Stack::start().unwrap();
    let mut here = stack.client().unwrap();
    fill_small(&mut here, 6000);
    let there = Redis::start().unwrap();
    let mut client = there.client().unwrap();
    let to = ["export", "--to", &there.url()];
    let slow = spawn(&stack, &[&to[..], &["--rate", "1000"]].concat());
    process::await_true("it is noted how far it is", LIMIT, || {
        client.integer(&["EXISTS", "freshet:export"]).unwrap() == 1
    })
    .unwrap();
    kill(slow);
    // What was done is not done again: it stays as it is now.
    all_ok(&mut client, &["SET key:000001 changed"]);
    let other = run(&stack, &[&to[..], &["--resume", "--match", "k*"]].concat()).unwrap();
    assert_eq!(other.code, 2, "{}", other.out);
    let resumed = run(&stack, &[&to[..], &["--resume"]].concat()).unwrap();
    assert_went_well(&resumed);
    assert!(resumed.out.contains("went on"), "{}", resumed.out);
    assert_eq!(client.text(&["GET", "key:000001"]).unwrap(), "changed");
    assert_eq!(client.integer(&["DBSIZE"]).unwrap(), 6000);
    let again = run(&stack, &[&to[..], &["--resume", "--verify"]].concat()).unwrap();
    assert_went_well(&again);
    assert!(!again.out.contains("went on"), "{}", again.out);
    assert_eq!(client.text(&["GET", "key:000001"]).unwrap(), "1");
}

#[test]
fn one_that_was_killed_goes_on_in_its_file() {
    let stack = Stack::start().unwrap();
    let mut here = stack.client().unwrap();
    fill_small(&mut here, 6000);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.rdb");
    let to = ["export", "--to", file.to_str().unwrap()];
    let slow = spawn(&stack, &[&to[..], &["--rate", "1000"]].concat());
    let note = folder.path().join("all.rdb.progress");
    process::await_true("it is noted how far it is", LIMIT, || note.exists()).unwrap();
    kill(slow);
    assert!(!file.exists());
    all_ok(
        &mut here,
        &["SET key:000001 changed", "SET key:005999 changed"],
    );
    let resumed = run(&stack, &[&to[..], &["--resume"]].concat()).unwrap();
    assert_went_well(&resumed);
    assert!(resumed.out.contains("2 moments"), "{}", resumed.out);
    {
        let server = loaded(&file);
        let mut client = server.client().unwrap();
        assert_eq!(client.integer(&["DBSIZE"]).unwrap(), 6000);
        assert_eq!(client.text(&["GET", "key:000001"]).unwrap(), "1");
        assert_eq!(client.text(&["GET", "key:005999"]).unwrap(), "changed");
    }
    let anew = run(&stack, &[&to[..], &["--verify"]].concat()).unwrap();
    assert_went_well(&anew);
    all_keys_are_equal(&mut here, &mut loaded(&file).client().unwrap());
}

#[test]
fn an_import_that_was_killed_goes_on_in_its_file() {
    let stack = Stack::start().unwrap();
    let source = Redis::start().unwrap();
    let mut there = source.client().unwrap();
    fill_small(&mut there, 6000);
    there.ok(&["SELECT", "4"]).unwrap();
    fill_small(&mut there, 3000);
    there.ok(&["SAVE"]).unwrap();
    let folder = there.ok(&["CONFIG", "GET", "dir"]).unwrap();
    let file = format!("{}/dump.rdb", folder.items()[1].text().unwrap());
    let from = ["import", "--from", &file];
    let slow = spawn(&stack, &[&from[..], &["--rate", "2000"]].concat());
    let sql = stack.sql().unwrap();
    process::await_true("it is noted how far it is", LIMIT, || {
        let rows = sql.query("SELECT FROM freshet.import", &[]);
        rows.is_ok_and(|rows| rows.len() == 1)
    })
    .unwrap();
    kill(slow);
    let resumed = run(&stack, &[&from[..], &["--resume", "--verify"]].concat()).unwrap();
    assert_went_well(&resumed);
    assert!(resumed.out.contains("went on"), "{}", resumed.out);
    // It has not read all of them again.
    assert!(!resumed.out.contains("9000 keys read"), "{}", resumed.out);
    assert!(
        sql.query("SELECT FROM freshet.import", &[])
            .unwrap()
            .is_empty()
    );
    all_keys_are_equal(&mut stack.client().unwrap(), &mut there);
}

#[test]
fn a_file_tells_of_one_moment_while_clients_write() {
    let stack = Stack::start().unwrap();
    let mut here = stack.client().unwrap();
    fill_small(&mut here, 3000);
    all_ok(&mut here, &["SET a 0", "SET z 0"]);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("all.rdb");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let mut writer = stack.client().unwrap();
        let written = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // The first key of the file, and the last one.
                all_ok(&mut writer, &["MULTI", "INCR a", "DECR z", "EXEC"]);
            }
        });
        let slow = ["--rate", "1500", "--verify"];
        let to = ["export", "--to", file.to_str().unwrap()];
        let ran = run(&stack, &[&to[..], &slow].concat());
        stop.store(true, Ordering::Relaxed);
        written.join().unwrap();
        assert_went_well(&ran.unwrap());
    });
    let server = loaded(&file);
    let mut client = server.client().unwrap();
    let [a, z]: [i64; 2] =
        ["a", "z"].map(|key| client.text(&["GET", key]).unwrap().parse().unwrap());
    assert_eq!(a + z, 0);
    let now: i64 = here.text(&["GET", "a"]).unwrap().parse().unwrap();
    assert!(a < now, "nothing was written meanwhile");
}
