//! Kills and stalls of each of the three programs.

use std::thread;
use std::time::Duration;

use super::load::under_load;
use crate::support::{Stack, seed};

/// How often each fault happens.
fn times() -> u64 {
    seed::seconds("FRESHET_FAULT_ROUNDS", 3).as_secs()
}

/// Long enough for writes to be in every state.
fn a_moment() {
    thread::sleep(Duration::from_millis(400));
}

#[test]
fn acknowledged_writes_survive_kills_of_the_proxy() {
    let mut stack = Stack::start().unwrap();
    let address = stack.program.address();
    let tally = under_load(address, || {
        for _ in 0..times() {
            stack.program.kill().unwrap();
            stack.program.start_again().unwrap();
            a_moment();
        }
    });
    tally.check(&stack);
}

#[test]
fn acknowledged_writes_survive_kills_of_the_cache() {
    let mut stack = Stack::start().unwrap();
    let address = stack.program.address();
    let tally = under_load(address, || {
        for _ in 0..times() {
            stack.cache.kill().unwrap();
            a_moment();
            stack.cache.start_again().unwrap();
            a_moment();
        }
    });
    tally.check(&stack);
}

#[test]
fn acknowledged_writes_survive_flushes_of_the_cache() {
    let stack = Stack::start().unwrap();
    let tally = under_load(stack.program.address(), || {
        let mut cache = stack.cache.client().unwrap();
        for _ in 0..times() * 50 {
            cache.ok(&["FLUSHALL"]).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
    });
    tally.check(&stack);
}

#[test]
fn acknowledged_writes_survive_crashes_of_postgresql() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let address = stack.program.address();
    let tally = under_load(address, || {
        for _ in 0..times() {
            stack.postgres().unwrap().crash().unwrap();
            stack.postgres().unwrap().start_again().unwrap();
            a_moment();
        }
    });
    tally.check(&stack);
}

#[test]
fn acknowledged_writes_survive_kills_of_postgresql() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let address = stack.program.address();
    let tally = under_load(address, || {
        for _ in 0..times() {
            stack.postgres().unwrap().kill().unwrap();
            stack.postgres().unwrap().start_again().unwrap();
            a_moment();
        }
    });
    tally.check(&stack);
}

#[test]
fn stalls_of_postgresql_lose_nothing() {
    let mut stack =
        Stack::start_with_own_postgres(&[("postgres.statement_timeout", "2s")]).unwrap();
    let address = stack.program.address();
    let tally = under_load(address, || {
        for _ in 0..times() {
            stack.postgres().unwrap().signal_all("STOP").unwrap();
            thread::sleep(Duration::from_millis(1500));
            stack.postgres().unwrap().signal_all("CONT").unwrap();
            a_moment();
        }
    });
    tally.check(&stack);
}

#[test]
fn stalls_of_the_cache_lose_nothing() {
    let stack = Stack::start().unwrap();
    let tally = under_load(stack.program.address(), || {
        for _ in 0..times() {
            stack.cache.signal("STOP").unwrap();
            thread::sleep(Duration::from_millis(1500));
            stack.cache.signal("CONT").unwrap();
            a_moment();
        }
    });
    tally.check(&stack);
}

#[test]
fn all_three_can_die_in_turn() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let address = stack.program.address();
    let tally = under_load(address, || {
        for _ in 0..times() {
            stack.cache.kill().unwrap();
            stack.program.kill().unwrap();
            stack.cache.start_again().unwrap();
            stack.program.start_again().unwrap();
            a_moment();
            stack.postgres().unwrap().kill().unwrap();
            stack.cache.kill().unwrap();
            stack.postgres().unwrap().start_again().unwrap();
            stack.cache.start_again().unwrap();
            a_moment();
        }
    });
    tally.check(&stack);
}
