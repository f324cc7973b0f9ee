//! What Freshet costs and gives, beside what one would use without it: ratios
//! within one run, since the speed of a shared machine drifts between runs.
//!
//! `make bench` runs it. `FRESHET_BENCH_ROUNDS` sets the number of rounds (5),
//! `FRESHET_BENCH_SCALE` multiplies the number of requests (1.0).
//! All servers are private, on free ports of 127.0.0.1, and end with the program.

#[path = "end_to_end/contest.rs"]
mod contest;
#[path = "end_to_end/data_types.rs"]
mod data_types;
#[path = "end_to_end/dual_write.rs"]
mod dual_write;
#[path = "end_to_end/footprint.rs"]
mod footprint;
#[path = "end_to_end/load.rs"]
mod load;
#[path = "end_to_end/machine.rs"]
mod machine;
#[path = "end_to_end/peers.rs"]
mod peers;
#[path = "end_to_end/picture.rs"]
mod picture;
#[path = "end_to_end/report.rs"]
mod report;
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)] // The tests use the rest of it.
mod support;

use std::path::Path;

use anyhow::{Context, Result};

use contest::Contest;
use report::Results;

const PICTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/bench.svg");

/// How long and how often to measure.
struct Effort {
    rounds: usize,
    scale: f64,
}

impl Effort {
    fn from_environment() -> Result<Self> {
        let number = |name: &str, default: f64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}: {text:?}")),
            Err(_) => Ok(default),
        };
        Ok(Self {
            rounds: number("FRESHET_BENCH_ROUNDS", 5.0)?.max(1.0) as usize,
            scale: number("FRESHET_BENCH_SCALE", 1.0)?,
        })
    }
}

fn main() -> Result<()> {
    // `cargo test --benches` runs benchmark programs too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let effort = Effort::from_environment()?;
    let machine = machine::describe();
    println!("{machine}");
    let mut contest = Contest::start()?;
    contest.warm_up()?;
    let mut results = Results::default();
    for round in 0..effort.rounds {
        println!("round {} of {}", round + 1, effort.rounds);
        contest.round(round, effort.scale, &mut results)?;
    }
    // Before the large keys are made: they are in the cache too.
    let footprint = contest.footprint(effort.rounds)?;
    let data_types = match contest.for_data_types() {
        Some(servers) => data_types::measure(servers, effort.rounds, effort.scale)?,
        None => String::new(),
    };
    drop(contest);
    print!("\n{}", report::table(&results));
    print!("\n{}", report::targets(&results, &footprint));
    print!("\n{data_types}");
    let picture = Path::new(PICTURE);
    if let Some(folder) = picture.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(picture, picture::draw(&results, &machine))?;
    println!("\nThe picture is in docs/bench.svg.");
    Ok(())
}
