//! Nobody sees half of a block, and a block sees one state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Program, Stack, Value, seed};

const PAUSE: Duration = Duration::from_millis(60);

fn time() -> Duration {
    seed::seconds("FRESHET_RACE_SECONDS", 3)
}

/// Sets three keys to the same, two of them in other databases; every other round deletes all.
fn write(client: &mut Client, round: u64) {
    let n = round.to_string();
    let steps = if round.is_multiple_of(3) {
        [
            vec!["DEL", "a"],
            vec!["DEL", "b"],
            vec!["SELECT", "1"],
            vec!["DEL", "c"],
        ]
    } else {
        [
            vec!["SET", "a", &n],
            vec!["SET", "b", &n],
            vec!["SELECT", "1"],
            vec!["GETSET", "c", &n],
        ]
    };
    let mut block = vec![vec!["MULTI"]];
    block.extend(steps);
    block.push(vec!["SELECT", "0"]);
    block.push(vec!["EXEC"]);
    for reply in client.pipeline(&block).unwrap() {
        assert_eq!(reply.error(), None);
    }
}

fn read_block(client: &mut Client) {
    let block = [
        "MULTI", "GET a", "GET b", "SELECT 1", "GET c", "SELECT 0", "EXEC",
    ];
    let block: Vec<Vec<&str>> = block.iter().map(|line| line.split(' ').collect()).collect();
    let replies = client.pipeline(&block).unwrap();
    let items = replies[6].items();
    assert!(
        items.len() == 5 && items[0] == items[1] && items[1] == items[3],
        "half of a block: {:?}",
        replies[6]
    );
}

/// The same in a block that writes something of its own.
fn read_and_write_block(client: &mut Client) {
    let block = [
        "MULTI", "GET a", "INCR own", "GET b", "SELECT 1", "GET c", "SELECT 0", "EXEC",
    ];
    let block: Vec<Vec<&str>> = block.iter().map(|line| line.split(' ').collect()).collect();
    let replies = client.pipeline(&block).unwrap();
    let items = replies[7].items();
    assert!(
        items.len() == 6 && items[0] == items[2] && items[2] == items[4],
        "half of a block: {:?}",
        replies[7]
    );
}

fn read_one_by_one(client: &mut Client) {
    let reply = client.ok(&["MGET", "a", "b"]).unwrap();
    let items = reply.items();
    assert!(items.len() == 2 && items[0] == items[1], "half: {reply:?}");
}

fn race(writer: &Program, reader: &Program, disturb: impl Fn(&mut Duration)) {
    let over = AtomicBool::new(false);
    let running = || !over.load(Ordering::Relaxed);
    let readers: [fn(&mut Client); 3] = [read_block, read_and_write_block, read_one_by_one];
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = writer.client().unwrap();
            for round in 1.. {
                if !running() {
                    break;
                }
                write(&mut client, round);
            }
        });
        let readers: Vec<_> = readers
            .into_iter()
            .map(|read| {
                scope.spawn(move || {
                    let mut client = reader.client().unwrap();
                    let mut rounds = 0_u32;
                    while running() {
                        read(&mut client);
                        rounds += 1;
                    }
                    assert!(rounds > 3, "nothing was read");
                })
            })
            .collect();
        let start = Instant::now();
        let mut pause = PAUSE;
        while start.elapsed() < time() && !readers.iter().any(thread::ScopedJoinHandle::is_finished)
        {
            disturb(&mut pause);
            thread::sleep(pause);
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_block_is_seen_whole() {
    let stack = Stack::start().unwrap();
    race(&stack.program, &stack.program, |_| {});
}

#[test]
fn a_block_is_seen_whole_through_another_proxy() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    race(&stack.program, &second, |_| {});
}

#[test]
fn a_block_is_seen_whole_while_the_cache_is_flushed() {
    let stack = Stack::start().unwrap();
    race(&stack.program, &stack.program, |_| {
        stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    });
}

#[test]
fn a_block_is_seen_whole_while_the_cache_is_killed() {
    let mut stack = Stack::start().unwrap();
    let cache = std::sync::Mutex::new(&mut stack.cache);
    race(&stack.program, &stack.program, |pause| {
        let mut cache = cache.lock().unwrap();
        cache.kill().unwrap();
        cache.start_again().unwrap();
        *pause = Duration::from_millis(300);
    });
}

/// Ends a proxy in the middle of blocks: each is there as a whole, or not at all.
#[test]
fn a_proxy_that_is_killed_leaves_no_half_of_a_block() {
    let mut stack = Stack::start().unwrap();
    for round in 0..5 {
        let mut client = stack.client().unwrap();
        let commands = (0..200).flat_map(|n: u32| {
            let n = n.to_string();
            let set = |key: &str| vec!["SET".to_owned(), key.to_owned(), n.clone()];
            [
                vec!["MULTI".to_owned()],
                set("x"),
                set("y"),
                vec!["EXEC".to_owned()],
            ]
        });
        client.send_all(&commands.collect::<Vec<_>>()).unwrap();
        thread::sleep(Duration::from_millis(10 + 20 * round));
        stack.program.kill().unwrap();
        stack.program.start_again().unwrap();
        let mut client = stack.client().unwrap();
        let reply = client.ok(&["MGET", "x", "y"]).unwrap();
        assert_eq!(reply.items()[0], reply.items()[1], "round {round}");
        assert!(round == 0 || reply.items()[0] != Value::Null);
    }
}
