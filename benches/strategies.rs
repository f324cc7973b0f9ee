//! What a `SET` costs under each strategy, beside a Redis with `appendfsync always`: ratios within one
//! run, since the speed of a shared machine drifts between runs.
//!
//! `cargo bench --bench strategies`; `FRESHET_BENCH_ROUNDS` sets the number of rounds (5). Load comes
//! from redis-benchmark: 50 clients, 100,000 keys, values of 64 bytes.

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)] // The tests use the rest of it.
mod support;

mod shared;

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use shared::{median, number};
use support::{Fsync, Postgres, Program, Redis};

/// Requests of one run.
const REQUESTS: &str = "100000";
const VALUE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Name, beginning of the keys, with which of these it is compared, and the least ratio that we ask of
/// ourselves.
type Contender = (&'static str, &'static str, Option<(usize, f64)>);

const CONTENDERS: [Contender; 5] = [
    ("Redis, appendfsync always", "a", None),
    ("atomic", "a", None),
    ("eventual", "e", Some((1, 1.2))),
    ("write-behind", "w", Some((0, 0.5))),
    ("cache-only", "c", None),
];

/// Answers in a second.
fn rate(address: SocketAddr, prefix: &str) -> Result<f64> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let key = format!("{prefix}:__rand_int__");
    let output = Command::new("redis-benchmark")
        .args([
            "-h", &host, "-p", &port, "-c", "50", "-n", REQUESTS, "-r", "100000", "--csv",
        ])
        .args(["SET", &key, VALUE])
        .output()
        .context("redis-benchmark")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "redis-benchmark: {text}");
    let line = text
        .lines()
        .last()
        .context("redis-benchmark said nothing")?;
    let rate = line.split("\",\"").nth(1).context("no rate")?;
    rate.parse().with_context(|| format!("not a rate: {line}"))
}

/// Waits until the journal is written to PostgreSQL: entries that were left, and seconds.
fn drain(program: &Program) -> Result<(f64, f64)> {
    let left = program.metric("freshet_journal_entries")?;
    let start = Instant::now();
    while program.metric("freshet_journal_entries")? > 0.0 {
        ensure!(
            start.elapsed() < Duration::from_secs(120),
            "it is not drained"
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok((left, start.elapsed().as_secs_f64()))
}

fn report(rates: &[Vec<f64>]) {
    println!("\n| SET, 50 clients | per s | beside | ratio (range) | |\n|---|---|---|---|---|");
    for ((name, _, beside), own) in CONTENDERS.iter().zip(rates) {
        let Some((other, least)) = beside else {
            println!("| {name} | {:.0} | | | |", median(own));
            continue;
        };
        let ratios: Vec<f64> = own.iter().zip(&rates[*other]).map(|(a, b)| a / b).collect();
        println!(
            "| {name} | {:.0} | {} | {:.2} ({:.2} to {:.2}) | {} |",
            median(own),
            CONTENDERS[*other].0,
            median(&ratios),
            ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratios.iter().copied().fold(0.0, f64::max),
            if median(&ratios) >= *least {
                "met"
            } else {
                "MISSED"
            }
        );
    }
}

fn main() -> Result<()> {
    // `cargo test --benches` runs benchmark programs too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let rounds = number("FRESHET_BENCH_ROUNDS", 5.0)?.max(1.0) as usize;
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    let (cache, journal) = (Redis::start()?, Redis::start_with(&always)?);
    let peer = Redis::start_with(&always)?;
    let postgres = Postgres::start(Fsync::On)?;
    let url = postgres.create_database()?;
    let settings = [("write_behind.url", journal.url())];
    let settings = settings
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut program =
        Program::stopped(env!("CARGO_BIN_EXE_freshet"), &url, &cache.url(), &settings)?;
    program.configure(
        "[[route]]\nmatch = \"e:*\"\nstrategy = \"eventual\"\n\
         [[route]]\nmatch = \"w:*\"\nstrategy = \"write-behind\"\n\
         [[route]]\nmatch = \"c:*\"\nstrategy = \"cache-only\"\n",
    );
    program.start_again()?;
    let mut rates = vec![Vec::new(); CONTENDERS.len()];
    for round in 0..=rounds {
        println!(
            "round {round} of {rounds}{}",
            if round == 0 { " (warm-up)" } else { "" }
        );
        for ((name, prefix, _), rates) in CONTENDERS.iter().zip(&mut rates) {
            let is_peer = name.starts_with("Redis");
            let address = if is_peer {
                peer.address()
            } else {
                program.address()
            };
            let rate = rate(address, prefix)?;
            println!("  {name:<30} {rate:>8.0}/s");
            if *prefix == "w" {
                let (left, seconds) = drain(&program)?;
                println!("  {left:.0} changes were left to write, which took {seconds:.1} s");
            }
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    report(&rates);
    Ok(())
}
