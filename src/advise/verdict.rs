//! Which strategy fits what was seen, and why.

use serde::Serialize;

use super::tally::Tally;

/// Additions a second from which on a commit for each is dear.
const MANY_ADDITIONS: f64 = 50.0;
/// Writes a second from which on the time of each counts.
const MANY_WRITES: f64 = 200.0;
/// A life up to which keys are thought to be made anew easily, in seconds.
const SHORT_LIFE: i64 = 3600;

/// What is said of a pattern.
#[derive(Clone, Debug, Serialize)]
pub struct Advice {
    /// The pattern.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Different keys that were seen.
    pub keys: usize,
    /// Commands that read, in a second.
    pub reads_per_second: f64,
    /// Commands that write, in a second.
    pub writes_per_second: f64,
    /// Bytes of a write, on average.
    pub bytes_per_write: u64,
    /// The longest life that was given, in seconds; 0: none was.
    pub life_seconds: i64,
    /// The strategy that fits.
    pub strategy: &'static str,
    /// Why.
    pub reason: String,
}

impl Advice {
    /// On these counts of a sample of so many seconds.
    pub fn on(pattern: String, tally: &Tally, seconds: f64) -> Self {
        let reads = tally.reads as f64 / seconds;
        let writes = tally.writes as f64 / seconds;
        let (strategy, reason) = choose(tally, writes);
        Self {
            pattern,
            keys: tally.keys(),
            reads_per_second: reads,
            writes_per_second: writes,
            bytes_per_write: tally.bytes / tally.writes.max(1),
            life_seconds: tally.life_max,
            strategy,
            reason: reason.to_owned(),
        }
    }
}

fn choose(tally: &Tally, writes: f64) -> (&'static str, &'static str) {
    let additions = tally.additions as f64;
    let only_adds = tally.writes > 0 && additions >= 0.5 * tally.writes as f64;
    let is_short = tally.lives > 0 && tally.life_max <= SHORT_LIFE;
    if tally.coordinations > 0 {
        let why = "queues, locks and scripts rest on it: nothing of it may be lost or seen twice";
        return ("atomic", why);
    }
    if tally.writes == 0 {
        let why = "nobody wrote it in the sample: `read-only` if another program maintains it, \
                   `cdc` if that writes SQL";
        return ("atomic", why);
    }
    if only_adds && is_short {
        let why = "counters of a short life, as of rate limits: they may begin anew";
        return ("cache-only", why);
    }
    if only_adds && writes >= MANY_ADDITIONS {
        let why = "counters that change often: their sums are durable a moment later";
        return ("write-behind", why);
    }
    if is_short && tally.reads >= tally.writes {
        let why = "values of a short life that are read more than written look like results that \
                   can be computed again; if they cannot: `eventual`";
        return ("cache-only", why);
    }
    if tally.lives > 0 || writes >= MANY_WRITES {
        let why = "written often, or for a time: durable, and the time of each write counts";
        return ("eventual", why);
    }
    (
        "atomic",
        "durable data, read by others: never anything older",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_use_has_its_strategy() {
        let tally = |reads, writes, additions, life_max| Tally {
            reads,
            writes,
            additions,
            lives: u64::from(life_max > 0),
            life_max,
            ..Tally::default()
        };
        for (tally, strategy) in [
            (tally(100, 10, 0, 0), "atomic"),
            (tally(100, 0, 0, 0), "atomic"),
            (tally(0, 1000, 1000, 0), "write-behind"),
            (tally(0, 20, 20, 0), "atomic"),
            (tally(0, 1000, 500, 60), "cache-only"),
            (tally(100, 10, 0, 300), "cache-only"),
            (tally(10, 100, 0, 86_400), "eventual"),
            (tally(10, 10_000, 0, 0), "eventual"),
        ] {
            assert_eq!(
                choose(&tally, tally.writes as f64 / 10.0).0,
                strategy,
                "{tally:?}"
            );
        }
        let queue = Tally {
            coordinations: 1,
            ..tally(0, 1000, 1000, 0)
        };
        assert_eq!(choose(&queue, 100.0).0, "atomic");
    }
}
