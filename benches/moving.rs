//! How fast keys come in, go out and follow: a million of all types, of which six in ten are strings.
//!
//! `cargo bench --bench moving` runs it; `FRESHET_BENCH_KEYS` sets the number of keys (1,000,000).
//! All servers are private, on free ports of 127.0.0.1, and end with the program.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)] // The tests use the rest of it.
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use support::{Fsync, Postgres, Program, Redis, Sql, process, stack::FRESHET};

/// A source may be asked for so long to make its keys.
const FILL_LIMIT: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(600);

/// Makes the keys from ARGV[1] to ARGV[2]: of ten six strings, and one hash, list, set and sorted set of
/// five elements each; every fourth key ends.
const FILL: &str = "
    for number = ARGV[1], ARGV[2] do
        local kind, key = number % 10, 'key:' .. number
        if kind < 6 then
            redis.call('SET', key, string.rep(number, 64 / #tostring(number)))
        else
            for element = 1, 5 do
                local text = 'element ' .. number * element
                if kind == 6 then redis.call('HSET', key, text, number)
                elseif kind == 7 then redis.call('RPUSH', key, text)
                elseif kind == 8 then redis.call('SADD', key, text)
                else redis.call('ZADD', key, number / element, text) end
            end
        end
        if number % 4 == 0 then redis.call('EXPIRE', key, 86400 + number) end
    end";

fn main() -> Result<()> {
    // `cargo test --benches` runs benchmark programs too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let keys: u64 = match std::env::var("FRESHET_BENCH_KEYS") {
        Ok(text) => text.parse().context("FRESHET_BENCH_KEYS")?,
        Err(_) => 1_000_000,
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("keys.rdb");
    let file = file.to_str().context("a path in UTF-8")?;
    let postgres = Postgres::start(Fsync::On)?;
    let (database, cache) = (postgres.create_database()?, Redis::start()?);
    let source = filled(keys)?;
    let run = |database: &str, words: &[&str]| measure(keys, database, &cache, words);
    run(&database, &["import", "--from", &source.url()])?;
    drop(source);
    run(&database, &["export", "--to", file])?;
    let target = Redis::start()?;
    run(&database, &["export", "--to", &target.url()])?;
    run(&database, &["export", "--to", &target.url(), "--verify"])?;
    drop(target);
    let other = postgres.create_database()?;
    let second_cache = Redis::start()?;
    measure(keys, &other, &second_cache, &["import", "--from", file])?;
    follow(keys, &database, &cache)
}

fn filled(keys: u64) -> Result<Redis> {
    let source = Redis::start()?;
    let mut client = source.client()?;
    client.set_reply_limit(FILL_LIMIT)?;
    for from in (1..=keys).step_by(100_000) {
        let to = (from + 99_999).min(keys);
        client.ok(&["EVAL", FILL, "0", &from.to_string(), &to.to_string()])?;
    }
    Ok(source)
}

fn told(what: &str, count: u64, took: Duration) {
    let rate = count as f64 / took.as_secs_f64();
    println!(
        "{what:<40} {count:>9} in {:>6.1} s: {rate:>8.0} a second",
        took.as_secs_f64()
    );
}

fn measure(keys: u64, database: &str, cache: &Redis, words: &[&str]) -> Result<()> {
    let began = Instant::now();
    let output = Command::new(FRESHET)
        .args(words)
        .current_dir(std::env::temp_dir())
        .env("FRESHET_POSTGRES_URL", database)
        .env("FRESHET_REDIS_URL", cache.url())
        .env("FRESHET_LOG_LEVEL", "warn")
        .output()?;
    let took = began.elapsed();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {out}{err}");
    let kind = |word: &&str| !word.contains('/') || word.contains("://");
    let shown: Vec<&str> = words
        .iter()
        .filter(|w| kind(w) || **w == "--to")
        .copied()
        .collect();
    told(&shown.join(" "), keys, took);
    Ok(())
}

/// A replica gets all keys, and then what changed while no proxy fed it: each key once, and a tenth of them
/// ten times.
fn follow(keys: u64, database: &str, cache: &Redis) -> Result<()> {
    let replica = Redis::start()?;
    let mut program = Program::stopped(FRESHET, database, &cache.url(), &[])?;
    program.configure(&format!(
        "[[replica]]\nname = \"bench\"\nurl = \"{}\"\n",
        replica.url()
    ));
    let sql = Sql::connect(database)?;
    let began = Instant::now();
    program.start_again()?;
    process::await_true("the replica follows", LIMIT, || {
        let query = "SELECT FROM freshet.replica WHERE phase = 'following'";
        sql.query(query, &[]).is_ok_and(|rows| rows.len() == 1)
    })?;
    told("replica: all keys", keys, began.elapsed());
    for (what, share) in [
        ("replica: changes of each key", 1),
        ("replica: ten changes of a tenth", 10),
    ] {
        program.stop()?;
        for _ in 0..share {
            change(&sql, keys, share)?;
        }
        let query = "SELECT (pg_current_wal_lsn() - '0/0')::bigint";
        let written: i64 = sql.query(query, &[])?[0].get(0);
        let began = Instant::now();
        program.start_again()?;
        process::await_true("the replica has caught up", LIMIT, || {
            let rows = sql.query("SELECT lsn FROM freshet.replica", &[]);
            rows.is_ok_and(|rows| rows[0].get::<_, i64>(0) >= written)
        })?;
        told(what, keys, began.elapsed());
    }
    Ok(())
}

/// Changes one of `share` keys, in transactions of ten thousand rows.
fn change(sql: &Sql, keys: u64, share: u64) -> Result<()> {
    for from in (0..keys).step_by(10_000 * share as usize) {
        let to = from + 10_000 * share;
        sql.execute(&format!(
            "UPDATE freshet.keys SET version = version + 1
              WHERE db = 0 AND key IN (SELECT convert_to('key:' || n, 'UTF8') FROM generate_series({from}, {to} - 1, {share}) n)"
        ))?;
    }
    Ok(())
}
