//! Linearizable under faults, with several proxies: clients work on a few keys through three proxies over one
//! real PostgreSQL and one real Redis while these, the proxies and the network between them are
//! killed, stopped, cut and emptied; what every client was told is checked afterwards.
//!
//! `TORTURE_SECONDS` makes it long (`make torture`), `FRESHET_SEED` repeats what a seed decides: which faults,
//! when, and what clients ask. What is kept of a failure stands below Cargo's folder for such files.

mod check;
mod clients;
mod cluster;
mod faults;
mod history;
mod objects;
mod report;
mod round;
mod schedule;
mod verify;
mod words;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::support::seed::{self, Random};
use crate::support::{Value, process};
use cluster::Cluster;
use faults::Fault;
use report::Table;
use round::Outcome;
use schedule::{Scale, Schedule};

/// Faults of a round in which one happens after the other.
const SINGLE_MAX: usize = 12;
/// Faults of the short run.
const SHORT: usize = 24;
/// How long the database may take to be emptied between two rounds.
const FLUSH_LIMIT: Duration = Duration::from_secs(60);
/// Seconds of a storm.
const STORM: Duration = Duration::from_secs(15);

/// How the short run and the long one differ.
struct Plan {
    /// Beyond this, no further round begins; none: some faults once, and one storm.
    time: Option<Duration>,
    settings: Vec<(&'static str, &'static str)>,
    scale: Scale,
}

impl Plan {
    fn short() -> Self {
        Self {
            time: None,
            settings: vec![
                ("fence.reads_without_database", "2s"),
                ("fence.renewal", "500ms"),
                // An answer that is lost is waited for as long as a statement may take.
                ("postgres.statement_timeout", "5s"),
            ],
            scale: Scale {
                beyond_leases: Duration::from_millis(3500),
                long_chance: 20,
            },
        }
    }

    fn long(time: Duration) -> Self {
        Self {
            time: Some(time),
            // A proxy asked to stop waits for a lost answer no longer than it may drain.
            settings: vec![("postgres.statement_timeout", "10s")],
            scale: Scale {
                beyond_leases: Duration::from_secs(40),
                long_chance: 6,
            },
        }
    }

    /// The schedules, one for each round.
    fn schedules(&self, random: &mut Random) -> Vec<Schedule> {
        let mut faults = Fault::all(random);
        random.shuffle(&mut faults);
        if self.time.is_none() {
            faults.truncate(SHORT);
        }
        let mut schedules: Vec<Schedule> = faults
            .chunks(SINGLE_MAX)
            .map(|some| Schedule::single(some.to_vec(), self.scale, random))
            .collect();
        schedules.push(Schedule::storm(STORM, self.scale, random));
        if self.time.is_some() {
            schedules.push(Schedule::storm(2 * STORM, self.scale, random));
            schedules.push(Schedule::storm(STORM, self.scale, random));
        }
        schedules
    }
}

#[test]
fn histories_are_linearizable_under_faults() {
    let long = seed::seconds("TORTURE_SECONDS", 0);
    let plan = if long.is_zero() {
        Plan::short()
    } else {
        Plan::long(long)
    };
    let seed = seed::seed();
    println!("FRESHET_SEED={seed}");
    let start = Instant::now();
    let mut table = Table::default();
    let result = run(&plan, seed, start, &mut table);
    println!("after {:?}: {}", start.elapsed(), table.text());
    if let Err(error) = result {
        panic!("FRESHET_SEED={seed}: {error:#}");
    }
}

fn run(plan: &Plan, seed: u64, start: Instant, table: &mut Table) -> Result<()> {
    let mut cluster = Cluster::start(&plan.settings)?;
    let mut random = Random::new(seed, 0);
    let mut number = 0;
    loop {
        for schedule in plan.schedules(&mut random) {
            number += 1;
            println!("round {number}: {:#?}", schedule.lines());
            let outcome = round::run(&mut cluster, (seed, number), &schedule, start);
            table.add(&outcome);
            println!("{:#?}", clients::errors(&outcome.operations));
            if !outcome.violations.is_empty() {
                let place = kept(&cluster, seed, number, &schedule, &outcome);
                bail!("round {number}: {:#?}\n{place}", outcome.violations);
            }
            if plan.time.is_some_and(|time| start.elapsed() > time) {
                return Ok(());
            }
            // The next round finds an empty database. It is the one order that needs all proxies.
            flush(&cluster)?;
        }
        if plan.time.is_none() {
            return Ok(());
        }
    }
}

/// A connection that a fault of the round left dead is found by its silence; then the flush was not done,
/// and is asked for again, as its error says.
fn flush(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.proxies[0].program.client()?;
    process::await_some("the database is emptied", FLUSH_LIMIT, || {
        let reply = client.call(&["FLUSHALL"]);
        let is_refused = |reply: &Value| reply.error().is_some_and(|e| e.starts_with("TRYAGAIN"));
        match reply {
            Ok(reply) if is_refused(&reply) => None,
            Ok(reply) => Some(
                reply
                    .error()
                    .map_or(Ok(()), |error| bail!("FLUSHALL: {error}")),
            ),
            Err(error) => Some(Err(error)),
        }
    })?
}

/// Keeps what is needed to understand a failure, and says where.
fn kept(
    cluster: &Cluster,
    seed: u64,
    number: u32,
    schedule: &Schedule,
    outcome: &Outcome,
) -> String {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{seed}-{number}"));
    let keep = || -> Result<()> {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("schedule.txt"), schedule.lines().join("\n"))?;
        cluster.keep_logs(&folder)?;
        std::fs::write(folder.join("violations.txt"), outcome.violations.join("\n"))?;
        report::write_history(&folder, outcome)?;
        std::fs::write(folder.join("timeline.svg"), report::picture(outcome))?;
        Ok(())
    };
    match keep() {
        Ok(()) => format!("kept in {}", folder.display()),
        Err(error) => format!("could not be kept in {}: {error:#}", folder.display()),
    }
}
