//! Clients that write tokens and remember what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Client, Program, Sql, Stack, Value};

const WRITERS: usize = 8;
/// Tokens that share a key: each append rewrites the value.
const TOKENS_PER_KEY: u64 = 50;

/// What clients were told about their writes.
#[derive(Default, Debug)]
pub struct Tally {
    acknowledged: BTreeSet<Token>,
    unknown: BTreeSet<Token>,
    refused: BTreeSet<Token>,
    increments: u64,
    unknown_increments: u64,
    /// The texts of refusals.
    refusals: BTreeMap<String, u64>,
    reads_gone_back: Vec<String>,
}

/// One append: the key, and what was appended.
type Token = (String, String);

impl Tally {
    fn add(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.refused.extend(other.refused);
        self.increments += other.increments;
        self.unknown_increments += other.unknown_increments;
        self.reads_gone_back.extend(other.reads_gone_back);
        for (text, count) in other.refusals {
            *self.refusals.entry(text).or_default() += count;
        }
    }

    /// Compares what clients were told with what is there now.
    pub fn check(&self, stack: &Stack) {
        self.check_on(&stack.program, &stack.database);
    }

    /// The same of a proxy on the database of this URL.
    pub fn check_on(&self, program: &Program, database: &str) {
        let sql = &Sql::connect(database).unwrap();
        println!(
            "{} acknowledged, {} unknown, {} refused: {:?}",
            self.acknowledged.len(),
            self.unknown.len(),
            self.refused.len(),
            self.refusals
        );
        assert_eq!(self.reads_gone_back, Vec::<String>::new());
        assert!(self.acknowledged.len() > 100, "no load");
        let mut client = program.client().unwrap();
        let keys: BTreeSet<&String> = [&self.acknowledged, &self.unknown, &self.refused]
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            let shown = client
                .call(&["GET", key])
                .unwrap()
                .text()
                .unwrap_or_default();
            assert_eq!(shown, stored(sql, key), "{key}: client and store differ");
            self.check_key(key, &shown);
        }
        let counter = client.text(&["GET", "counter"]).unwrap();
        assert_eq!(counter, stored(sql, "counter"));
        let counter: u64 = counter.parse().unwrap();
        let most = self.increments + self.unknown_increments;
        assert!(
            (self.increments..=most).contains(&counter),
            "counter is {counter}: {} increments acknowledged, {} unknown",
            self.increments,
            self.unknown_increments
        );
    }

    fn check_key(&self, key: &str, shown: &str) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for token in shown.split_terminator(';') {
            *counts.entry(token).or_default() += 1;
        }
        let of = |set: &BTreeSet<Token>| -> Vec<String> {
            let all = set.range((key.to_owned(), String::new())..);
            all.take_while(|(this, _)| this == key)
                .map(|(_, token)| token.clone())
                .collect()
        };
        for token in of(&self.acknowledged) {
            let count = counts.remove(token.as_str()).unwrap_or(0);
            assert_eq!(
                count, 1,
                "{key}: acknowledged {token} is there {count} times"
            );
        }
        for token in of(&self.unknown) {
            let count = counts.remove(token.as_str()).unwrap_or(0);
            assert!(count <= 1, "{key}: unknown {token} is there {count} times");
        }
        for token in of(&self.refused) {
            let count = counts.remove(token.as_str()).unwrap_or(0);
            assert_eq!(count, 0, "{key}: refused {token} is there");
        }
        assert!(counts.is_empty(), "{key}: nobody wrote {counts:?}");
    }
}

fn stored(sql: &Sql, key: &str) -> String {
    let rows = sql
        .query(
            "select value from freshet.strings where db = 0 and key = $1",
            &[&key],
        )
        .unwrap();
    rows.first().map_or_else(String::new, |row| row.get(0))
}

/// Lets clients write while `disturb` runs, and a little longer; what they were told.
pub fn under_load(address: SocketAddr, disturb: impl FnOnce()) -> Tally {
    let over = AtomicBool::new(false);
    let progress = AtomicU64::new(0);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let mut clients: Vec<_> = (0..WRITERS)
            .map(|number| {
                let (over, progress) = (&over, &progress);
                scope.spawn(move || write_until(over, progress, address, number))
            })
            .collect();
        clients.push(scope.spawn(|| read_until(&over, address)));
        // Whatever fails, the clients are told to end: the scope waits for them.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            await_progress(&progress);
            disturb();
            await_progress(&progress);
        }));
        over.store(true, Ordering::Relaxed);
        for client in clients {
            tally.add(client.join().expect("clients do not panic"));
        }
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    tally
}

/// Waits until many more writes were acknowledged.
pub fn await_progress(progress: &AtomicU64) {
    let goal = progress.load(Ordering::Relaxed) + 300;
    crate::support::process::await_true("writes are acknowledged", Duration::from_secs(40), || {
        progress.load(Ordering::Relaxed) >= goal
    })
    .unwrap();
}

fn connect(address: SocketAddr, over: &AtomicBool) -> Option<Client> {
    while !over.load(Ordering::Relaxed) {
        if let Ok(client) = Client::connect(address) {
            return Some(client);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

fn write_until(
    over: &AtomicBool,
    progress: &AtomicU64,
    address: SocketAddr,
    writer: usize,
) -> Tally {
    let mut tally = Tally::default();
    let mut serial = 0_u64;
    while let Some(mut client) = connect(address, over) {
        while !over.load(Ordering::Relaxed) {
            // Two writers share a key.
            let key = format!("log:{}:{}", writer / 2, serial / TOKENS_PER_KEY);
            let token = format!("{writer}.{serial}");
            serial += 1;
            let commands = [
                vec!["APPEND".to_owned(), key.clone(), format!("{token};")],
                vec!["INCR".to_owned(), "counter".to_owned()],
            ];
            if !write_pair(&mut client, &commands, (key, token), &mut tally) {
                break;
            }
            progress.fetch_add(1, Ordering::Relaxed);
        }
    }
    tally
}

/// Sends an append and an increment at once; false if the connection is lost.
fn write_pair(
    client: &mut Client,
    commands: &[Vec<String>; 2],
    token: Token,
    tally: &mut Tally,
) -> bool {
    let sent = client.send_all(commands);
    let mut read = || sent.as_ref().ok().and_then(|()| client.read().ok());
    let (append, increment) = match read() {
        Some(append) => (Some(append), read()),
        None => (None, None),
    };
    let connected = increment.is_some();
    match append {
        Some(Value::Integer(_)) => drop(tally.acknowledged.insert(token)),
        Some(Value::Error(text)) if !text.starts_with("UNKNOWN") => {
            tally.refused.insert(token);
            *tally.refusals.entry(text).or_default() += 1;
            // Nobody hammers a server that has just refused.
            thread::sleep(Duration::from_millis(2));
        }
        _ => drop(tally.unknown.insert(token)),
    }
    match increment {
        Some(Value::Integer(_)) => tally.increments += 1,
        Some(Value::Error(text)) if !text.starts_with("UNKNOWN") => {}
        _ => tally.unknown_increments += 1,
    }
    connected
}

/// Reads the counter again and again: it never goes back.
fn read_until(over: &AtomicBool, address: SocketAddr) -> Tally {
    let mut tally = Tally::default();
    let mut last = 0_u64;
    while let Some(mut client) = connect(address, over) {
        while !over.load(Ordering::Relaxed) {
            match client.call(&["GET", "counter"]) {
                Ok(Value::Bulk(bytes)) => {
                    let seen = String::from_utf8_lossy(&bytes).parse().unwrap_or(0);
                    if seen < last {
                        tally.reads_gone_back.push(format!("{seen} after {last}"));
                    }
                    last = seen;
                }
                Ok(Value::Null) if last > 0 => {
                    tally.reads_gone_back.push(format!("nothing after {last}"));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    tally
}
