//! The load generators: redis-benchmark and pgbench.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::report::Sample;
use super::support::process::{self, AtParentDeath, RunAs};
use super::support::{Postgres, Sql, postgres};

/// How many keys there are.
pub const KEYS: u32 = 100_000;
/// How long a value is, in bytes.
pub const VALUE: usize = 64;
/// How many clients there are.
pub const CLIENTS: u32 = 50;

/// No load runs longer than this many seconds.
const LOAD_LIMIT: &str = "120";

/// The name that redis-benchmark gives a key.
pub fn key(number: u32) -> String {
    format!("key:{number:012}")
}

/// Which command redis-benchmark sends, and how.
#[derive(Clone, Copy)]
pub struct Load {
    /// The name of a test of redis-benchmark, or a command of our own.
    pub command: &'static str,
    /// Connections.
    pub clients: u32,
    /// Requests that a connection sends at once.
    pub pipeline: u32,
    /// Requests in all.
    pub requests: u64,
}

/// Runs redis-benchmark against `address`.
pub fn redis_benchmark(address: SocketAddr, load: Load) -> Result<Sample> {
    run_redis_benchmark(address, load, &["-t", load.command])
}

/// Runs redis-benchmark against `address` with a command of our own, whose
/// `__rand_int__` becomes one of `KEYS` numbers.
pub fn repeat(address: SocketAddr, load: Load) -> Result<Sample> {
    let words: Vec<&str> = load.command.split(' ').collect();
    run_redis_benchmark(address, load, &words)
}

fn run_redis_benchmark(address: SocketAddr, load: Load, what: &[&str]) -> Result<Sample> {
    let mut command = process::command("timeout", RunAs::Myself, AtParentDeath::Kill);
    command
        .args([LOAD_LIMIT, "redis-benchmark", "--csv"])
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-n", &load.requests.to_string()])
        .args(["-c", &load.clients.to_string()])
        .args(["-P", &load.pipeline.to_string()])
        .args(["-r", &KEYS.to_string()])
        .args(["-d", &VALUE.to_string()])
        .args(what);
    let output = process::run(command)?;
    sample_of_csv(&output).with_context(|| format!("redis-benchmark said: {output}"))
}

/// The last line of `--csv`: test, rate, and latencies: mean, least, p50, p95, p99, most.
fn sample_of_csv(output: &str) -> Result<Sample> {
    // A command of our own stands in the first field as it is, without commas.
    let line = output
        .lines()
        .rfind(|line| line.starts_with('"') && line.split(',').count() == 8)
        .context("no result line")?;
    let numbers: Vec<f64> = line
        .split(',')
        .skip(1)
        .map(|field| field.trim_matches('"').parse())
        .collect::<Result<_, _>>()?;
    let [rate, mean, _, p50, _, p99, _] = numbers[..] else {
        bail!("expected 7 numbers in {line}");
    };
    Ok(Sample {
        rate,
        mean,
        p50,
        p99,
    })
}

/// The table for pgbench and the dual write, equal to Freshet's: the same
/// columns, checks and indexes.
const TABLE: &str = "
create function scan_position(key bytea) returns bigint
language sql immutable strict parallel safe
as $$ select ('x' || substr(md5(key), 1, 15))::bit(60)::bigint $$;
create table keys (
    db smallint not null check (db between 0 and 15),
    key bytea not null,
    kind smallint check (kind = 0),
    version bigint not null check (version > 0),
    expires_ms bigint,
    value bytea,
    primary key (db, key),
    check ((kind is not null) = (value is not null))
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
create index on keys (db, scan_position(key))";

/// The statement that an application without Freshet would prepare.
pub const UPSERT: &str = "insert into keys (db, key, kind, version, expires_ms, value)
    values (0, $1, 0, 1, null, $2)
    on conflict (db, key) do update
    set kind = excluded.kind, version = keys.version + 1,
        expires_ms = excluded.expires_ms, value = excluded.value";

/// Creates and fills that table.
pub fn fill_table(url: &str) -> Result<()> {
    let sql = Sql::connect(url)?;
    sql.execute(TABLE)?;
    // Apart, since several statements in one message form one transaction, and
    // VACUUM refuses to run in one.
    sql.execute(&format!(
        "insert into keys select 0, ('key:' || lpad(n::text, 12, '0'))::bytea, 0, 1, null,
         repeat('x', {VALUE})::bytea from generate_series(0, {}) n",
        KEYS - 1
    ))?;
    sql.execute("vacuum analyze keys")?;
    sql.execute("checkpoint")
}

/// Runs pgbench with prepared single-row upserts of random keys.
pub fn pgbench(server: &Postgres, database: &str, clients: u32, seconds: f64) -> Result<Sample> {
    let folder = TempDir::new()?;
    let script = folder.path().join("upsert.sql");
    let value = "x".repeat(VALUE);
    let upsert = UPSERT
        .replace("$1", "('key:' || lpad(:id::text, 12, '0'))::bytea")
        .replace("$2", &format!("'{value}'::bytea"))
        .replace('\n', " ");
    std::fs::write(
        &script,
        format!("\\set id random(0, {})\n{upsert};\n", KEYS - 1),
    )?;
    let threads = clients.min(2);
    let mut command = process::command("timeout", RunAs::Myself, AtParentDeath::Kill);
    command
        .arg(LOAD_LIMIT)
        .arg(postgres::program("pgbench"))
        .args(["--no-vacuum", "--protocol=prepared", "--log"])
        .arg(format!(
            "--log-prefix={}",
            folder.path().join("log").display()
        ))
        .args(["-h", "127.0.0.1", "-U", "postgres"])
        .args(["-p", &server.port().to_string()])
        .args(["-c", &clients.to_string(), "-j", &threads.to_string()])
        .args(["-T", &seconds.ceil().to_string()])
        .arg("-f")
        .arg(&script);
    if clients > 1 {
        // To log every transaction would slow pgbench down.
        command.arg("--sampling-rate=0.1");
    }
    command.arg(database);
    let output = process::run(command)?;
    let rate = output
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .with_context(|| format!("pgbench said: {output}"))?;
    let (mean, p50, p99) = latencies(folder.path())?;
    Ok(Sample {
        rate,
        mean,
        p50,
        p99,
    })
}

/// Mean, median and 99th percentile in milliseconds of the logs of all threads:
/// client, transaction, microseconds, ...
fn latencies(folder: &Path) -> Result<(f64, f64, f64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("log.") {
            let text = std::fs::read_to_string(entry.path())?;
            all.extend(
                text.lines()
                    .filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok()),
            );
        }
    }
    summary(all)
}

/// Mean, median and 99th percentile in milliseconds of latencies in microseconds.
pub fn summary(mut microseconds: Vec<f64>) -> Result<(f64, f64, f64)> {
    microseconds.sort_by(f64::total_cmp);
    let count = microseconds.len();
    let at = |share: f64| {
        let index = (count as f64 * share) as usize;
        microseconds
            .get(index.min(count.saturating_sub(1)))
            .copied()
    };
    let p50 = at(0.5).context("no latencies")?;
    let p99 = at(0.99).context("no latencies")?;
    let mean = microseconds.iter().sum::<f64>() / count as f64;
    Ok((mean / 1e3, p50 / 1e3, p99 / 1e3))
}
