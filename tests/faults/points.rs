//! A proxy that ends, or stands still, between any two steps of the protocol.

use std::thread;
use std::time::Duration;

use super::load::under_load;
use crate::support::stack::FRESHET;
use crate::support::{Program, Stack, Value, process};

const EXIT_LIMIT: Duration = Duration::from_secs(40);

/// Every point of `src/fault.rs`.
const POINTS: [&str; 5] = [
    "after-begin",
    "before-commit",
    "before-apply",
    "before-reply",
    "before-fill",
];

#[test]
fn proxy_may_die_between_any_two_steps() {
    let mut stack = Stack::start().unwrap();
    let address = stack.program.address();
    let mut cache = stack.cache.client().unwrap();
    let tally = under_load(address, || {
        for point in POINTS {
            for number in [1, 20] {
                stack.program.kill().unwrap();
                stack.program.arm(&format!("{point}=exit@{number}"));
                stack.program.spawn().unwrap();
                let status = process::await_some("it comes to the point", EXIT_LIMIT, || {
                    // Misses, so that there are fills.
                    cache.call(&["DEL", "counter"]).unwrap();
                    stack.program.try_exit()
                });
                status.unwrap_or_else(|error| panic!("{point}@{number}: {error:#}"));
                stack.program.disarm();
                stack.program.start_again().unwrap();
            }
        }
    });
    tally.check(&stack);
}

#[test]
fn other_proxy_shows_nothing_stale_while_one_stands_still_at_any_step() {
    let stack = Stack::start().unwrap();
    let mut other = stack.program.client().unwrap();
    for point in POINTS {
        let mut slow = Program::stopped(FRESHET, &stack.database, &stack.cache.url(), &[]).unwrap();
        slow.arm(&format!("{point}=stall:300"));
        slow.start_again().unwrap();
        let mut client = slow.client().unwrap();
        let mut cache = stack.cache.client().unwrap();
        for round in 0..5 {
            let key = format!("k:{point}");
            let (own, theirs) = (format!("own{round}"), format!("their{round}"));
            // The slow one writes and reads while the other overwrites.
            cache.call(&["DEL", &key]).unwrap();
            client
                .send_all(&[vec!["SET", &key, &own], vec!["GET", &key]])
                .unwrap();
            thread::sleep(Duration::from_millis(50 * round));
            assert_eq!(other.text(&["SET", &key, &theirs]).unwrap(), "OK");
            let seen = other.text(&["GET", &key]).unwrap();
            assert!(
                seen == theirs || seen == own,
                "{point}: {seen} is neither {theirs} nor {own}"
            );
            assert_eq!(client.read().unwrap(), Value::Simple("OK".into()));
            client.read().unwrap();
            // Both writes are over: all agree, and the store decides.
            let kept = stored(&stack, &key);
            for (who, reader) in [("the other", &mut other), ("the slow one", &mut client)] {
                assert_eq!(reader.text(&["GET", &key]).unwrap(), kept, "{point}, {who}");
            }
        }
        slow.stop().unwrap();
    }
}

fn stored(stack: &Stack, key: &str) -> String {
    let query = "select value from freshet.strings where db = 0 and key = $1";
    let rows = stack.sql().unwrap().query(query, &[&key]).unwrap();
    rows[0].get(0)
}
