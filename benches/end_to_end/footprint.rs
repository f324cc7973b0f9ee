//! Memory and start-up time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::{KEYS, VALUE, key};
use super::support::{Client, Program, Redis, process};

/// How many idle connections there are.
const CONNECTIONS: usize = 10_000;
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// What Freshet takes besides CPU. Empty where nothing was measured.
#[derive(Default)]
pub struct Footprint {
    /// Growth of the program's memory per idle connection.
    pub kilobytes_per_connection: Vec<f64>,
    /// Memory of the cache per key, beyond that of a plain Redis with the same keys.
    pub cache_bytes_per_key: Vec<f64>,
    /// From the start of the process to the reply of a first SET.
    pub seconds_to_ready: Vec<f64>,
}

/// Sets all keys, each to a value of its own, in pipelines.
pub fn preload(client: &mut Client) -> Result<()> {
    let numbers: Vec<u32> = (0..KEYS).collect();
    for chunk in numbers.chunks(1000) {
        let commands: Vec<Vec<String>> = chunk
            .iter()
            .map(|number| vec!["SET".into(), key(*number), format!("{number:0VALUE$}")])
            .collect();
        for reply in client.pipeline(&commands)? {
            ensure!(reply.error().is_none(), "preload: {reply:?}");
        }
    }
    Ok(())
}

/// Reads all keys once, so that the cache has them.
pub fn read_all(client: &mut Client) -> Result<()> {
    let numbers: Vec<u32> = (0..KEYS).collect();
    for chunk in numbers.chunks(1000) {
        let commands: Vec<Vec<String>> = chunk
            .iter()
            .map(|number| vec!["GET".into(), key(*number)])
            .collect();
        for (number, reply) in chunk.iter().zip(client.pipeline(&commands)?) {
            let expected = format!("{number:0VALUE$}");
            ensure!(reply.text() == Some(expected), "key {number}: {reply:?}");
        }
    }
    Ok(())
}

/// Memory of `cache` per key beyond that of `plain`; both hold all keys.
pub fn cache_bytes_per_key(cache: &Redis, plain: &Redis) -> Result<f64> {
    Ok((memory(cache)? - memory(plain)?) / f64::from(KEYS))
}

/// What the data takes: buffers of connections come and go.
fn memory(redis: &Redis) -> Result<f64> {
    let used = redis.info("memory", "used_memory")?;
    let clients = redis.info("memory", "mem_clients_normal")?;
    Ok((used - clients) as f64)
}

/// Opens 10,000 connections, uses each once, and leaves them idle.
pub fn kilobytes_per_connection(program: &Program) -> Result<f64> {
    let before = resident_kilobytes(program.pid()?)?;
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let mut client = program
            .client()
            .with_context(|| format!("connection {number}"))?;
        let reply = client.text(&["GET", &key(0)])?;
        ensure!(reply.len() == VALUE, "connection {number}: {reply:?}");
        clients.push(client);
    }
    let after = resident_kilobytes(program.pid()?)?;
    Ok((after - before) / CONNECTIONS as f64)
}

fn resident_kilobytes(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let number = line.split_whitespace().next().context("no VmRSS")?;
    Ok(number.parse()?)
}

/// Restarts the program and takes the time until it acknowledged a write.
pub fn seconds_to_ready(program: &mut Program) -> Result<f64> {
    program.stop()?;
    let start = Instant::now();
    program.spawn()?;
    process::await_true("a first SET", SETTLE_LIMIT, || {
        program
            .client()
            .and_then(|mut client| client.text(&["SET", "first", "1"]))
            .is_ok()
    })?;
    Ok(start.elapsed().as_secs_f64())
}
