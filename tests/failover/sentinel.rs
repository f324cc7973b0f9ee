//! The cache under Redis Sentinel, and caches that come back older than they were.

use std::time::{Duration, Instant};

use super::{LIMIT, await_state};
use crate::faults::load::under_load;
use crate::support::stack::FRESHET;
use crate::support::{Postgres, Program, Redis, Sentinel, Stack, process};

/// A primary, its replica, and the sentinel that watches them.
struct Watched {
    primary: Redis,
    replica: Redis,
    sentinel: Sentinel,
}

impl Watched {
    fn start() -> Self {
        let primary = Redis::start().unwrap();
        let port = primary.port().to_string();
        let options = [
            "--replicaof",
            "127.0.0.1",
            &port,
            "--repl-diskless-load",
            "swapdb",
        ];
        let replica = Redis::start_with(&options).unwrap();
        let sentinel = Sentinel::start(&primary).unwrap();
        sentinel.await_replica().unwrap();
        Self {
            primary,
            replica,
            sentinel,
        }
    }

    fn await_switch(&self) {
        process::await_true("Sentinel names the other", LIMIT, || {
            self.sentinel.primary().unwrap() == self.replica.port()
        })
        .unwrap();
    }
}

/// A proxy with a database of its own on this cache.
fn start(watched: &Watched) -> (Program, String) {
    let database = Postgres::shared().create_database().unwrap();
    let program = Program::start(FRESHET, &database, &watched.sentinel.url(), &[]).unwrap();
    await_state(&program, "active");
    (program, database)
}

#[test]
fn a_killed_primary_is_replaced_under_load_and_nothing_older_is_shown() {
    let mut watched = Watched::start();
    let (program, database) = start(&watched);
    let second = Program::start(FRESHET, &database, &watched.sentinel.url(), &[]).unwrap();
    await_state(&second, "active");
    let tally = under_load(program.address(), || {
        watched.primary.kill().unwrap();
        watched.await_switch();
        await_state(&program, "active");
    });
    tally.check_on(&program, &database);
    tally.check_on(&second, &database);
    // It is the replica that is used.
    let mut client = program.client().unwrap();
    client.ok(&["SET", "where", "replica"]).unwrap();
    let mut cache = watched.replica.client().unwrap();
    assert_eq!(cache.text(&["GET", "where"]).unwrap(), "replica");
}

#[test]
fn a_primary_that_is_demoted_under_load_is_left_and_fenced() {
    let watched = Watched::start();
    let (program, database) = start(&watched);
    let tally = under_load(program.address(), || {
        let mut sentinel = watched.sentinel.client().unwrap();
        sentinel.ok(&["SENTINEL", "FAILOVER", "main"]).unwrap();
        watched.await_switch();
        process::await_true("the new primary holds the next generation", LIMIT, || {
            let mut cache = watched.replica.client().unwrap();
            let mark = cache.call(&["GET", "\0f:gen"]).unwrap().text();
            let is_later = mark.is_some_and(|mark| mark.parse::<u32>().unwrap() > 1);
            is_later && program.http("/readyz").unwrap().0 == 200
        })
        .unwrap();
    });
    tally.check_on(&program, &database);
}

/// A replica that lags holds the mark of the generation, and values that were replaced since.
#[test]
fn a_replica_that_lost_the_last_writes_shows_none_of_its_old_ones() {
    let mut watched = Watched::start();
    let (program, _) = start(&watched);
    let mut client = program.client().unwrap();
    client.ok(&["SET", "key", "old"]).unwrap();
    let mut replica = watched.replica.client().unwrap();
    process::await_true("it is replicated", LIMIT, || {
        replica.call(&["GET", "key"]).unwrap().text().as_deref() == Some("old")
    })
    .unwrap();
    // The replica hears of nothing from now on, and does not know it.
    watched.replica.signal("STOP").unwrap();
    client.ok(&["SET", "key", "new"]).unwrap();
    watched.primary.kill().unwrap();
    watched.replica.signal("CONT").unwrap();
    let start = Instant::now();
    while watched.sentinel.primary().unwrap() != watched.replica.port() {
        assert_eq!(client.text(&["GET", "key"]).unwrap(), "new");
        assert!(start.elapsed() < LIMIT, "no switch");
    }
    await_state(&program, "active");
    for _ in 0..100 {
        assert_eq!(client.text(&["GET", "key"]).unwrap(), "new");
    }
}

/// The process stays the same, and so does its `run_id`; what it holds is another server's.
#[test]
fn a_server_that_was_a_replica_in_between_is_not_trusted() {
    let stack = Stack::start().unwrap();
    let other = Redis::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "right"]).unwrap();
    let mut cache = stack.cache.client().unwrap();
    let generation = cache.text(&["GET", "\0f:gen"]).unwrap();
    let mut foreign = other.client().unwrap();
    for db in 0..16 {
        foreign.ok(&["SELECT", &db.to_string()]).unwrap();
        foreign.ok(&["SET", "\0f:gen", &generation]).unwrap();
    }
    foreign.ok(&["SELECT", "0"]).unwrap();
    foreign.ok(&["SET", "key", "wrong"]).unwrap();
    let port = other.port().to_string();
    cache.ok(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    process::await_true("it is a copy of the other", LIMIT, || {
        cache.call(&["GET", "key"]).unwrap().text().as_deref() == Some("wrong")
    })
    .unwrap();
    cache.ok(&["REPLICAOF", "NO", "ONE"]).unwrap();
    cache.ok(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    // Within a renewal it is noticed; a new connection notices at once.
    process::await_true("the right value is shown", Duration::from_secs(5), || {
        client.text(&["GET", "key"]).unwrap() == "right"
    })
    .unwrap();
    for _ in 0..100 {
        assert_eq!(client.text(&["GET", "key"]).unwrap(), "right");
    }
    await_state(&stack.program, "active");
}

#[test]
fn a_cache_that_restarts_with_an_older_snapshot_shows_none_of_it() {
    let mut stack = Stack::start_with(&[], &["--dbfilename", "old.rdb"]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "key", "old", "other", "old"]).unwrap();
    let mut cache = stack.cache.client().unwrap();
    cache.ok(&["SAVE"]).unwrap();
    client.ok(&["MSET", "key", "new", "other", "new"]).unwrap();
    stack.cache.kill().unwrap();
    stack.cache.start_again().unwrap();
    let mut cache = stack.cache.client().unwrap();
    assert!(
        cache.integer(&["DBSIZE"]).unwrap() >= 0,
        "it answers, with the snapshot or emptied already"
    );
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        let both = client.call(&["MGET", "key", "other"]).unwrap();
        let texts: Vec<_> = both.items().iter().map(|item| item.text()).collect();
        assert_eq!(texts, [Some("new".to_owned()), Some("new".to_owned())]);
    }
    await_state(&stack.program, "active");
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "new");
}

#[test]
fn a_master_that_the_sentinels_do_not_know_is_named_and_served_without() {
    let watched = Watched::start();
    let database = Postgres::shared().create_database().unwrap();
    let url = watched.sentinel.url().replace("/main", "/nobody");
    let settings = [("log.level", "debug")];
    let program = Program::start(FRESHET, &database, &url, &settings).unwrap();
    program.await_log("No such master", LIMIT).unwrap();
    let mut client = program.client().unwrap();
    client
        .ok(&["SET", "key", "served without a cache"])
        .unwrap();
}
