//! Many clients that wait, beside a real Redis: the same steps, one after the other,
//! and the same clients served with the same.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{Client, Redis, Stack, Value, process, seed};

const CLIENTS: usize = 12;
const STEPS: usize = 150;
const LIMIT: Duration = Duration::from_secs(20);

/// One side: Freshet or Redis.
struct Side {
    address: SocketAddr,
    /// How long a reply to a command that may wait is waited for.
    patience: Duration,
    clients: Vec<Client>,
    ids: Vec<String>,
    actor: Client,
}

impl Side {
    fn new(address: SocketAddr, patience: Duration) -> Self {
        let mut side = Self {
            address,
            patience,
            clients: Vec::new(),
            ids: vec![String::new(); CLIENTS],
            actor: Client::connect(address).unwrap(),
        };
        for client in 0..CLIENTS {
            side.clients.push(Client::connect(address).unwrap());
            side.identify(client);
        }
        side
    }

    fn identify(&mut self, client: usize) {
        let id = self.clients[client].integer(&["CLIENT", "ID"]).unwrap();
        self.ids[client] = id.to_string();
        self.clients[client].set_reply_limit(self.patience).unwrap();
    }

    fn blocked(&mut self) -> usize {
        let info = self.actor.text(&["INFO", "clients"]).unwrap();
        let mut lines = info.lines();
        let count = lines.find_map(|line| line.strip_prefix("blocked_clients:"));
        count.unwrap().trim().parse().unwrap()
    }

    /// The client goes without a word, and comes again as another.
    fn replace(&mut self, client: usize) {
        self.clients[client] = Client::connect(self.address).unwrap();
        self.identify(client);
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// A command that may wait.
fn blocking(seed: &mut StdRng) -> String {
    let key = |seed: &mut StdRng, kind: &str| format!("{kind}{}", seed.random_range(0..3));
    let (l, m) = (key(seed, "l"), key(seed, "l"));
    let (z, y) = (key(seed, "z"), key(seed, "z"));
    let (s, r) = (key(seed, "s"), key(seed, "s"));
    let group = seed.random_range(0..2);
    match seed.random_range(0..16) {
        0 => format!("BLPOP {l} 0"),
        1 => format!("BRPOP {l} {m} 0"),
        2 => format!("BLPOP {l} {z} {m} 0"),
        3 => format!("BLMOVE {l} {m} LEFT RIGHT 0"),
        4 => format!("BRPOPLPUSH {l} {z} 0"),
        5 => format!("BLMPOP 0 2 {l} {m} RIGHT COUNT 2"),
        6 => format!("BZPOPMIN {z} 0"),
        7 => format!("BZPOPMAX {z} {y} 0"),
        8 => format!("BZMPOP 0 2 {z} {y} MIN COUNT 2"),
        9 => format!("BZPOPMIN {l} 0"),
        10 => format!("XREAD BLOCK 0 STREAMS {s} $"),
        11 => format!("XREAD COUNT 1 BLOCK 0 STREAMS {s} {r} $ $"),
        12 => format!("XREADGROUP GROUP g{group} c COUNT 1 BLOCK 0 STREAMS {s} >"),
        13 => format!("XREADGROUP GROUP g{group} d BLOCK 0 STREAMS {s} {r} > >"),
        14 => format!("XREADGROUP GROUP g0 d NOACK BLOCK 0 STREAMS {s} >"),
        _ => format!("BLMPOP 0 1 {l} UP"),
    }
}

/// A command that may wake. (Not `SORT STORE`: over a key of another type it wakes nobody
/// in Redis 7.0, who then waits beside a full list.)
fn acting(seed: &mut StdRng, step: usize) -> String {
    let key = |seed: &mut StdRng, kind: &str| format!("{kind}{}", seed.random_range(0..3));
    let (l, z, s) = (key(seed, "l"), key(seed, "z"), key(seed, "s"));
    let any = [&l, &z, &s][seed.random_range(0..3)].clone();
    let group = seed.random_range(0..2);
    match seed.random_range(0..19) {
        0 => format!("RPUSH {l} {step}"),
        1 => format!("LPUSH {l} {step} b{step}"),
        2 => format!("RPUSH {l} {step} b{step} c{step} d{step}"),
        3 => format!("ZADD {z} {step} m{step}"),
        4 => format!("ZADD {z} 1 m{step} 2 n{step} 3 o{step}"),
        5..=7 => format!("XADD {s} {}-1 f {step}", step + 1),
        8 => format!("DEL {any}"),
        9 => format!("SET {any} {step}"),
        10 => format!("RPUSH {z} {step}"),
        11 | 12 => format!("XGROUP CREATE {s} g{group} $ MKSTREAM"),
        13 => format!("XGROUP DESTROY {s} g{group}"),
        14 => format!("RENAME {l} {}", key(seed, "l")),
        15 => format!("COPY {z} {} REPLACE", key(seed, "z")),
        16 => format!("LMOVE {l} {} LEFT RIGHT", key(seed, "l")),
        17 => format!("RPUSHX {l} x{step}"),
        _ => format!("ZADD {l} 1 m{step}"),
    }
}

/// The two sides, and who of the clients waits.
struct Pair {
    freshet: Side,
    redis: Side,
    waits: Vec<bool>,
    trace: Vec<String>,
}

impl Pair {
    fn waiting(&self) -> usize {
        self.waits.iter().filter(|waits| **waits).count()
    }

    /// Both sides run it, one command or a MULTI block.
    fn act(&mut self, commands: &[String]) {
        self.trace.push(commands.join("; "));
        let mut lines: Vec<Vec<String>> = commands.iter().map(|line| words(line)).collect();
        if commands.len() > 1 {
            lines.insert(0, words("MULTI"));
            lines.push(words("EXEC"));
        }
        let ours = self.freshet.actor.pipeline(&lines).unwrap();
        let theirs = self.redis.actor.pipeline(&lines).unwrap();
        assert_eq!(ours, theirs, "{}", self.trace.join("\n"));
    }

    fn send(&mut self, client: usize, line: &str) {
        self.trace.push(format!("client {client}: {line}"));
        for side in [&mut self.freshet, &mut self.redis] {
            side.clients[client].send(&words(line)).unwrap();
        }
        self.waits[client] = true;
    }

    /// Who waits is told to wait no longer, or goes.
    fn end(&mut self, client: usize, how: &str) {
        self.trace.push(format!("client {client}: {how}"));
        for side in [&mut self.freshet, &mut self.redis] {
            if how == "GOES" {
                side.replace(client);
            } else {
                let id = side.ids[client].clone();
                let ended = side.actor.integer(&["CLIENT", "UNBLOCK", &id, how]);
                assert_eq!(ended.unwrap(), 1);
            }
        }
        if how == "GOES" {
            self.waits[client] = false;
        }
    }

    /// Compares whom Redis has served, and with what.
    fn compare(&mut self) {
        let mut served: Vec<(usize, Value)> = Vec::new();
        let waiting = self.waiting();
        process::await_true("Redis is done", LIMIT, || {
            for client in 0..CLIENTS {
                let is_known = served.iter().any(|(known, _)| *known == client);
                if self.waits[client] && !is_known {
                    let reply = self.redis.clients[client].read();
                    served.extend(reply.ok().map(|reply| (client, reply)));
                }
            }
            self.redis.blocked() + served.len() == waiting
        })
        .unwrap();
        for (client, theirs) in &served {
            self.waits[*client] = false;
            let ours = self.freshet.clients[*client].read();
            let trace = self.trace.join("\n");
            let ours = ours.unwrap_or_else(|error| panic!("{client}: {error}\n{trace}"));
            assert_eq!(&ours, theirs, "client {client}\n{trace}");
        }
        let left = waiting - served.len();
        let settled = process::await_true("as many wait", LIMIT, || self.freshet.blocked() == left);
        let trace = || format!("{left} should wait\n{}", self.trace.join("\n"));
        settled.unwrap_or_else(|error| panic!("{error} {}", trace()));
    }

    fn step(&mut self, rng: &mut StdRng, step: usize) {
        let client = rng.random_range(0..CLIENTS);
        match rng.random_range(0..20) {
            0 if self.waits[client] => self.end(client, "TIMEOUT"),
            1 if self.waits[client] => self.end(client, "ERROR"),
            2 if self.waits[client] => self.end(client, "GOES"),
            0..11 if !self.waits[client] => {
                let line = blocking(rng);
                self.send(client, &line);
            }
            3..16 => self.act(&[acting(rng, step)]),
            _ => {
                let count = rng.random_range(2..5);
                let commands: Vec<String> = (0..count).map(|_| acting(rng, step)).collect();
                self.act(&commands);
            }
        }
        self.compare();
    }
}

/// `FRESHET_SEED` repeats one run, `FRESHET_DIFFERENTIAL_SECONDS` makes more of them.
#[test]
fn the_same_clients_are_served_with_the_same_as_by_redis() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let (start, limit) = (
        Instant::now(),
        seed::seconds("FRESHET_DIFFERENTIAL_SECONDS", 10),
    );
    let mut seed = seed::seed();
    loop {
        run(seed, &stack, &judge);
        seed += 1;
        if start.elapsed() > limit || seed::is_replay() {
            return;
        }
    }
}

fn run(seed: u64, stack: &Stack, judge: &Redis) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut pair = Pair {
        freshet: Side::new(stack.program.address(), LIMIT),
        redis: Side::new(judge.address(), Duration::from_millis(1)),
        waits: vec![false; CLIENTS],
        trace: vec![format!("FRESHET_SEED={seed}")],
    };
    for side in [&mut pair.freshet, &mut pair.redis] {
        side.actor.ok(&["FLUSHALL"]).unwrap();
        process::await_true("nobody waits", LIMIT, || side.blocked() == 0).unwrap();
    }
    for step in 0..STEPS {
        pair.step(&mut rng, step);
    }
}
