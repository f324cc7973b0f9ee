//! Samples, medians, and the table of targets.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::footprint::Footprint;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// GET of keys that are there, one request at a time and connection.
    Get,
    /// GET of keys that are there, 16 requests at a time and connection.
    GetPipelined,
    /// SET of random keys, one at a time.
    Set,
    /// SET of random keys, 16 at a time.
    SetPipelined,
    /// SET of random keys from one connection, one at a time.
    SetAlone,
}

impl Work {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 5] = [
        Self::Get,
        Self::GetPipelined,
        Self::Set,
        Self::SetPipelined,
        Self::SetAlone,
    ];
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Get => "GET hit, 50 clients, -P 1",
            Self::GetPipelined => "GET hit, 50 clients, -P 16",
            Self::Set => "SET, 50 clients, -P 1",
            Self::SetPipelined => "SET, 50 clients, -P 16",
            Self::SetAlone => "SET, 1 client",
        })
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The product.
    Freshet,
    /// Redis without persistence and without anything in front.
    Redis,
    /// twemproxy in front of that Redis.
    Twemproxy,
    /// HAProxy in TCP mode in front of that Redis.
    Haproxy,
    /// Redis that syncs its append-only file at every write.
    RedisSynced,
    /// Prepared single-row upserts by pgbench.
    Pgbench,
    /// An application that writes to PostgreSQL, then to Redis.
    DualWrite,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Freshet => "Freshet",
            Self::Redis => "Redis, direct",
            Self::Twemproxy => "twemproxy",
            Self::Haproxy => "HAProxy (TCP)",
            Self::RedisSynced => "Redis, appendfsync always",
            Self::Pgbench => "PostgreSQL upsert (pgbench)",
            Self::DualWrite => "own dual write (SQL, then SET)",
        })
    }
}

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests per second.
    pub rate: f64,
    /// Mean latency in milliseconds.
    pub mean: f64,
    /// Median latency in milliseconds.
    pub p50: f64,
    /// 99th percentile of the latency in milliseconds.
    pub p99: f64,
}

/// All samples, by round.
#[derive(Default)]
pub struct Results(BTreeMap<(Work, Who), BTreeMap<usize, Sample>>);

impl Results {
    /// Adds what `who` reached in `round`.
    pub fn add(&mut self, round: usize, work: Work, who: Who, sample: Sample) {
        println!(
            "  {work:<28} {who:<32} {:>11.0}/s  p50 {:.3} ms",
            sample.rate, sample.p50
        );
        self.0.entry((work, who)).or_default().insert(round, sample);
    }

    /// Who took part in `work`.
    pub fn contestants(&self, work: Work) -> impl Iterator<Item = Who> + '_ {
        self.0
            .keys()
            .filter(move |(this, _)| *this == work)
            .map(|(_, who)| *who)
    }

    /// The spread of one number over all rounds.
    pub fn spread(&self, work: Work, who: Who, of: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.0.get(&(work, who))?.values().map(of).collect())
    }

    /// The spread of the ratio of two contestants, each taken within one round.
    fn ratio(&self, work: Work, pair: (Who, Who), of: fn(&Sample) -> f64) -> Option<Spread> {
        let above = self.0.get(&(work, pair.0))?;
        let below = self.0.get(&(work, pair.1))?;
        Spread::of(
            above
                .iter()
                .filter_map(|(round, sample)| Some(of(sample) / of(below.get(round)?)))
                .collect(),
        )
    }
}

/// The middle and the ends of some numbers.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of these numbers; of none if there are none.
    pub fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (*numbers.first()?, *numbers.last()?);
        let middle = numbers.len() / 2;
        let median = if numbers.len() % 2 == 1 {
            numbers[middle]
        } else {
            f64::midpoint(numbers[middle - 1], numbers[middle])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

/// The medians of all that was measured.
pub fn table(results: &Results) -> String {
    let mut text = format!(
        "| {:<28} | {:<32} | {:>9} | {:>21} | {:>8} | {:>8} | {:>8} |\n",
        "work", "who", "per s", "least to most", "mean ms", "p50 ms", "p99 ms"
    );
    text += &format!(
        "| {:-<28} | {:-<32} | {:->8}: | {:->20}: | {:->7}: | {:->7}: | {:->7}: |\n",
        "", "", "", "", "", "", ""
    );
    for work in Work::ALL {
        for who in results.contestants(work) {
            let median = |of| results.spread(work, who, of).map_or(0.0, |s| s.median);
            let Some(rate) = results.spread(work, who, |sample| sample.rate) else {
                continue;
            };
            let range = format!("{:.0} to {:.0}", rate.least, rate.most);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {work:<28} | {who:<32} | {:>9.0} | {range:>21} | {:>8.3} | {:>8.3} | {:>8.3} |",
                rate.median,
                median(|sample| sample.mean),
                median(|sample| sample.p50),
                median(|sample| sample.p99),
            );
        }
    }
    text
}

/// Which way is better.
#[derive(Clone, Copy)]
enum Goal {
    AtLeast,
    AtMost,
    Above,
}

struct Target {
    what: &'static str,
    goal: Goal,
    bound: f64,
    unit: &'static str,
    measured: Option<Spread>,
}

impl Target {
    fn line(&self) -> String {
        let goal = match self.goal {
            Goal::AtLeast => "at least",
            Goal::AtMost => "at most",
            Goal::Above => "above",
        };
        let target = format!("{goal} {} {}", self.bound, self.unit);
        let (measured, verdict) = self.measured.map_or_else(
            || ("not measured".to_owned(), "-"),
            |spread| {
                let met = match self.goal {
                    Goal::AtLeast => spread.median >= self.bound,
                    Goal::AtMost => spread.median <= self.bound,
                    Goal::Above => spread.median > self.bound,
                };
                let measured = format!(
                    "{:.2} ({:.2} to {:.2})",
                    spread.median, spread.least, spread.most
                );
                (measured, if met { "met" } else { "MISSED" })
            },
        );
        format!(
            "| {:<44} | {target:<22} | {measured:<28} | {verdict:<6} |\n",
            self.what
        )
    }
}

/// Each target beside what was measured.
pub fn targets(results: &Results, footprint: &Footprint) -> String {
    let mut text = format!(
        "| {:<44} | {:<22} | {:<28} | {:<6} |\n| {:-<44} | {:-<22} | {:-<28} | {:-<6} |\n",
        "target", "bound", "measured: median (range)", "", "", "", "", ""
    );
    for target in speed_targets(results)
        .into_iter()
        .chain(footprint_targets(footprint))
    {
        text += &target.line();
    }
    text
}

/// A bound on a ratio of throughputs: what, work, beside whom, goal, bound.
type RateBound = (&'static str, Work, Who, Goal, f64);

const RATE_BOUNDS: [RateBound; 8] = {
    use Goal::{Above, AtLeast};
    use Who::{DualWrite, Pgbench, Redis, Twemproxy};
    use Work::{Get, GetPipelined, Set, SetPipelined};
    [
        ("GET hit, -P 1, of direct Redis", Get, Redis, AtLeast, 0.85),
        ("GET hit, -P 1, of twemproxy", Get, Twemproxy, Above, 1.0),
        (
            "GET hit, -P 16, of direct Redis",
            GetPipelined,
            Redis,
            AtLeast,
            0.55,
        ),
        (
            "GET hit, -P 16, of twemproxy",
            GetPipelined,
            Twemproxy,
            Above,
            1.0,
        ),
        ("SET, -P 1, of pgbench upserts", Set, Pgbench, AtLeast, 2.5),
        (
            "SET, -P 16, of pgbench upserts",
            SetPipelined,
            Pgbench,
            AtLeast,
            5.0,
        ),
        ("SET, -P 1, of the dual write", Set, DualWrite, Above, 1.0),
        (
            "SET, -P 16, of the dual write",
            SetPipelined,
            DualWrite,
            Above,
            1.0,
        ),
    ]
};

fn speed_targets(results: &Results) -> Vec<Target> {
    let latency = |what, of: fn(&Sample) -> f64| Target {
        what,
        goal: Goal::AtMost,
        bound: 1.6,
        unit: "x",
        measured: results.ratio(Work::SetAlone, (Who::Freshet, Who::Pgbench), of),
    };
    let mut targets: Vec<Target> = RATE_BOUNDS
        .into_iter()
        .map(|(what, work, peer, goal, bound)| Target {
            what,
            goal,
            bound,
            unit: "x",
            measured: results.ratio(work, (Who::Freshet, peer), |sample| sample.rate),
        })
        .collect();
    targets.push(latency(
        "SET, 1 client: mean latency, of pgbench",
        |s: &Sample| s.mean,
    ));
    targets.push(latency(
        "SET, 1 client: p50 latency, of pgbench",
        |s: &Sample| s.p50,
    ));
    targets
}

fn footprint_targets(footprint: &Footprint) -> Vec<Target> {
    let rows = [
        (
            "memory per idle connection, 10,000 of them",
            20.0,
            "KB",
            footprint.kilobytes_per_connection.clone(),
        ),
        (
            "cache memory per key beyond plain Redis",
            120.0,
            "bytes",
            footprint.cache_bytes_per_key.clone(),
        ),
        (
            "start of serve to the first SET",
            1.0,
            "s",
            footprint.seconds_to_ready.clone(),
        ),
    ];
    rows.into_iter()
        .map(|(what, bound, unit, numbers)| Target {
            what,
            goal: Goal::AtMost,
            bound,
            unit,
            measured: Spread::of(numbers),
        })
        .collect()
}
