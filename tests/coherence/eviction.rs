//! A cache that is too small.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{Client, Stack, Value, seed};

const KEYS: usize = 800;
const ROUNDS: usize = 4;
const CHUNK: usize = 50;

/// More is written than fits; every answer is right all the same.
fn answers_stay_right_under(policy: &str) {
    let stack = Stack::start_with(
        &[],
        &["--maxmemory", "2500kb", "--maxmemory-policy", policy],
    )
    .unwrap();
    let seed = seed::seed();
    println!("FRESHET_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = stack.client().unwrap();
    let mut expected = vec![None; KEYS];
    for _ in 0..ROUNDS {
        for start in (0..KEYS).step_by(CHUNK) {
            let keys = &mut expected[start..start + CHUNK];
            write_and_read(&mut client, &mut rng, start, keys);
        }
    }
    for (key, number) in expected.into_iter().enumerate() {
        let reply = client.text(&head_of(key)).unwrap();
        assert_eq!(reply, head(number), "key:{key}");
    }
}

/// The first digits of a value, which are all that is compared.
fn head(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| format!("{number:020}"))
}

fn head_of(key: usize) -> Vec<String> {
    let words = ["GETRANGE", &format!("key:{key}"), "0", "19"];
    words.map(str::to_owned).to_vec()
}

/// One pipeline that changes most of these keys and reads all of them.
fn write_and_read(client: &mut Client, rng: &mut StdRng, start: usize, keys: &mut [Option<u64>]) {
    let mut commands = Vec::new();
    let mut answers = Vec::new();
    for (offset, number) in keys.iter_mut().enumerate() {
        let key = start + offset;
        if rng.random_bool(0.7) {
            *number = Some(rng.random());
            let value = format!("{}{}", head(*number), "x".repeat(4000));
            commands.push(vec!["SET".to_owned(), format!("key:{key}"), value]);
            answers.push("OK".to_owned());
        }
        commands.push(head_of(key));
        answers.push(head(*number));
    }
    let replies = client.pipeline(&commands).unwrap();
    for ((command, reply), answer) in commands.iter().zip(replies).zip(answers) {
        assert_eq!(reply.text(), Some(answer), "{} {}", command[0], command[1]);
    }
}

#[test]
fn full_cache_that_evicts_nothing_changes_no_answer() {
    answers_stay_right_under("noeviction");
}

#[test]
fn eviction_of_the_least_recently_used_changes_no_answer() {
    answers_stay_right_under("allkeys-lru");
    answers_stay_right_under("volatile-lru");
}

#[test]
fn eviction_of_the_least_frequently_used_changes_no_answer() {
    answers_stay_right_under("allkeys-lfu");
    answers_stay_right_under("volatile-lfu");
}

#[test]
fn random_eviction_changes_no_answer() {
    answers_stay_right_under("allkeys-random");
    answers_stay_right_under("volatile-random");
}

#[test]
fn eviction_by_expiry_changes_no_answer() {
    answers_stay_right_under("volatile-ttl");
}

/// Each database has a mark of its own, and any of them can be evicted; also
/// right after a change of generation.
#[test]
fn evicted_mark_of_one_database_is_noticed_at_once() {
    let stack = Stack::start().unwrap();
    let mut cache = stack.cache.client().unwrap();
    let mut flusher = stack.client().unwrap();
    let mut reader = stack.client().unwrap();
    reader.set_reply_limit(Duration::from_secs(3)).unwrap();
    cache.ok(&["SELECT", "1"]).unwrap();
    reader.ok(&["SELECT", "1"]).unwrap();
    for round in 0..60 {
        let number = round.to_string();
        reader.ok(&["SET", "key", &number]).unwrap();
        flusher.ok(&["FLUSHDB"]).unwrap();
        cache.ok(&["FLUSHDB"]).unwrap();
        assert_eq!(reader.ok(&["GET", "none"]).unwrap(), Value::Null);
        assert_eq!(reader.text(&["GET", "key"]).unwrap(), number);
    }
}

/// An evicted companion may leave hidden content of nobody knows which version
/// behind: no later write, expiry or fill brings it to light.
#[test]
fn hidden_content_left_over_is_never_shown() {
    let stack = Stack::start().unwrap();
    let mut cache = stack.cache.client().unwrap();
    let mut client = stack.client().unwrap();
    // An absent key gives an empty string.
    let whole = ["GETRANGE", "key", "0", "-1"];
    let changes: [(&[&str], &str); 6] = [
        (&["SET", "key", "new"], "new"),
        (&["SET", "key", "new", "EX", "100"], "new"),
        (&["EXPIRE", "key", "200"], "value"),
        (&["PERSIST", "key"], "value"),
        (&["APPEND", "key", "d"], "valued"),
        (&["DEL", "key"], ""),
    ];
    for (change, expected) in changes {
        for evicted in [&["key"][..], &["\0fc{key}"], &["key", "\0fc{key}"]] {
            client.ok(&["SET", "key", "value", "EX", "50"]).unwrap();
            let evict: Vec<&str> = ["DEL"].iter().chain(evicted).copied().collect();
            cache.ok(&evict).unwrap();
            cache
                .ok(&["SET", "\0fh{key}", "stale", "PX", "60000"])
                .unwrap();
            for step in [change, &["EXPIRE", "key", "300"]] {
                client.ok(step).unwrap();
                assert_eq!(client.text(&whole).unwrap(), expected, "{step:?}");
                cache.ok(&["DEL", "key"]).unwrap();
                assert_eq!(client.text(&whole).unwrap(), expected, "{step:?}");
            }
        }
    }
}
