//! Every command, in random order, against a plain Redis.

use std::time::{Duration, Instant};

use super::episode::{self, Arena};
use super::pair::Tested;
use crate::support::{Redis, Stack, seed};

/// `FRESHET_DIFFERENTIAL_SECONDS` makes it longer; `FRESHET_SEED` repeats one episode.
#[test]
fn replies_equal_those_of_redis_whatever_happens_to_the_cache() {
    compare_freshet(&[], seed::seconds("FRESHET_DIFFERENTIAL_SECONDS", 20));
}

/// Collections of more than a few elements are then read from the store.
#[test]
fn replies_equal_those_of_redis_though_little_fits_into_the_cache() {
    let settings = [("cache.fill_elements", "4")];
    compare_freshet(&settings, seed::seconds("FRESHET_DIFFERENTIAL_SECONDS", 10));
}

fn compare_freshet(settings: &[(&str, &str)], limit: Duration) {
    let stack = Stack::start_with(settings, &[]).unwrap();
    let judge = Redis::start().unwrap();
    let arena = Arena {
        tested: Tested::Freshet,
        ours: stack.program.address(),
        cache: &stack.cache,
        judge: &judge,
    };
    run_episodes(&arena, limit);
}

/// Otherwise a difference would say nothing.
#[test]
fn redis_compared_with_itself_shows_no_difference() {
    let (ours, cache, judge) = (
        Redis::start().unwrap(),
        Redis::start().unwrap(),
        Redis::start().unwrap(),
    );
    let arena = Arena {
        tested: Tested::Redis,
        ours: ours.address(),
        cache: &cache,
        judge: &judge,
    };
    run_episodes(&arena, Duration::from_secs(3));
}

fn run_episodes(arena: &Arena, limit: Duration) {
    let start = Instant::now();
    let mut seed = seed::seed();
    let mut episodes = 0;
    while episodes == 0 || (start.elapsed() < limit && !seed::is_replay()) {
        let steps = episode::steps(seed);
        if let Err(error) = arena.run(&steps) {
            let (steps, failure) = episode::shrink(steps, format!("{error:#}"), arena);
            let story: Vec<String> = steps.iter().map(episode::describe).collect();
            panic!(
                "FRESHET_SEED={seed} after {episodes} episodes\nfirst: {error:#}\nshrunk to:\n{}\n{failure}",
                story.join("\n")
            );
        }
        seed += 1;
        episodes += 1;
    }
    println!("{episodes} episodes");
}
