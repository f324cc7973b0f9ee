//! What waiting costs, and how a write through another proxy is noticed.

use std::thread;
use std::time::Duration;

use crate::support::{Client, Program, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(60);
const WAITERS: usize = 2000;

fn await_blocked(program: &Program, count: usize) {
    let mut client = program.client().unwrap();
    let line = format!("blocked_clients:{count}\r\n");
    process::await_true("clients wait", LIMIT, || {
        let info = client.text(&["INFO", "clients"]).unwrap();
        info.contains(&line)
    })
    .unwrap();
}

/// Keys that were noticed to be written, by how that was.
fn wakes(program: &Program, by: &str) -> f64 {
    let (_, body) = program.http("/metrics").unwrap();
    let name = format!("freshet_wakes_total{{by=\"{by}\"}} ");
    let value = body.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn another_proxy_says_what_it_wrote_to_those_who_wait() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let mut waiter = stack.client().unwrap();
    let mut pusher = second.client().unwrap();
    // The first pushes may come before the other proxy was asked to tell.
    process::await_true("a message wakes", LIMIT, || {
        waiter.send(&["BLPOP", "q", "0"]).unwrap();
        await_blocked(&stack.program, 1);
        pusher.ok(&["RPUSH", "q", "x"]).unwrap();
        let reply = waiter.read().unwrap();
        assert_eq!(reply.items()[1].text().unwrap(), "x");
        wakes(&stack.program, "message") > 0.0
    })
    .unwrap();
    assert_eq!(pusher.integer(&["EXISTS", "q"]).unwrap(), 0);
}

#[test]
fn those_who_wait_cost_no_work_and_one_item_serves_the_first_alone() {
    let stack = Stack::start().unwrap();
    let mut clients: Vec<Client> = Vec::with_capacity(WAITERS);
    for index in 0..WAITERS {
        let mut client = stack.client().unwrap();
        // Half of them at one key.
        let key = match index % 2 {
            0 => "q".to_owned(),
            _ => format!("q{index}"),
        };
        client.send(&["BLPOP", &key, "0"]).unwrap();
        clients.push(client);
        // In the order of their numbers.
        if index < 4 {
            await_blocked(&stack.program, index + 1);
        }
    }
    await_blocked(&stack.program, WAITERS);
    // Each key is looked at a first time; from then on nothing is tried.
    let units = || stack.program.metric("freshet_units_total").unwrap();
    let mut before = units();
    process::await_true("nothing is tried any more", LIMIT, || {
        thread::sleep(Duration::from_secs(3));
        let now = units();
        std::mem::replace(&mut before, now) == now
    })
    .unwrap();
    let mut pusher = stack.client().unwrap();
    pusher.ok(&["RPUSH", "q", "one"]).unwrap();
    assert_eq!(clients[0].read().unwrap().items()[1].text().unwrap(), "one");
    await_blocked(&stack.program, WAITERS - 1);
    let tried = units() - before;
    assert!(tried < 16.0, "one push led to {tried} tries");
    pusher.ok(&["RPUSH", "q", "two"]).unwrap();
    assert_eq!(clients[2].read().unwrap().items()[1].text().unwrap(), "two");
    await_blocked(&stack.program, WAITERS - 2);
    assert_eq!(pusher.integer(&["EXISTS", "q"]).unwrap(), 0);
    assert_ne!(pusher.call(&["PING"]).unwrap(), Value::Null);
}
