//! `ZADD`, `ZINCRBY`, and the rules that `GEOADD` shares with them.

use ahash::AHashMap;
use bytes::Bytes;

use super::members::put;
use crate::command::{Call, args};
use crate::engine::dispatch::Run;
use crate::engine::{Need, Needs, Refusal, double};
use crate::model::{Db, Kind, Reply, Request};

/// The options of `ZADD`.
const OPTIONS: &[&str] = &["NX", "XX", "CH", "INCR", "GT", "LT"];

/// The words of `options` that stand at the start of the arguments behind the key,
/// and the index of the first argument behind them.
pub(in crate::engine) fn given(
    request: &Request,
    options: &'static [&'static str],
) -> (Vec<&'static str>, usize) {
    let mut found = Vec::new();
    for index in 2..request.len() {
        let arg = request.arg(index);
        match options.iter().find(|word| args::is_word(arg, word)) {
            Some(word) => found.push(*word),
            None => return (found, index),
        }
    }
    (found, request.len())
}

/// Which members are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Only {
    All,
    /// `NX`
    New,
    /// `XX`
    Existing,
}

/// Which existing members are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Any,
    /// `GT`
    Greater,
    /// `LT`
    Less,
}

/// What is done with the number given for a member, and so what is replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    Score(Counted),
    /// `INCR`
    Increment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Added,
    /// `CH`
    Changed,
}

/// What `ZADD` was told by its options.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Rules {
    only: Only,
    compared: Compared,
    given: Given,
}

/// What became of one member.
enum Outcome {
    /// The rules leave it as it is, or absent.
    Left,
    Added(f64),
    /// Its score, which may be the one it had.
    Scored(f64),
}

impl Rules {
    /// The rules that these options make.
    pub fn of(words: &[&str]) -> Result<Self, Refusal> {
        let has = |word| words.contains(&word);
        if has("NX") && has("XX") {
            return Err(Refusal::Other(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if has("GT") && has("NX") || has("LT") && has("NX") || has("GT") && has("LT") {
            return Err(Refusal::Other(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        let counted = if has("CH") {
            Counted::Changed
        } else {
            Counted::Added
        };
        Ok(Self {
            only: match (has("NX"), has("XX")) {
                (true, _) => Only::New,
                (_, true) => Only::Existing,
                _ => Only::All,
            },
            compared: match (has("GT"), has("LT")) {
                (true, _) => Compared::Greater,
                (_, true) => Compared::Less,
                _ => Compared::Any,
            },
            given: if has("INCR") {
                Given::Increment
            } else {
                Given::Score(counted)
            },
        })
    }

    fn outcome(&self, before: Option<f64>, given: f64) -> Result<Outcome, Refusal> {
        let Some(before) = before else {
            return Ok(match self.only {
                Only::Existing => Outcome::Left,
                Only::All | Only::New => Outcome::Added(given),
            });
        };
        if self.only == Only::New {
            return Ok(Outcome::Left);
        }
        let score = match self.given {
            Given::Increment => before + given,
            Given::Score(_) => given,
        };
        if score.is_nan() {
            return Err(Refusal::Other("ERR resulting score is not a number (NaN)"));
        }
        let is_left = match self.compared {
            Compared::Any => false,
            Compared::Greater => score <= before,
            Compared::Less => score >= before,
        };
        Ok(if is_left {
            Outcome::Left
        } else {
            Outcome::Scored(score)
        })
    }
}

/// The members stand behind the options at every other place.
pub(super) fn needs(call: &Call, db: Db) -> Needs {
    let (_, first) = given(&call.request, OPTIONS);
    let members = (first + 1..call.request.len()).step_by(2);
    let need = Need::fields(members.map(|index| call.request.arg_bytes(index)));
    call.keys(db).map(|key| (key, need.clone())).collect()
}

pub(super) fn needs_of_increment(call: &Call, db: Db) -> Needs {
    let need = Need::fields([call.request.arg_bytes(3)]);
    call.keys(db).map(|key| (key, need.clone())).collect()
}

pub(super) fn zadd(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (words, first) = given(&run.call.request, OPTIONS);
    let count = run.len() - first;
    if count == 0 || count % 2 == 1 {
        return Err(Refusal::Syntax);
    }
    let rules = Rules::of(&words)?;
    if rules.given == Given::Increment && count > 2 {
        return Err(Refusal::Other(
            "ERR INCR option supports a single increment-element pair",
        ));
    }
    let scored = (first..run.len()).step_by(2).map(|index| {
        let score = double::score(run.arg(index)).ok_or(Refusal::NotFloat)?;
        Ok((run.arg_bytes(index + 1), score))
    });
    let scored = scored.collect::<Result<Vec<_>, Refusal>>()?;
    add(run, &rules, scored)
}

pub(super) fn zincrby(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let rules = Rules {
        only: Only::All,
        compared: Compared::Any,
        given: Given::Increment,
    };
    let increment = double::score(run.arg(2)).ok_or(Refusal::NotFloat)?;
    let scored = vec![(run.arg_bytes(3), increment)];
    add(run, &rules, scored)
}

/// Adds these members to the set at the first argument, one after the other.
pub(in crate::engine) fn add(
    run: &mut Run<'_>,
    rules: &Rules,
    scored: Vec<(Bytes, f64)>,
) -> Result<Reply, Refusal> {
    let zset = run.collection(&run.key(1), Kind::SortedSet)?;
    // Scores given by this very call: a member may be named twice.
    let mut now: AHashMap<Bytes, f64> = AHashMap::new();
    let mut changes = Vec::new();
    let (mut added, mut updated, mut last) = (0, 0, None);
    for (member, number) in scored {
        let held = match zset {
            Some(zset) => zset.get(&member)?.map(|element| element.rank),
            None => None,
        };
        let before = now.get(&member).copied().or(held);
        let score = match rules.outcome(before, number)? {
            Outcome::Left => continue,
            Outcome::Added(score) => {
                added += 1;
                score
            }
            Outcome::Scored(score) => {
                updated += i64::from(before != Some(score));
                score
            }
        };
        last = Some(score);
        if before != Some(score) {
            now.insert(member.clone(), score);
            changes.push((member, score));
        }
    }
    if !changes.is_empty() {
        run.edit(1, Kind::SortedSet, |zset| {
            for (member, score) in changes {
                put(zset, member, score)?;
            }
            Ok(())
        })?;
    }
    Ok(match rules.given {
        Given::Increment => last.map_or(Reply::Null, Reply::Double),
        Given::Score(Counted::Added) => Reply::Integer(added),
        Given::Score(Counted::Changed) => Reply::Integer(added + updated),
    })
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;
    use crate::model::Effect;

    #[test]
    fn members_are_added_by_the_rules() {
        let mut s = Session::default();
        for (line, reply) in [
            ("ZADD z 1 a 2 b 3 a", ":2"),
            ("ZSCORE z a", "Double(3.0)"),
            ("ZADD z XX CH 4 a 5 c", ":1"),
            ("ZADD z NX CH 9 a 5 c", ":1"),
            ("ZADD z GT CH 3 a 6 c", ":1"),
            ("ZADD z LT INCR 1 a", "nil"),
            ("ZADD z INCR 1 a", "Double(5.0)"),
            ("ZINCRBY z 0 a", "Double(5.0)"),
            ("ZADD new XX 1 a", ":0"),
            ("EXISTS new", ":0"),
            ("ZADD z 1 a x b", "-ERR value is not a valid float"),
            ("ZADD z inf i", ":1"),
            (
                "ZINCRBY z -inf i",
                "-ERR resulting score is not a number (NaN)",
            ),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn what_changes_nothing_is_no_change() {
        let mut s = Session::default();
        s.text("ZADD z 1 a");
        for line in [
            "ZADD z 1 a",
            "ZADD z NX 2 a",
            "ZINCRBY z 0 a",
            "ZADD z XX 1 b",
        ] {
            s.text(line);
            assert!(s.effects.is_empty(), "{line}");
        }
        s.text("ZADD z 2 a");
        assert!(s.effects.values().all(|e| matches!(e, Effect::Delta(_))));
    }

    #[test]
    fn negative_zero_is_kept_by_a_skip_list_only() {
        let mut s = Session::default();
        let long = "m".repeat(65);
        s.text("ZADD small -0 a");
        s.text(&format!("ZADD big 1 {long} -0 a"));
        assert_eq!(s.text("ZSCORE small a"), "Double(0.0)");
        assert_eq!(s.text("ZSCORE big a"), "Double(-0.0)");
        s.text(&format!("ZREM big {long}"));
        s.text("ZADD big -0 b");
        assert_eq!(s.text("ZSCORE big b"), "Double(-0.0)");
    }
}
