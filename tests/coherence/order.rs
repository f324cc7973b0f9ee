//! Each connection sees its own writes, nobody goes back, and no increment is
//! lost or counted twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Program, Stack, Value, seed};

const CLIENTS: usize = 16;
const INCREMENTS: usize = 150;

fn increment_from_everywhere(programs: &[&Program]) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let program = programs[client % programs.len()];
            scope.spawn(move || {
                let mut connection = program.client().unwrap();
                let mut last = 0;
                for round in 0..INCREMENTS / 3 {
                    let own = format!("own:{client}");
                    let commands = vec![
                        vec!["INCR", "shared"],
                        vec!["INCR", &own],
                        vec!["INCR", "shared"],
                        vec!["GET", "shared"],
                        vec!["INCR", "shared"],
                        vec!["GET", &own],
                    ];
                    let replies = connection.pipeline(&commands).unwrap();
                    let refused = replies.iter().find_map(Value::error);
                    assert_eq!(refused, None);
                    let numbers: Vec<u64> = replies
                        .iter()
                        .map(|reply| match reply {
                            Value::Integer(number) => *number as u64,
                            other => other.text().unwrap().parse().unwrap(),
                        })
                        .collect();
                    for index in [0, 2, 3, 4] {
                        assert!(numbers[index] >= last, "went back: {last} {numbers:?}");
                        last = numbers[index];
                    }
                    assert_eq!(numbers[1], round as u64 + 1);
                    assert_eq!(numbers[5], round as u64 + 1);
                }
            });
        }
    });
    let expected = (CLIENTS * INCREMENTS).to_string();
    for program in programs {
        let mut client = program.client().unwrap();
        assert_eq!(client.text(&["GET", "shared"]).unwrap(), expected);
    }
}

#[test]
fn increments_of_many_clients_are_exact() {
    let mut stack = Stack::start().unwrap();
    increment_from_everywhere(&[&stack.program]);
    stack.program.stop_quietly().unwrap();
}

#[test]
fn increments_through_two_proxies_are_exact() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    increment_from_everywhere(&[&stack.program, &second]);
}

#[test]
fn increments_are_exact_while_the_cache_is_flushed() {
    let stack = Stack::start().unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut cache = stack.cache.client().unwrap();
            while !over.load(Ordering::Relaxed) {
                cache.ok(&["FLUSHALL"]).unwrap();
                thread::sleep(Duration::from_millis(40));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            increment_from_everywhere(&[&stack.program]);
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn pipeline_sees_its_own_writes_and_none_early() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut commands = Vec::new();
    let mut expected = Vec::new();
    for round in 0..300 {
        let n = round.to_string();
        commands.push(vec!["GET".to_owned(), "key".into()]);
        expected.push((round > 0).then(|| (round - 1).to_string()));
        commands.push(vec!["SET".into(), "key".into(), n.clone()]);
        expected.push(Some("OK".into()));
        commands.push(vec!["GET".into(), "key".into()]);
        expected.push(Some(n));
    }
    let replies: Vec<Option<String>> = client
        .pipeline(&commands)
        .unwrap()
        .iter()
        .map(Value::text)
        .collect();
    assert_eq!(replies, expected);
}

/// What one reader was shown, the next one sees at least.
fn readers_never_go_back(programs: &[&Program], stack: &Stack) {
    let over = AtomicBool::new(false);
    let time = seed::seconds("FRESHET_RACE_SECONDS", 3);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = programs[0].client().unwrap();
            while !over.load(Ordering::Relaxed) {
                client.ok(&["INCR", "key"]).unwrap();
            }
        });
        scope.spawn(|| {
            let mut cache = stack.cache.client().unwrap();
            while !over.load(Ordering::Relaxed) {
                cache.ok(&["DEL", "key"]).unwrap();
                thread::sleep(Duration::from_millis(3));
            }
        });
        let mut readers: Vec<Client> = (0..4)
            .map(|index| programs[index % programs.len()].client().unwrap())
            .collect();
        let mut last = 0;
        let start = Instant::now();
        let mut failure = None;
        while start.elapsed() < time && failure.is_none() {
            for (index, reader) in readers.iter_mut().enumerate() {
                let seen = reader.ok(&["GET", "key"]).unwrap();
                let number: u64 = seen.text().map_or(0, |text| text.parse().unwrap());
                if number < last {
                    failure = Some(format!("reader {index} saw {number} after {last}"));
                }
                last = number;
            }
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(failure, None);
    });
}

#[test]
fn readers_never_go_back_while_keys_are_evicted() {
    let stack = Stack::start().unwrap();
    readers_never_go_back(&[&stack.program], &stack);
}

#[test]
fn readers_never_go_back_between_two_proxies() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    readers_never_go_back(&[&stack.program, &second], &stack);
}
