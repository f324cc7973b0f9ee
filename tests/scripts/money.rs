//! Scripts that move money between accounts, through two proxies, while the cache is flushed:
//! at no moment is there more or less of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{Client, Stack, seed};

const ACCOUNTS: usize = 6;
const EACH: i64 = 100;

/// Moves up to so much between two accounts; half of the scripts do not say which.
const DECLARED: &str = "
    local from, to, amount = KEYS[1], KEYS[2], tonumber(ARGV[1])
    local has = tonumber(redis.call('hget', from, 'balance'))
    if has < amount then return 0 end
    redis.call('hincrby', from, 'balance', -amount)
    redis.call('hincrby', to, 'balance', amount)
    redis.call('incr', 'moves')
    return 1";
const UNDECLARED: &str = "
    local from, to, amount = ARGV[1], ARGV[2], tonumber(ARGV[3])
    local has = tonumber(redis.call('hget', from, 'balance'))
    if has < amount then return 0 end
    redis.call('hincrby', to, 'balance', amount)
    redis.call('hincrby', from, 'balance', -amount)
    redis.call('incr', 'moves')
    return 1";
const SUM: &str = "
    local sum = 0
    for i = 1, #KEYS do sum = sum + tonumber(redis.call('hget', KEYS[i], 'balance')) end
    return sum";

fn account(number: usize) -> String {
    format!("account{number}")
}

/// Moves money until told to stop; how often it did.
fn mover(mut client: Client, seed: u64, stop: &AtomicBool) -> i64 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut moved = 0;
    while !stop.load(Ordering::Relaxed) {
        let from = rng.random_range(0..ACCOUNTS);
        let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let (from, to) = (account(from), account(to));
        let amount = rng.random_range(1..40).to_string();
        let reply = match rng.random_bool(0.5) {
            true => client.call(&["EVAL", DECLARED, "3", &from, &to, "moves", &amount]),
            false => client.call(&["EVAL", UNDECLARED, "0", &from, &to, &amount]),
        };
        match reply.unwrap() {
            crate::support::Value::Integer(number) => moved += number,
            // Others were in the way too often, or the fence moved: it was not done.
            other => assert!(other.error().unwrap().starts_with("TRYAGAIN"), "{other:?}"),
        }
    }
    moved
}

#[test]
fn money_moved_by_scripts_through_two_proxies_stays_the_same_while_the_cache_is_flushed() {
    let stack = Stack::start().unwrap();
    let other = stack.second_program().unwrap();
    let mut client = stack.client().unwrap();
    for number in 0..ACCOUNTS {
        let balance = EACH.to_string();
        client
            .ok(&["HSET", &account(number), "balance", &balance])
            .unwrap();
    }
    let seed = seed::seed();
    let stop = Arc::new(AtomicBool::new(false));
    let movers: Vec<_> = [&stack.program, &other, &stack.program, &other]
        .into_iter()
        .enumerate()
        .map(|(number, program)| {
            let (client, stop) = (program.client().unwrap(), Arc::clone(&stop));
            thread::spawn(move || mover(client, seed + number as u64, &stop))
        })
        .collect();
    let accounts: Vec<String> = (0..ACCOUNTS).map(account).collect();
    let count = ACCOUNTS.to_string();
    let mut sum: Vec<&str> = vec!["EVAL_RO", SUM, &count];
    sum.extend(accounts.iter().map(String::as_str));
    let mut cache = stack.cache.client().unwrap();
    let time = seed::seconds("FRESHET_FAULT_SECONDS", 6);
    let (started, mut looks) = (Instant::now(), 0);
    let mut flushed = Instant::now();
    let mut clients = [stack.client().unwrap(), other.client().unwrap()];
    while started.elapsed() < time {
        for client in &mut clients {
            let reply = client.call(&sum).unwrap();
            if let crate::support::Value::Integer(total) = reply {
                assert_eq!(total, EACH * ACCOUNTS as i64, "FRESHET_SEED={seed}");
                looks += 1;
            } else {
                assert!(reply.error().unwrap().starts_with("TRYAGAIN"), "{reply:?}");
            }
        }
        if flushed.elapsed() > Duration::from_millis(700) {
            cache.ok(&["FLUSHALL"]).unwrap();
            flushed = Instant::now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let moved: i64 = movers.into_iter().map(|one| one.join().unwrap()).sum();
    assert!(moved > 20 && looks > 20, "{moved} moves, {looks} looks");
    let moves: i64 = client.text(&["GET", "moves"]).unwrap().parse().unwrap();
    assert_eq!(moves, moved, "each move counts once; FRESHET_SEED={seed}");
    let mut total = 0;
    for account in &accounts {
        let balance = client.text(&["HGET", account, "balance"]).unwrap();
        total += balance.parse::<i64>().unwrap();
    }
    assert_eq!(total, EACH * ACCOUNTS as i64, "FRESHET_SEED={seed}");
}
