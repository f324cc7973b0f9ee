//! Two proxies of which one cannot reach the cache.

use std::thread;
use std::time::{Duration, Instant};

use super::{LIMIT, await_state, await_write};
use crate::support::stack::FRESHET;
use crate::support::{Client, Detour, Program, Stack, Value, process};

/// A stack, and a second proxy whose way to the cache can be cut.
fn two_proxies() -> (Stack, Detour, Program) {
    let stack = Stack::start().unwrap();
    let detour = Detour::to(stack.cache.address()).unwrap();
    let url = format!("redis://{}", detour.address());
    let second = Program::start(FRESHET, &stack.database, &url, &[]).unwrap();
    await_state(&second, "active");
    (stack, detour, second)
}

fn generation(program: &Program) -> f64 {
    program.metric("freshet_generation").unwrap()
}

#[test]
fn a_proxy_that_is_cut_off_from_the_cache_leaves_it_to_the_others() {
    let (stack, detour, second) = two_proxies();
    let mut first = stack.client().unwrap();
    let mut other = second.client().unwrap();
    first.ok(&["SET", "key", "1"]).unwrap();
    assert_eq!(other.text(&["GET", "key"]).unwrap(), "1");
    detour.cut();
    // Its write in flight is committed, and answered when the cache was taken out of use.
    let refused = await_write(&mut other, "key", "2");
    assert_eq!(
        first.text(&["GET", "key"]).unwrap(),
        "2",
        "{refused} refusals"
    );
    await_state(&second, "apart");
    assert_eq!(second.http("/readyz").unwrap().0, 503);
    for command in [
        &["GET", "key"][..],
        &["SET", "key", "never"],
        &["INCR", "n"],
    ] {
        let reply = other.call(command).unwrap();
        let text = reply.error().expect("it cannot be served").to_owned();
        assert!(text.starts_with("TRYAGAIN"), "{text}");
    }
    await_state(&stack.program, "active");
    let before = generation(&stack.program);
    let hits = || {
        let (_, page) = stack.program.http("/metrics").unwrap();
        let line = page
            .lines()
            .find(|line| line.starts_with("freshet_reads_total{outcome=\"hit\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let hits_before = hits();
    let start = Instant::now();
    let mut reads = 0;
    while start.elapsed() < Duration::from_secs(4) {
        first.ok(&["SET", "key", "3"]).unwrap();
        assert_eq!(first.text(&["GET", "key"]).unwrap(), "3");
        reads += 1;
    }
    assert_eq!(generation(&stack.program), before, "the cache was spoiled");
    assert!(hits() - hits_before > reads / 2, "the cache is not used");
    detour.mend();
    await_state(&second, "active");
    assert_eq!(second.http("/readyz").unwrap().0, 200);
    assert_eq!(other.text(&["GET", "key"]).unwrap(), "3");
    assert_eq!(other.call(&["GET", "n"]).unwrap(), Value::Null);
    assert_eq!(
        generation(&stack.program),
        before,
        "the return spoiled the cache"
    );
}

/// Nobody is left who uses the cache: then it is taken out of use, and served from the store.
#[test]
fn a_proxy_that_stood_apart_serves_alone_when_the_others_are_gone() {
    let (mut stack, detour, second) = two_proxies();
    detour.cut();
    let mut other = second.client().unwrap();
    await_write(&mut other, "key", "1");
    await_state(&second, "apart");
    stack.program.kill().unwrap();
    await_state(&second, "bypass");
    other.ok(&["SET", "key", "2"]).unwrap();
    assert_eq!(other.text(&["GET", "key"]).unwrap(), "2");
    // The first comes back, brings the cache back, and shows nothing older.
    stack.program.start_again().unwrap();
    await_state(&stack.program, "active");
    let mut first = stack.client().unwrap();
    assert_eq!(first.text(&["GET", "key"]).unwrap(), "2");
}

/// A way that comes and goes costs the others their cache now and then, not all the time.
#[test]
fn a_proxy_whose_way_to_the_cache_comes_and_goes_shows_nothing_stale() {
    let (stack, detour, second) = two_proxies();
    let address = second.address();
    let over = std::sync::atomic::AtomicBool::new(false);
    let before = generation(&stack.program);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut other = Client::connect(address).unwrap();
            other.set_reply_limit(Duration::from_secs(60)).unwrap();
            let mut written = 0;
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                let reply = other.call(&["INCR", "counter"]).unwrap();
                match reply {
                    Value::Integer(now) => written = now,
                    Value::Error(text) => {
                        assert!(text.starts_with("TRYAGAIN"), "{text}");
                        thread::sleep(Duration::from_millis(5));
                    }
                    other => panic!("{other:?}"),
                }
            }
            written
        });
        let mut first = stack.client().unwrap();
        let mut last = 0;
        let mut read = || {
            let reply = first.call(&["GET", "counter"]).unwrap();
            let seen: i64 = match &reply {
                Value::Null => 0,
                reply => reply.text().expect("a number").parse().unwrap(),
            };
            assert!(seen >= last, "{seen} after {last}");
            last = seen;
        };
        for _ in 0..6 {
            for (cut, time) in [(true, 700), (false, 700)] {
                if cut {
                    detour.cut();
                } else {
                    detour.mend();
                }
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(time) {
                    read();
                }
            }
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        writer.join().unwrap()
    });
    await_state(&second, "active");
    let mut first = stack.client().unwrap();
    assert_eq!(
        first.text(&["GET", "counter"]).unwrap(),
        written.to_string()
    );
    // Once at first, then again after 5 s at the earliest.
    let spoiled = generation(&stack.program) - before;
    assert!(spoiled <= 4.0, "the cache was voided {spoiled} times");
}

/// A proxy that stands still can confirm nothing: what it might show is deleted, and the others go on.
#[test]
fn a_proxy_that_stands_still_holds_up_nobody() {
    let (stack, _detour, second) = two_proxies();
    let mut first = stack.client().unwrap();
    let mut other = second.client().unwrap();
    first.ok(&["SET", "key", "1"]).unwrap();
    assert_eq!(other.text(&["GET", "key"]).unwrap(), "1");
    second.signal("STOP").unwrap();
    let start = Instant::now();
    first.ok(&["FLUSHALL"]).unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    first.ok(&["SET", "key", "2"]).unwrap();
    second.signal("CONT").unwrap();
    assert_eq!(other.text(&["GET", "key"]).unwrap(), "2");
}

#[test]
fn flushes_through_two_proxies_all_succeed_and_leave_nothing() {
    let (stack, _detour, second) = two_proxies();
    let addresses = [stack.program.address(), second.address()];
    thread::scope(|scope| {
        for (number, address) in addresses.into_iter().enumerate() {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                let mut elsewhere = Client::connect(addresses[1 - number]).unwrap();
                let db = (number + 3).to_string();
                client.ok(&["SELECT", &db]).unwrap();
                elsewhere.ok(&["SELECT", &db]).unwrap();
                for round in 0..12 {
                    client.ok(&["SET", "kept", &round.to_string()]).unwrap();
                    elsewhere.ok(&["SET", "other", "x"]).unwrap();
                    assert_eq!(client.text(&["GET", "other"]).unwrap(), "x");
                    client.ok(&["FLUSHDB"]).unwrap();
                    for client in [&mut client, &mut elsewhere] {
                        assert_eq!(client.call(&["GET", "kept"]).unwrap(), Value::Null);
                        assert_eq!(client.call(&["GET", "other"]).unwrap(), Value::Null);
                        assert_eq!(client.integer(&["DBSIZE"]).unwrap(), 0);
                    }
                }
            });
        }
    });
    process::await_true("the cache is in use again", LIMIT, || {
        [&stack.program, &second].into_iter().all(|program| {
            let page = program.http("/metrics").unwrap().1;
            page.contains("freshet_cache_state{state=\"active\"} 1")
        })
    })
    .unwrap();
}
