//! What may happen to a replica, to its slot, to the proxy that feeds it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{LIMIT, World, await_equal, change};
use crate::moving::all_ok;
use crate::support::{Fsync, Postgres, Redis, process, seed};

/// Waits until all that was written so far is noted to be at the only replica.
fn await_noted(world: &World) {
    let sql = world.sql();
    let query = "SELECT (pg_current_wal_lsn() - '0/0')::bigint";
    let written: i64 = sql.query(query, &[]).unwrap()[0].get(0);
    process::await_true("it is noted how far the replica is", LIMIT, || {
        let rows = sql.query("SELECT lsn FROM freshet.replica", &[]).unwrap();
        rows[0].get::<_, i64>(0) >= written
    })
    .unwrap();
}

#[test]
fn one_that_was_away_for_long_catches_up_and_one_that_lost_its_keys_gets_all() {
    let mut world = World::start();
    let mut replica = Redis::start_with(&["--appendonly", "yes"]).unwrap();
    world.add("one", &replica.url(), "");
    let program = world.program();
    let mut here = program.client().unwrap();
    let mut rng = StdRng::seed_from_u64(seed::seed());
    change(&mut here, &mut rng, 200);
    await_equal(&mut here, &replica);
    await_noted(&world);
    // It keeps what it has.
    let stopped = replica.client().unwrap().call(&["SHUTDOWN"]);
    assert!(stopped.is_err());
    replica.kill().unwrap();
    change(&mut here, &mut rng, 1000);
    program.await_log("not fed", LIMIT).unwrap();
    replica.start_again().unwrap();
    await_equal(&mut here, &replica);
    assert_eq!(world.snapshots(), 1);
    // It loses all, and nobody tells.
    all_ok(&mut replica.client().unwrap(), &["FLUSHALL"]);
    await_equal(&mut here, &replica);
    change(&mut here, &mut rng, 100);
    await_equal(&mut here, &replica);
    assert_eq!(world.snapshots(), 2);
}

#[test]
fn a_slot_that_was_dropped_or_made_anew_means_all_keys_anew() {
    let (mut world, replica) = (World::start(), Redis::start().unwrap());
    world.add("one", &replica.url(), "");
    let mut program = world.program();
    let mut here = program.client().unwrap();
    all_ok(&mut here, &["SET a 1", "SET gone 1"]);
    await_equal(&mut here, &replica);
    await_noted(&world);
    let (sql, slot) = (world.sql(), world.slot());
    let drop = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
          WHERE slot_name = '{slot}' AND active;
         SELECT pg_drop_replication_slot('{slot}')"
    );
    // While it is fed: the session that reads it may be there again before it is dropped.
    process::await_true("the slot is dropped", LIMIT, || sql.execute(&drop).is_ok()).unwrap();
    all_ok(&mut here, &["SET b 2", "DEL gone"]);
    await_equal(&mut here, &replica);
    process::await_true("all keys were brought anew", LIMIT, || {
        world.snapshots() == 2
    })
    .unwrap();
    world.await_following("one");
    await_noted(&world);

    // While it is not fed: the new one has not heard of what was written in between.
    program.kill().unwrap();
    // PostgreSQL notices in a moment that nobody reads it any more.
    process::await_true("the slot is dropped", LIMIT, || sql.execute(&drop).is_ok()).unwrap();
    sql.execute(
        "UPDATE freshet.keys SET kind = NULL, value = NULL, version = version + 1 WHERE key = 'b';
         UPDATE freshet.keys SET value = 'other', version = version + 1 WHERE key = 'a'",
    )
    .unwrap();
    sql.execute(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    ))
    .unwrap();
    program.start_again().unwrap();
    process::await_true("all keys were brought anew", LIMIT, || {
        world.snapshots() == 3
    })
    .unwrap();
    world.await_following("one");
    // The cache has not heard of it, so Freshet is not asked.
    let mut there = replica.client().unwrap();
    assert_eq!(there.text(&["GET", "a"]).unwrap(), "other");
    assert_eq!(there.integer(&["EXISTS", "b"]).unwrap(), 0);
}

#[test]
fn another_proxy_goes_on_when_the_one_that_feeds_is_killed() {
    let (mut world, replica) = (World::start(), Redis::start().unwrap());
    world.add("one", &replica.url(), "");
    let mut programs = [world.program(), world.program()];
    let mut rng = StdRng::seed_from_u64(seed::seed());
    change(&mut programs[0].client().unwrap(), &mut rng, 100);
    world.await_following("one");
    for _ in 0..2 {
        let feeds = |program: &crate::support::Program| {
            program
                .metric("freshet_replica_fed")
                .is_ok_and(|fed| fed == 1.0)
        };
        let feeder = process::await_some("one proxy feeds it", LIMIT, || {
            programs.iter().position(feeds)
        })
        .unwrap();
        let mut here = programs[1 - feeder].client().unwrap();
        change(&mut here, &mut rng, 200);
        programs[feeder].kill().unwrap();
        change(&mut here, &mut rng, 200);
        await_equal(&mut here, &replica);
        programs[feeder].start_again().unwrap();
    }
    // Nothing was lost, so nothing had to be brought anew.
    assert_eq!(world.snapshots(), 1);
}

#[test]
fn one_that_is_too_far_behind_gives_its_slot_back_and_gets_all_keys_later() {
    let mut world = World::start();
    let mut replica = Redis::start_with(&["--appendonly", "yes"]).unwrap();
    world.add("one", &replica.url(), "max_behind = \"1MB\"");
    let program = world.program();
    let mut here = program.client().unwrap();
    all_ok(&mut here, &["SET a 1"]);
    await_equal(&mut here, &replica);
    replica.kill().unwrap();
    // PostgreSQL would compress what repeats.
    let mut rng = StdRng::seed_from_u64(seed::seed());
    for _ in 0..40 {
        let value: String = (0..100_000).map(|_| rng.random_range('a'..='z')).collect();
        here.ok(&["SET", "long", &value]).unwrap();
    }
    process::await_true("its slot is given back", LIMIT, || world.slots().is_empty()).unwrap();
    replica.start_again().unwrap();
    await_equal(&mut here, &replica);
    assert_eq!(world.snapshots(), 2);
}

#[test]
fn a_postgresql_that_tells_no_changes_is_told_of_and_all_else_goes_on() {
    let postgres = Postgres::start_with(Fsync::Off, &["wal_level=replica"]).unwrap();
    let (mut world, replica) = (World::on(&postgres), Redis::start().unwrap());
    world.add("one", &replica.url(), "");
    let program = world.program();
    program
        .await_log("set `wal_level = logical`", LIMIT)
        .unwrap();
    let mut here = program.client().unwrap();
    all_ok(&mut here, &["SET a 1"]);
    assert_eq!(here.text(&["GET", "a"]).unwrap(), "1");
    process::await_true("the status says it too", LIMIT, || {
        let (code, status) = world.status(&program);
        let error = status["replicas"][0]["error"].as_str().unwrap_or_default();
        code == 1 && error.contains("wal_level")
    })
    .unwrap();
}

#[test]
fn what_no_configuration_has_any_more_is_forgotten_with_its_slot() {
    let (mut world, replica) = (World::start(), Redis::start().unwrap());
    world.add("one", &replica.url(), "");
    let mut program = world.program();
    world.await_following("one");
    assert_eq!(world.slots().len(), 1);
    program.stop().unwrap();
    let old = "UPDATE freshet.replica SET configured_at = now() - interval '1 day'";
    world.sql().execute(old).unwrap();
    // Who has it, keeps it, however long no proxy was there.
    program.start_again().unwrap();
    process::await_true("it is wanted", LIMIT, || {
        let query = "SELECT FROM freshet.replica WHERE configured_at > now() - interval '1 hour'";
        world.sql().query(query, &[]).unwrap().len() == 1
    })
    .unwrap();
    assert_eq!((world.snapshots(), world.slots().len()), (1, 1));
    program.stop().unwrap();
    world.sql().execute(old).unwrap();
    program.configure("");
    program.start_again().unwrap();
    process::await_true("it is forgotten", LIMIT, || {
        world.slots().is_empty() && world.phase("one").is_none()
    })
    .unwrap();
}
