//! What scripts cost beside the same without them: ratios within one run, since the speed of a
//! shared machine drifts between runs.
//!
//! `cargo bench --bench scripts`; `FRESHET_BENCH_ROUNDS` sets the number of rounds (5),
//! `FRESHET_BENCH_SCALE` multiplies the number of requests (1.0).

#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)] // The tests use the rest of it.
mod support;

mod shared;

use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use shared::{median, number};
use support::client::{Client, encode};
use support::{Fsync, Postgres, Program, Redis};

/// Connections.
const CLIENTS: usize = 50;
/// Keys among which each request takes one.
const KEYS: u64 = 10_000;
/// Requests of one run.
const REQUESTS: f64 = 40_000.0;

/// A fixed window of a rate limiter.
const LIMITER: &str = "local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count";
/// The same without the condition, as a block has to do it.
const LIMITER_ALWAYS: &str = "local count = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return count";
/// A bucket of tokens: ten calls on one hash, of which three write.
const BUCKET: &str = "local key, now = KEYS[1], tonumber(ARGV[1])
redis.call('EXISTS', key)
local fields = redis.call('HMGET', key, 'tokens', 'at')
redis.call('TYPE', key)
redis.call('HLEN', key)
redis.call('HEXISTS', key, 'owner')
redis.call('HSTRLEN', key, 'at')
redis.call('HINCRBY', key, 'used', 1)
redis.call('HSET', key, 'at', now)
redis.call('HSET', key, 'tokens', tonumber(fields[1] or 100))
return redis.call('HGET', key, 'used')";
/// Ten calls, each of which writes another field.
const TEN_FIELDS: &str =
    "for field = 1, 10 do redis.call('HSET', KEYS[1], 'f' .. field, ARGV[1]) end";

/// What is measured.
struct Work {
    name: &'static str,
    /// The requests of one round trip, for a key.
    requests: fn(key: &str, shas: &[String]) -> Vec<Vec<String>>,
    /// With what it is compared, and the least ratio of their rates that we ask of ourselves.
    beside: Option<(usize, f64)>,
    /// The least rate that we ask of ourselves.
    rate: f64,
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Each is compared with one that stands before it.
const WORKS: [Work; 7] = [
    Work {
        name: "INCR, PEXPIRE in a MULTI block",
        requests: |key, _| {
            let lines = [
                "MULTI",
                &format!("INCR {key}"),
                &format!("PEXPIRE {key} 60000"),
                "EXEC",
            ];
            lines.map(words).into()
        },
        beside: None,
        rate: 0.0,
    },
    Work {
        name: "the same as a script",
        requests: |key, shas| vec![words(&format!("EVALSHA {} 1 {key} 60000", shas[1]))],
        beside: Some((0, 0.5)),
        rate: 8_000.0,
    },
    Work {
        name: "the same by EVAL",
        requests: |key, _| {
            let mut request = vec!["EVAL".to_owned(), LIMITER_ALWAYS.to_owned()];
            request.extend(words(&format!("1 {key} 60000")));
            vec![request]
        },
        beside: Some((0, 0.5)),
        rate: 8_000.0,
    },
    Work {
        name: "a script that sets the end once",
        requests: |key, shas| vec![words(&format!("EVALSHA {} 1 {key} 60000", shas[0]))],
        beside: Some((0, 0.5)),
        rate: 8_000.0,
    },
    Work {
        name: "HSET of one field",
        requests: |key, _| vec![words(&format!("HSET hash:{key} at 12345678"))],
        beside: None,
        rate: 0.0,
    },
    Work {
        name: "ten calls on one hash, three fields written",
        requests: |key, shas| vec![words(&format!("EVALSHA {} 1 hash:{key} 12345678", shas[2]))],
        beside: Some((4, 0.5)),
        rate: 0.0,
    },
    Work {
        name: "ten HSETs of ten fields",
        requests: |key, shas| vec![words(&format!("EVALSHA {} 1 ten:{key} 12345678", shas[3]))],
        beside: Some((4, 0.5)),
        rate: 0.0,
    },
];

/// Answers in a second of `CLIENTS` connections that wait for each answer.
fn rate(address: SocketAddr, work: &Work, shas: &[String], requests: usize) -> Result<f64> {
    let each = (requests / CLIENTS).max(1);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(address)?);
    }
    let start = Instant::now();
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(number, client)| scope.spawn(move || send(client, number, work, shas, each)))
            .collect();
        let mut ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended.try_for_each(|ended| ended.ok().context("a client has panicked")?)
    })?;
    Ok((each * CLIENTS) as f64 / start.elapsed().as_secs_f64())
}

fn send(
    mut client: Client,
    number: usize,
    work: &Work,
    shas: &[String],
    each: usize,
) -> Result<()> {
    // Numbers that look random, the same in each run.
    let mut state = number as u64 + 1;
    for _ in 0..each {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let key = format!("key:{}", (state >> 33) % KEYS);
        let requests = (work.requests)(&key, shas);
        let bytes: Vec<u8> = requests.iter().flat_map(|one| encode(one)).collect();
        client.send_raw(&bytes)?;
        for _ in &requests {
            let reply = client.read()?;
            ensure!(reply.error().is_none(), "{}: {reply:?}", work.name);
        }
    }
    Ok(())
}

fn report(rates: &[Vec<f64>]) {
    println!(
        "\n| 50 clients, one of 10,000 keys | per s | beside | ratio (range) | |\n|---|---|---|---|---|"
    );
    for (work, own) in WORKS.iter().zip(rates) {
        let Some((beside, least)) = work.beside else {
            println!("| {} | {:.0} | | | |", work.name, median(own));
            continue;
        };
        let ratios: Vec<f64> = own.iter().zip(&rates[beside]).map(|(a, b)| a / b).collect();
        let is_met = median(&ratios) >= least && median(own) >= work.rate;
        println!(
            "| {} | {:.0} | {} | {:.2} ({:.2} to {:.2}) | {} |",
            work.name,
            median(own),
            WORKS[beside].name,
            median(&ratios),
            ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratios.iter().copied().fold(0.0, f64::max),
            if is_met { "met" } else { "MISSED" }
        );
    }
}

fn main() -> Result<()> {
    // `cargo test --benches` runs benchmark programs too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let rounds = number("FRESHET_BENCH_ROUNDS", 5.0)?.max(1.0) as usize;
    let requests = (REQUESTS * number("FRESHET_BENCH_SCALE", 1.0)?).max(1.0) as usize;
    let cache = Redis::start()?;
    let postgres = Postgres::start(Fsync::On)?;
    let url = postgres.create_database()?;
    let program = Program::start(env!("CARGO_BIN_EXE_freshet"), &url, &cache.url(), &[])?;
    let mut client = program.client()?;
    let mut shas = Vec::new();
    for script in [LIMITER, LIMITER_ALWAYS, BUCKET, TEN_FIELDS] {
        shas.push(client.text(&["SCRIPT", "LOAD", script])?);
    }
    for work in &WORKS {
        rate(program.address(), work, &shas, requests / 2)?;
    }
    let mut rates = vec![Vec::new(); WORKS.len()];
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        for (work, rates) in WORKS.iter().zip(&mut rates) {
            let rate = rate(program.address(), work, &shas, requests)?;
            println!("  {:<45} {rate:>8.0}/s", work.name);
            rates.push(rate);
        }
    }
    report(&rates);
    Ok(())
}
