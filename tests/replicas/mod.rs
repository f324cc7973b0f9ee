//! Further Redis servers that are kept as the store is: whatever happens to them, to their slots, to the
//! proxies and to the store, they hold what it holds in the end.

mod faults;
mod login;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value as Json;

use crate::moving::{Ran, all_ok, command_on, differing, import, keys};
use crate::support::{Client, Postgres, Program, Redis, Sql, process, seed, stack::FRESHET};

const LIMIT: Duration = Duration::from_secs(60);

/// A store and a cache, and what is written of replicas in the configuration.
struct World {
    database: String,
    cache: Redis,
    configuration: String,
}

impl World {
    /// On a database of the shared cluster.
    fn start() -> Self {
        Self::on(Postgres::shared())
    }

    fn on(postgres: &Postgres) -> Self {
        Self {
            database: postgres.create_database().unwrap(),
            cache: Redis::start().unwrap(),
            configuration: String::new(),
        }
    }

    /// One more replica, with more lines of its configuration.
    fn add(&mut self, name: &str, url: &str, more: &str) {
        self.configuration += &format!("[[replica]]\nname = \"{name}\"\nurl = \"{url}\"\n{more}\n");
    }

    fn program(&self) -> Program {
        let cache = self.cache.url();
        let log = [("log.level", "info,freshet::replica=debug")];
        let mut program = Program::stopped(FRESHET, &self.database, &cache, &log).unwrap();
        program.configure(&self.configuration);
        program.start_again().unwrap();
        program
    }

    fn sql(&self) -> Sql {
        Sql::connect(&self.database).unwrap()
    }

    /// What `freshet replica status --json` says; and its exit code.
    fn status(&self, program: &Program) -> (i32, Json) {
        let file = program.configuration();
        let file = file.to_str().unwrap();
        let words = ["replica", "status", "--json", "--config", file];
        let output = command_on(&self.database, &self.cache.url(), &words)
            .output()
            .unwrap();
        let ran = Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        let json = serde_json::from_str(&ran.out);
        (ran.code, json.unwrap_or_else(|_| panic!("{}", ran.err)))
    }

    /// How many snapshots of the only replica were begun.
    fn snapshots(&self) -> i64 {
        let rows = self.sql().query("SELECT epoch FROM freshet.replica", &[]);
        rows.unwrap()[0].get(0)
    }

    fn phase(&self, name: &str) -> Option<String> {
        let query = "SELECT phase FROM freshet.replica WHERE name = $1";
        let rows = self.sql().query(query, &[&name]).ok()?;
        Some(rows.first()?.get(0))
    }

    fn await_following(&self, name: &str) {
        process::await_true("the replica follows", LIMIT, || {
            self.phase(name).as_deref() == Some("following")
        })
        .unwrap();
    }

    /// The name of the only replica's slot.
    fn slot(&self) -> String {
        let rows = self.sql().query("SELECT slot FROM freshet.replica", &[]);
        rows.unwrap()[0].get(0)
    }

    fn slots(&self) -> Vec<String> {
        let query =
            "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()";
        let rows = self.sql().query(query, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// Waits until a replica holds what the store holds.
fn await_equal(here: &mut Client, there: &Redis) {
    let equal = process::await_true("the replica is as the store is", LIMIT, || {
        differing(here, &mut there.client().unwrap()).is_empty()
    });
    if equal.is_err() {
        panic!("{:?}", differing(here, &mut there.client().unwrap()));
    }
}

/// Random changes of some keys of two databases, of every kind.
fn change(client: &mut Client, rng: &mut StdRng, count: u32) {
    for number in 0..count {
        let key = |rng: &mut StdRng| format!("key:{}", rng.random_range(0..40));
        let (one, other) = (key(rng), key(rng));
        let line = match rng.random_range(0..14) {
            0 => format!("SET {one} {number}"),
            1 => format!("DEL {one} {other}"),
            2 => format!("HSET h{one} f{number} 1 g 2"),
            3 => format!("HDEL h{one} g"),
            4 => format!("RPUSH l{one} a b {number}"),
            5 => format!("LPOP l{one}"),
            6 => format!("SADD s{one} {number}"),
            7 => format!("ZADD z{one} {number} m"),
            8 => format!("XADD x{one} * f {number}"),
            9 => format!("PEXPIRE l{one} {}", rng.random_range(1..2000)),
            10 => format!("COPY h{one} c{other} REPLACE"),
            11 => format!("SET t{one} v PX {}", rng.random_range(1..3000)),
            12 => format!("UNLINK s{one}"),
            _ => format!("SELECT {}", rng.random_range(0..2)),
        };
        let words: Vec<&str> = line.split(' ').collect();
        client.ok(&words).unwrap();
    }
    client.ok(&["SELECT", "0"]).unwrap();
}

#[test]
fn a_replica_has_all_keys_and_follows_every_change() {
    let (mut world, replica) = (World::start(), Redis::start().unwrap());
    // What was there before goes.
    all_ok(
        &mut replica.client().unwrap(),
        &["SET stranger x", "SET string other"],
    );
    world.add("one", &replica.url(), "");
    {
        // Before there is a replica: all that comes with the snapshot.
        let before = Program::start(FRESHET, &world.database, &world.cache.url(), &[]).unwrap();
        import::fill(&mut before.client().unwrap());
    }
    let program = world.program();
    let mut here = program.client().unwrap();
    world.await_following("one");
    await_equal(&mut here, &replica);
    let seed = seed::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    change(&mut here, &mut rng, 600);
    await_equal(&mut here, &replica);
    all_ok(
        &mut here,
        &["SWAPDB 0 5", "MULTI", "SET a 1", "SET b 2", "EXEC"],
    );
    await_equal(&mut here, &replica);
    all_ok(&mut here, &["SELECT 5", "FLUSHDB", "SELECT 0"]);
    change(&mut here, &mut rng, 100);
    await_equal(&mut here, &replica);
    all_ok(&mut here, &["FLUSHALL", "SET after flush"]);
    await_equal(&mut here, &replica);
    assert_eq!(keys(&mut replica.client().unwrap()), ["after"]);
    change(&mut here, &mut rng, 300);
    await_equal(&mut here, &replica);
    assert_eq!(world.snapshots(), 1);

    process::await_true("it is told that all is well", LIMIT, || {
        let (code, status) = world.status(&program);
        let line = &status["replicas"][0];
        code == 0 && line["phase"] == "following" && line["lag_seconds"].as_f64().is_some()
    })
    .unwrap();
    assert!(program.metric("freshet_replica_changes_total").unwrap() > 0.0);
    assert_eq!(program.metric("freshet_replica_fed").unwrap(), 1.0);
}

#[test]
fn only_matching_keys_are_at_a_replica_and_others_there_stay() {
    let (mut world, replica) = (World::start(), Redis::start().unwrap());
    world.add("some", &replica.url(), "match = [\"user:*\", \"cart:?\"]");
    let mut there = replica.client().unwrap();
    all_ok(&mut there, &["SET own x", "SET user:stale x"]);
    let program = world.program();
    let mut here = program.client().unwrap();
    all_ok(
        &mut here,
        &["SET user:1 a", "SET cart:1 b", "SET cart:10 c", "SET x d"],
    );
    let expected = ["cart:1", "own", "user:1"];
    process::await_true("the chosen keys are there", LIMIT, || {
        keys(&mut there) == expected
    })
    .unwrap();
    all_ok(&mut here, &["FLUSHALL", "SET user:2 a"]);
    process::await_true("only these are gone", LIMIT, || {
        keys(&mut there) == ["own", "user:2"]
    })
    .unwrap();
}

#[test]
fn a_replica_that_is_away_hinders_nobody() {
    let (mut world, replica) = (World::start(), Redis::start().unwrap());
    let mut away = Redis::start().unwrap();
    away.kill().unwrap();
    world.add("away", &away.url(), "");
    world.add("there", &replica.url(), "");
    let program = world.program();
    let mut here = program.client().unwrap();
    all_ok(&mut here, &["SET a 1"]);
    await_equal(&mut here, &replica);
    process::await_true("it is told which one fails", LIMIT, || {
        let (code, status) = world.status(&program);
        let [away, there] = [0, 1].map(|index| status["replicas"][index].clone());
        assert_eq!(
            (&away["name"], &there["name"]),
            (&"away".into(), &"there".into())
        );
        code == 1 && away["error"].is_string() && there["phase"] == "following"
    })
    .unwrap();
    away.start_again().unwrap();
    await_equal(&mut here, &away);
}

#[test]
fn the_cache_is_no_replica() {
    let mut world = World::start();
    // By another name than in `[redis] url`.
    let url = format!("redis://localhost:{}", world.cache.port());
    world.add("cache", &url, "");
    let program = world.program();
    program.await_log("Freshet's own cache", LIMIT).unwrap();
    let mut here = program.client().unwrap();
    all_ok(&mut here, &["SET a 1", "GET a"]);
}
