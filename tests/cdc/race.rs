//! Clients of two proxies and SQL write the same keys; nobody is shown an older state after a newer one.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::LIMIT;
use crate::support::{Client, Program, Stack, Value, process};

/// How long all write.
const LENGTH: Duration = Duration::from_secs(4);

/// Something of which there only comes more.
struct Growing {
    /// What a client does to it, and what SQL does.
    command: &'static str,
    call: &'static str,
    /// How a client sees how far it is.
    look: &'static [&'static str],
    added: AtomicI64,
    /// The most that anybody has seen.
    seen: AtomicI64,
}

impl Growing {
    const fn new(command: &'static str, call: &'static str, look: &'static [&'static str]) -> Self {
        Self {
            command,
            call,
            look,
            added: AtomicI64::new(0),
            seen: AtomicI64::new(0),
        }
    }

    /// A member or field that nobody else adds.
    fn unique(text: &str, writer: usize, number: i64) -> String {
        text.replace('?', &format!("{writer}-{number}"))
    }

    fn see(&self, client: &mut Client) -> Option<i64> {
        // Read before the question is sent: what is known now, no later answer may lack.
        let known = self.seen.load(Ordering::SeqCst);
        let reply = client.call(self.look).unwrap();
        if let Some(text) = reply.error() {
            assert!(text.starts_with("TRYAGAIN"), "{text}");
            return None;
        }
        let now = match reply {
            Value::Integer(number) => number,
            other => other.text().map_or(0, |text| text.parse().unwrap()),
        };
        assert!(now >= known, "{:?}: {now} after {known}", self.look);
        self.seen.fetch_max(now, Ordering::SeqCst);
        Some(now)
    }
}

fn all() -> [Growing; 5] {
    [
        Growing::new("INCR n", "incrby('n')", &["GET", "n"]),
        Growing::new("RPUSH l x", "lpush('l', 'y')", &["LLEN", "l"]),
        Growing::new("SADD s ?", "sadd('s', '?')", &["SCARD", "s"]),
        Growing::new("HSET h ? v", "hset('h', '?', 'v')", &["HLEN", "h"]),
        Growing::new("ZADD z 1 ?", "zadd('z', 2, '?')", &["ZCARD", "z"]),
    ]
}

fn write_by_commands(things: &[Growing], program: &Program, writer: usize, is_over: &AtomicBool) {
    let mut client = program.client().unwrap();
    for number in 0.. {
        for thing in things {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let text = Growing::unique(thing.command, writer, number);
            let words: Vec<&str> = text.split(' ').collect();
            let reply = client.call(&words).unwrap();
            match reply.error() {
                None => drop(thing.added.fetch_add(1, Ordering::Relaxed)),
                Some(text) => assert!(text.starts_with("TRYAGAIN"), "{text}"),
            }
        }
    }
}

fn write_by_sql(things: &[Growing], stack: &Stack, writer: usize, is_over: &AtomicBool) {
    let sql = stack.sql().unwrap();
    for number in 0.. {
        for thing in things {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let call = Growing::unique(thing.call, writer, number);
            // A proxy's batch may lock the same keys in another order, but each of these is alone.
            sql.execute(&format!("SELECT freshet.{call}")).unwrap();
            thing.added.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn race(stack: &Stack, meanwhile: impl FnOnce()) {
    let second = stack.second_program().unwrap();
    let things = all();
    let is_over = AtomicBool::new(false);
    let programs = [&stack.program, &second];
    thread::scope(|scope| {
        for (index, program) in programs.into_iter().enumerate() {
            let (things, is_over) = (&things, &is_over);
            scope.spawn(move || write_by_commands(things, program, index, is_over));
            scope.spawn(move || write_by_sql(things, stack, index + 2, is_over));
            for _ in 0..2 {
                let mut client = program.client().unwrap();
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        for thing in things {
                            thing.see(&mut client);
                        }
                    }
                });
            }
        }
        let start = Instant::now();
        meanwhile();
        thread::sleep(LENGTH.saturating_sub(start.elapsed()));
        is_over.store(true, Ordering::Relaxed);
    });
    for program in programs {
        let mut client = program.client().unwrap();
        for thing in &things {
            let added = thing.added.load(Ordering::Relaxed);
            process::await_true("all is shown", LIMIT, || {
                thing.see(&mut client) == Some(added)
            })
            .unwrap_or_else(|error| panic!("{:?}: {error}", thing.look));
        }
    }
    let written = things
        .iter()
        .map(|thing| thing.added.load(Ordering::Relaxed));
    assert!(written.sum::<i64>() > 100, "hardly anything was written");
}

#[test]
fn nobody_sees_less_than_somebody_saw() {
    race(&Stack::start().unwrap(), || {});
}

#[test]
fn nobody_does_while_the_cache_loses_what_it_holds() {
    let stack = Stack::start().unwrap();
    let mut cache = stack.cache.client().unwrap();
    race(&stack, || {
        for key in ["n", "l", "s", "h", "z"] {
            thread::sleep(Duration::from_millis(200));
            cache.ok(&["DEL", key]).unwrap();
            let companion = format!("\0fc{{{key}}}");
            cache.ok(&["DEL", &companion]).unwrap();
        }
        cache.ok(&["FLUSHALL"]).unwrap();
        thread::sleep(Duration::from_millis(500));
        cache.ok(&["FLUSHALL"]).unwrap();
    });
}

/// The pair as a block reads it, which PostgreSQL answers.
fn pair(client: &mut Client) -> Option<[String; 2]> {
    client.ok(&["MULTI"]).unwrap();
    client.ok(&["GET", "a"]).unwrap();
    client.ok(&["GET", "b"]).unwrap();
    let reply = client.ok(&["EXEC"]).unwrap();
    let texts = reply.items().iter().filter_map(Value::text);
    texts.collect::<Vec<_>>().try_into().ok()
}

#[test]
fn transactions_over_several_keys_stay_whole() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let is_over = AtomicBool::new(false);
    let written = AtomicI64::new(0);
    stack
        .client()
        .unwrap()
        .ok(&["MSET", "a", "0", "b", "0"])
        .unwrap();
    thread::scope(|scope| {
        let is_going = || !is_over.load(Ordering::Relaxed);
        for (index, program) in [&stack.program, &second].into_iter().enumerate() {
            let (mut writer, mut reader) = (program.client().unwrap(), program.client().unwrap());
            let (sql, written) = (stack.sql().unwrap(), &written);
            scope.spawn(move || {
                for number in (0..).take_while(|_| is_going()) {
                    let value = format!("client {index}-{number}");
                    writer.ok(&["MSET", "a", &value, "b", &value]).unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(move || {
                for number in (0..).take_while(|_| is_going()) {
                    // Mostly in the order in which proxies lock. Else PostgreSQL may end it as a deadlock,
                    // after a second.
                    let value = format!("sql {index}-{number}");
                    let [one, other] = if number % 20 == 19 { ["b", "a"] } else { ["a", "b"] };
                    let done = sql.execute(&format!(
                        "BEGIN; SELECT freshet.set('{one}', '{value}'), freshet.set('{other}', '{value}'); COMMIT"
                    ));
                    match done {
                        Ok(()) => drop(written.fetch_add(1, Ordering::Relaxed)),
                        Err(_) => sql.execute("ROLLBACK").unwrap(),
                    }
                }
            });
            scope.spawn(move || {
                while is_going() {
                    let [a, b] = pair(&mut reader).unwrap();
                    assert_eq!(a, b);
                }
            });
        }
        thread::sleep(LENGTH);
        is_over.store(true, Ordering::Relaxed);
    });
    for program in [&stack.program, &second] {
        let mut client = program.client().unwrap();
        let [last, _] = pair(&mut client).unwrap();
        for key in ["a", "b"] {
            super::await_value(&mut client, key, Some(&last));
        }
    }
    assert!(
        written.load(Ordering::Relaxed) > 20,
        "hardly anything was written"
    );
}
