//! The other data types: redis-benchmark's default list beside Redis, what a
//! change costs by the size of its key, and a block beside single writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::{self, CLIENTS, KEYS, Load};
use super::report::Spread;
use super::support::Client;

/// Who takes part.
#[derive(Clone, Copy)]
pub struct Servers {
    /// The product.
    pub freshet: SocketAddr,
    /// Redis that syncs its append-only file at every write.
    pub synced: SocketAddr,
    /// Redis without persistence.
    pub plain: SocketAddr,
}

/// What a test is measured beside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Synced,
    Plain,
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Synced => "Redis, appendfsync always",
            Self::Plain => "Redis, direct",
        }
    }

    /// The least ratio at `-P 1` that we ask of ourselves.
    fn bound(self) -> f64 {
        match self {
            Self::Synced => 0.35,
            Self::Plain => 0.8,
        }
    }

    /// Requests of one run at `-P 1`; there are three times as many at `-P 16`.
    fn requests(self) -> f64 {
        match self {
            Self::Synced => 20_000.0,
            Self::Plain => 40_000.0,
        }
    }
}

const RANGE_KEY: &str = "bench:range";

/// redis-benchmark's default list: name, command, beside whom. Each push comes
/// before the pop that takes it away, and each key is one that all clients share.
const TESTS: [(&str, &str, Beside); 14] = [
    ("INCR", "INCR counter:__rand_int__", Beside::Synced),
    ("LPUSH", "LPUSH bench:list xxxxxxxxxxxxxxxx", Beside::Synced),
    ("LPOP", "LPOP bench:list", Beside::Synced),
    ("RPUSH", "RPUSH bench:list xxxxxxxxxxxxxxxx", Beside::Synced),
    ("RPOP", "RPOP bench:list", Beside::Synced),
    (
        "SADD",
        "SADD bench:set element:__rand_int__",
        Beside::Synced,
    ),
    ("SPOP", "SPOP bench:set", Beside::Synced),
    (
        "HSET",
        "HSET bench:hash element:__rand_int__ xxxxxxxxxxxxxxxx",
        Beside::Synced,
    ),
    (
        "ZADD",
        "ZADD bench:zset __rand_int__ element:__rand_int__",
        Beside::Synced,
    ),
    ("ZPOPMIN", "ZPOPMIN bench:zset", Beside::Synced),
    (
        "XADD",
        "XADD bench:stream * field xxxxxxxxxxxxxxxx",
        Beside::Synced,
    ),
    (
        "MSET (10 keys)",
        "MSET key:__rand_int__ x key:__rand_int__ x key:__rand_int__ x key:__rand_int__ x \
         key:__rand_int__ x key:__rand_int__ x key:__rand_int__ x key:__rand_int__ x \
         key:__rand_int__ x key:__rand_int__ x",
        Beside::Synced,
    ),
    (
        "LRANGE (first 100)",
        "LRANGE bench:range 0 99",
        Beside::Plain,
    ),
    (
        "LRANGE (first 600)",
        "LRANGE bench:range 0 599",
        Beside::Plain,
    ),
];

/// Rates and ratios of one test at one depth of pipeline.
#[derive(Default)]
struct Line {
    freshet: Vec<f64>,
    beside: Vec<f64>,
    ratio: Vec<f64>,
}

/// More rounds of this long list are not worth their time.
const ROUNDS_MAX: usize = 3;

/// Measures all of it and gives the tables.
pub fn measure(servers: Servers, rounds: usize, scale: f64) -> Result<String> {
    let rounds = rounds.min(ROUNDS_MAX);
    for address in [servers.freshet, servers.synced, servers.plain] {
        prepare(&mut Client::connect(address)?)?;
    }
    let mut lines: BTreeMap<(usize, u32), Line> = BTreeMap::new();
    for round in 0..rounds {
        println!("data types, round {} of {rounds}", round + 1);
        for pipeline in [1, 16] {
            for (index, test) in TESTS.iter().enumerate() {
                let line = lines.entry((index, pipeline)).or_default();
                run(servers, *test, pipeline, scale, line)
                    .with_context(|| format!("{} -P {pipeline}", test.0))?;
            }
        }
    }
    let mut text = list_table(&lines);
    text += &cost_table(
        &mut Client::connect(servers.freshet)?,
        servers.freshet,
        scale,
    )?;
    text += &block_table(&mut Client::connect(servers.freshet)?, scale)?;
    Ok(text)
}

/// What the tests expect to be there.
fn prepare(client: &mut Client) -> Result<()> {
    client.ok(&[
        "DEL",
        RANGE_KEY,
        "bench:list",
        "bench:set",
        "bench:hash",
        "bench:zset",
        "bench:stream",
    ])?;
    for _ in 0..10 {
        let mut push = vec!["RPUSH", RANGE_KEY];
        push.resize(102, "xxxxxxxxxxxxxxxx");
        client.ok(&push)?;
    }
    client.ok(&["LRANGE", RANGE_KEY, "0", "-1"])?;
    Ok(())
}

fn run(
    servers: Servers,
    (name, command, beside): (&'static str, &'static str, Beside),
    pipeline: u32,
    scale: f64,
    line: &mut Line,
) -> Result<()> {
    let factor = if pipeline > 1 { 3.0 } else { 1.0 };
    let load = Load {
        command,
        clients: CLIENTS,
        pipeline,
        requests: (beside.requests() * factor * scale).max(1.0) as u64,
    };
    let other = match beside {
        Beside::Synced => servers.synced,
        Beside::Plain => servers.plain,
    };
    let freshet = load::repeat(servers.freshet, load)?.rate;
    let other = load::repeat(other, load)?.rate;
    println!(
        "  {name:<20} -P {pipeline:<2} {freshet:>9.0}/s, {} {other:>9.0}/s",
        beside.name()
    );
    line.freshet.push(freshet);
    line.beside.push(other);
    line.ratio.push(freshet / other);
    Ok(())
}

fn list_table(lines: &BTreeMap<(usize, u32), Line>) -> String {
    let mut text = String::from(
        "| command, 50 clients | pipeline | Freshet, per s | beside | per s | ratio (range) | |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for ((index, pipeline), line) in lines {
        let (name, _, beside) = TESTS[*index];
        let spread = |numbers: &Vec<f64>| Spread::of(numbers.clone());
        let (Some(freshet), Some(other), Some(ratio)) = (
            spread(&line.freshet),
            spread(&line.beside),
            spread(&line.ratio),
        ) else {
            continue;
        };
        let verdict = match (*pipeline, ratio.median >= beside.bound()) {
            (1, true) => "met",
            (1, false) => "MISSED",
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {pipeline} | {:.0} | {} | {:.0} | {:.2} ({:.2} to {:.2}) | {verdict} |",
            freshet.median,
            beside.name(),
            other.median,
            ratio.median,
            ratio.least,
            ratio.most
        );
    }
    text
}

/// Sizes of keys in the table of costs.
const SIZES: [u32; 3] = [10, 1_000, 1_000_000];

/// Rates of changes of keys of each size, made so that the size stays.
fn cost_table(client: &mut Client, freshet: SocketAddr, scale: f64) -> Result<String> {
    let tests: [(&str, [&'static str; 3]); 3] = [
        (
            "HSET",
            [
                "HSET cost:hash:10 element:000000000005 x__rand_int__",
                "HSET cost:hash:1000 element:000000000500 x__rand_int__",
                "HSET cost:hash:1000000 element:__rand_int__ x__rand_int__",
            ],
        ),
        (
            "LPUSH",
            [
                "LPUSH cost:list:10 xxxxxxxxxxxxxxxx",
                "LPUSH cost:list:1000 xxxxxxxxxxxxxxxx",
                "LPUSH cost:list:1000000 xxxxxxxxxxxxxxxx",
            ],
        ),
        (
            "ZADD",
            [
                "ZADD cost:zset:10 __rand_int__ element:000000000005",
                "ZADD cost:zset:1000 __rand_int__ element:000000000500",
                "ZADD cost:zset:1000000 __rand_int__ element:__rand_int__",
            ],
        ),
    ];
    let mut text = String::from(
        "\n| µs for each change, 50 clients on one key | 10 elements | 1,000 | 1,000,000 | dearest of cheapest | |\n|---|---|---|---|---|---|\n",
    );
    for (name, commands) in tests {
        let mut costs = Vec::new();
        for (size, command) in SIZES.into_iter().zip(commands) {
            let key = command.split(' ').nth(1).context("no key")?;
            grow(client, name, key, size)?;
            let load = Load {
                command,
                clients: CLIENTS,
                pipeline: 1,
                requests: (30_000.0 * scale).max(1.0) as u64,
            };
            let rates: Vec<f64> = (0..3)
                .map(|_| Ok(load::repeat(freshet, load)?.rate))
                .collect::<Result<_>>()?;
            let rate = Spread::of(rates).context("no samples")?.median;
            println!("  {name} on {size} elements: {rate:.0}/s");
            costs.push(1e6 / rate);
        }
        let spread = Spread::of(costs.clone()).context("no samples")?;
        let ratio = spread.most / spread.least;
        let verdict = if ratio <= 1.5 { "met" } else { "MISSED" };
        let _ = writeln!(
            text,
            "| {name} | {:.1} | {:.1} | {:.1} | {ratio:.2} | {verdict} |",
            costs[0], costs[1], costs[2]
        );
    }
    Ok(text)
}

/// Gives the key so many elements.
fn grow(client: &mut Client, name: &str, key: &str, size: u32) -> Result<()> {
    client.ok(&["DEL", key])?;
    let numbers: Vec<u32> = (0..size).collect();
    let commands: Vec<Vec<String>> = numbers
        .chunks(1000)
        .map(|chunk| {
            let elements = chunk.iter().flat_map(|number| {
                let element = format!("element:{number:012}");
                match name {
                    "HSET" => vec![element, "x".into()],
                    "ZADD" => vec![number.to_string(), element],
                    _ => vec![element],
                }
            });
            [name.to_owned(), key.to_owned()]
                .into_iter()
                .chain(elements)
                .collect()
        })
        .collect();
    for some in commands.chunks(10) {
        for reply in client.pipeline(some)? {
            ensure!(reply.error().is_none(), "{name} {key}: {reply:?}");
        }
    }
    Ok(())
}

/// Mean time of a block of ten writes beside that of three single writes, from
/// one connection, each a round trip.
fn block_table(client: &mut Client, scale: f64) -> Result<String> {
    let block: Vec<Vec<String>> = std::iter::once(vec!["MULTI".to_owned()])
        .chain((0..10).map(|number| vec!["SET".into(), load::key(number), "x".into()]))
        .chain(std::iter::once(vec!["EXEC".to_owned()]))
        .collect();
    let rounds = (1_000.0 * scale).max(1.0) as u32;
    let (mut blocks, mut singles) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let start = Instant::now();
        let replies = client.pipeline(&block)?;
        blocks += start.elapsed();
        ensure!(
            replies.iter().all(|reply| reply.error().is_none()),
            "{replies:?}"
        );
        let start = Instant::now();
        for number in 0..3 {
            client.ok(&["SET", &load::key((round * 3 + number) % KEYS), "x"])?;
        }
        singles += start.elapsed();
    }
    let (block, three) = (blocks / rounds, singles / rounds);
    let verdict = if block < three { "met" } else { "MISSED" };
    Ok(format!(
        "\nA block of ten writes: {:.3} ms; three single writes: {:.3} ms ({verdict}).\n",
        block.as_secs_f64() * 1e3,
        three.as_secs_f64() * 1e3,
    ))
}
