//! What writing by SQL costs, and how soon the cache shows it: `make bench-cdc`.
//!
//! All servers are private, on free ports of 127.0.0.1, and end with the program. The numbers of two
//! settings in one line are medians of rounds in turns: the speed of a shared machine drifts.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)] // The tests use the rest of it.
mod support;

#[allow(dead_code)] // Others use the rest of it.
mod shared;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use shared::median;
use support::{Client, Sql, Stack};

/// Changes in a second beside those that are measured, over so many keys.
const RATE: f64 = 2000.0;
const KEYS: u64 = 10_000;
const WRITERS: u64 = 4;
/// For how long.
const LENGTH: Duration = Duration::from_secs(15);
/// Changes that are measured in a second.
const PROBES: f64 = 50.0;
/// Rounds of each setting.
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(()); // Nothing is measured when the benches are only tried.
    }
    let stack = Stack::start_with_own_postgres(&[])?;
    trigger(&stack.sql()?)?;
    functions(&stack.sql()?)?;
    lag(&stack)
}

/// Waits for the `count`th moment of a rhythm of `rate` in a second.
fn keep_pace(start: Instant, count: u64, rate: f64) {
    let due = start + Duration::from_secs_f64(count as f64 / rate);
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// From COMMIT by SQL until a client is shown the value, while as many others are written by SQL, and read.
fn lag(stack: &Stack) -> Result<()> {
    let is_over = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let start = Instant::now();
    let mut times: Vec<Duration> = Vec::new();
    thread::scope(|scope| -> Result<()> {
        for writer in 0..WRITERS {
            let (sql, is_over, written) = (stack.sql()?, &is_over, &written);
            scope.spawn(move || {
                for count in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    keep_pace(start, count, RATE / WRITERS as f64);
                    let key = (count * 7919 + writer) % KEYS;
                    let call = format!("SELECT freshet.set('key:{key}', '{count}')");
                    sql.execute(&call).expect("a write by SQL");
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (mut reader, over) = (stack.client()?, &is_over);
        scope.spawn(move || {
            for count in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                keep_pace(start, count, RATE);
                let key = format!("key:{}", (count * 104_729) % KEYS);
                reader.ok(&["GET", &key]).expect("a read");
            }
        });
        let (sql, mut client) = (stack.sql()?, stack.client()?);
        let mut count = 0;
        while start.elapsed() < LENGTH {
            keep_pace(start, count, PROBES);
            times.push(probe(&sql, &mut client, count)?);
            count += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "from COMMIT by SQL until it is shown, at {:.0} changes/s, {} samples: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        written.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64(),
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
    Ok(())
}

fn probe(sql: &Sql, client: &mut Client, count: u64) -> Result<Duration> {
    // Cached as it was: else the next read is a miss, and new in any case.
    client.ok(&["GET", "probe"])?;
    let value = format!("value {count}");
    sql.execute(&format!("SELECT freshet.set('probe', '{value}')"))?;
    let committed = Instant::now();
    while client.ok(&["GET", "probe"])?.text().as_deref() != Some(&value) {
        thread::sleep(Duration::from_micros(300));
    }
    Ok(committed.elapsed())
}

/// A proxy's upsert of 50 rows with and without the trigger for rows that are changed by hand.
fn trigger(sql: &Sql) -> Result<()> {
    sql.execute(UPSERTS)?;
    sql.execute("SET application_name = 'freshet'; SET enable_seqscan = off; SET jit = off")?;
    let run = |state: &str| -> Result<f64> {
        sql.execute(&format!(
            "ALTER TABLE freshet.keys {state} TRIGGER changed_by_hand"
        ))?;
        Ok(sql.query("SELECT pg_temp.upserts(500)", &[])?[0].get(0))
    };
    for _ in 0..4 {
        run("ENABLE")?; // Makes the rows.
    }
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(run("DISABLE")?);
        with.push(run("ENABLE")?);
    }
    println!(
        "a proxy's upsert of 50 rows, a row: {:.2} us with the trigger, {:.2} us without",
        median(&with),
        median(&without)
    );
    Ok(())
}

/// One call in a transaction that makes many.
fn functions(sql: &Sql) -> Result<()> {
    for call in [
        "freshet.set('f:' || n % 1000, 'value')",
        "freshet.incrby('n:' || n % 1000)",
        "freshet.hset('h:' || n % 1000, 'field', 'value')",
        "freshet.rpush('l:' || n % 1000, 'value')",
    ] {
        let query = format!("SELECT {call} FROM generate_series(1, 5000) n");
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            sql.execute(&query)?;
            times.push(start.elapsed().as_secs_f64() * 1e6 / 5000.0);
        }
        println!("{call}: {:.0} us", median(&times));
    }
    Ok(())
}

/// The mean time of a row, in microseconds.
const UPSERTS: &str = "
    CREATE FUNCTION pg_temp.upserts(batches int) RETURNS float8 LANGUAGE plpgsql AS $$
    DECLARE
        names bytea[];
        start timestamptz;
        total interval := '0';
    BEGIN
        FOR batch IN 1 .. batches LOOP
            SELECT array_agg(key ORDER BY key) INTO names
              FROM (SELECT DISTINCT ('row:' || (random() * 100000)::int)::bytea AS key FROM generate_series(1, 50)) keys;
            start := clock_timestamp();
            INSERT INTO freshet.keys AS k (db, key, kind, version, expires_ms, value)
            SELECT 0, u.key, 0, p.version + 1, NULL, decode(repeat('76', 64), 'hex')
              FROM freshet.purge p CROSS JOIN unnest(names) AS u (key)
                ON CONFLICT (db, key) DO UPDATE
               SET kind = excluded.kind, version = k.version + 1, expires_ms = excluded.expires_ms, value = excluded.value;
            total := total + (clock_timestamp() - start);
        END LOOP;
        RETURN extract(epoch FROM total) * 1000000 / batches / 50;
    END $$";
