//! The end of the program.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::encode;
use crate::support::{Client, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn sigterm_finishes_what_was_accepted_and_exits_with_0() {
    let mut stack = Stack::start().unwrap();
    let address = stack.program.address();
    let counts: Vec<AtomicU64> = (0..10).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for (number, count) in counts.iter().enumerate() {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                let key = format!("counter:{number}");
                // A reply is an acknowledgement, or the connection is closed.
                while let Ok(reply) = client.call(&["INCR", &key]) {
                    match reply {
                        Value::Integer(value) => count.store(value as u64, Ordering::Relaxed),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        process::await_true("all clients work", LIMIT, || {
            counts
                .iter()
                .all(|count| count.load(Ordering::Relaxed) > 20)
        })
        .unwrap();
        stack.program.stop_quietly().unwrap();
    });
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    for (number, count) in counts.iter().enumerate() {
        let value = client.text(&["GET", &format!("counter:{number}")]).unwrap();
        // What was accepted was finished, and its reply sent.
        assert_eq!(value, count.load(Ordering::Relaxed).to_string());
    }
}

#[test]
fn pipeline_that_has_arrived_is_answered_before_the_end() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let count = 3000;
    client
        .send_raw(&encode(&["INCR", "counter"]).repeat(count))
        .unwrap();
    client.read().unwrap();
    stack.program.signal("TERM").unwrap();
    let mut answered = 1;
    while let Ok(reply) = client.read() {
        answered += 1;
        assert_eq!(reply, Value::Integer(answered));
    }
    assert!(stack.program.await_exit(LIMIT).unwrap().success());
    stack.program.start_again().unwrap();
    let stored = stack.client().unwrap().text(&["GET", "counter"]).unwrap();
    assert_eq!(stored, answered.to_string());
}

#[test]
fn start_and_stop_again_keeps_everything_and_says_nothing_bad() {
    let mut stack = Stack::start().unwrap();
    stack
        .client()
        .unwrap()
        .ok(&["SET", "key", "value"])
        .unwrap();
    for _ in 0..3 {
        stack.program.stop_quietly().unwrap();
        stack.program.start_again().unwrap();
        let mut client = stack.client().unwrap();
        assert_eq!(client.text(&["GET", "key"]).unwrap(), "value");
    }
}

/// What one client was told until its connection was closed.
struct Told {
    /// Blocks or pipelines whose last reply came.
    whole: i64,
    /// Replies of increments.
    single: i64,
}

/// Reads until the connection is closed; every reply is no error.
fn until_closed(mut step: impl FnMut(&mut Told) -> anyhow::Result<()>) -> Told {
    let mut told = Told {
        whole: 0,
        single: 0,
    };
    while step(&mut told).is_ok() {}
    told
}

fn no_error(reply: Value) -> Value {
    assert_eq!(reply.error(), None);
    reply
}

fn pipelines(address: std::net::SocketAddr, key: &str) -> Told {
    let mut client = Client::connect(address).unwrap();
    let burst = encode(&["INCR", key]).repeat(40);
    until_closed(|told| {
        client.send_raw(&burst)?;
        for _ in 0..40 {
            no_error(client.read()?);
            told.single += 1;
        }
        told.whole += 1;
        Ok(())
    })
}

fn blocks(address: std::net::SocketAddr, one: &str, two: &str) -> Told {
    let mut client = Client::connect(address).unwrap();
    let commands = [
        vec!["MULTI"],
        vec!["INCR", one],
        vec!["INCR", two],
        vec!["EXEC"],
    ];
    let block: Vec<u8> = commands
        .iter()
        .flat_map(|command| encode(command))
        .collect();
    until_closed(|told| {
        client.send_raw(&block)?;
        for _ in 0..3 {
            no_error(client.read()?);
        }
        let replies = no_error(client.read()?);
        assert_eq!(replies.items().len(), 2, "{replies:?}");
        told.whole += 1;
        Ok(())
    })
}

fn pops(address: std::net::SocketAddr, list: &str) -> Told {
    let mut client = Client::connect(address).unwrap();
    until_closed(|told| {
        if no_error(client.call(&["BLPOP", list, "0"])?).items().len() == 2 {
            told.whole += 1;
        }
        Ok(())
    })
}

fn pushes(address: std::net::SocketAddr, list: &str) -> Told {
    let mut client = Client::connect(address).unwrap();
    until_closed(|told| {
        no_error(client.call(&["RPUSH", list, "item"])?);
        told.whole += 1;
        thread::sleep(Duration::from_millis(1));
        Ok(())
    })
}

/// Pipelines, blocks of a transaction, and clients that wait: none hears an error, what was answered is
/// there, and nothing is there of which nobody was told.
#[test]
fn drain_under_load_hands_no_client_an_error() {
    let mut stack = Stack::start().unwrap();
    let address = stack.program.address();
    let mut idle = stack.client().unwrap();
    idle.send(&["BLPOP", "nothing comes", "0"]).unwrap();
    let (pipelined, blocked, popped, pushed) = thread::scope(|scope| {
        let many: Vec<_> = (0..4)
            .map(|n| scope.spawn(move || pipelines(address, &format!("pipelined:{n}"))))
            .collect();
        let few: Vec<_> = (0..4)
            .map(|n| scope.spawn(move || blocks(address, &format!("one:{n}"), &format!("two:{n}"))))
            .collect();
        let poppers: Vec<_> = (0..4)
            .map(|_| scope.spawn(move || pops(address, "list")))
            .collect();
        let pusher = scope.spawn(move || pushes(address, "list"));
        let watch = Client::connect(address);
        let mut watch = watch.unwrap();
        let keys = ["pipelined:0", "one:3", "two:0"];
        process::await_true("all work", LIMIT, || {
            keys.iter().all(|key| {
                let reply = watch.call(&["GET", key]).unwrap().text();
                reply.is_some_and(|count| count.parse::<u32>().unwrap() > 20)
            })
        })
        .unwrap();
        stack.program.stop_quietly().unwrap();
        let join = |handles: Vec<thread::ScopedJoinHandle<'_, Told>>| -> Vec<Told> {
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        };
        let popped: i64 = join(poppers).iter().map(|told| told.whole).sum();
        (join(many), join(few), popped, pusher.join().unwrap().whole)
    });
    assert!(idle.read().is_err(), "it was closed without a reply");
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    for (n, told) in pipelined.iter().enumerate() {
        let stored = client.text(&["GET", &format!("pipelined:{n}")]).unwrap();
        assert_eq!(stored, told.single.to_string());
    }
    for (n, told) in blocked.iter().enumerate() {
        for name in ["one", "two"] {
            let stored = client.text(&["GET", &format!("{name}:{n}")]).unwrap();
            assert_eq!(stored, told.whole.to_string());
        }
    }
    assert!(popped > 0);
    let left = client.integer(&["LLEN", "list"]).unwrap();
    assert_eq!(pushed, popped + left);
}
