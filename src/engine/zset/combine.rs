//! Unions, intersections and differences, of sorted sets and of sets.

use ahash::{AHashMap, AHashSet};
use bytes::Bytes;

use super::members::{Shown, built};
use super::range::store;
use crate::command::{Call, args};
use crate::engine::dispatch::Run;
use crate::engine::{Need, Needs, Refusal, double};
use crate::model::{Collection, Db, Kind, NotLoaded, Ranked, Reply};

/// Which operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Inter,
    Diff,
}

/// What becomes of the result, and so which options there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Replied,
    Stored,
    Counted,
}

impl Use {
    /// Index of the number of keys.
    fn number_at(self) -> usize {
        match self {
            Self::Stored => 2,
            Self::Replied | Self::Counted => 1,
        }
    }
}

/// How the scores of one member in several sets become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            // Of two infinities that cancel out, Redis makes 0.
            Self::Sum => no_nan(one + other),
            Self::Min if other < one => other,
            Self::Max if other > one => other,
            Self::Min | Self::Max => one,
        }
    }
}

/// `0 * inf` counts as 0.
fn no_nan(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    shown: Shown,
    /// Of `ZINTERCARD`: where it stops counting; 0 is never.
    limit: usize,
}

impl Options {
    /// What stands behind `keys` keys.
    fn read(run: &Run<'_>, operation: Operation, usage: Use, keys: usize) -> Result<Self, Refusal> {
        let mut options = Self {
            weights: vec![1.0; keys],
            aggregate: Aggregate::Sum,
            shown: Shown::Members,
            limit: 0,
        };
        let has_scores = operation != Operation::Diff && usage != Use::Counted;
        let mut index = usage.number_at() + 1 + keys;
        while index < run.len() {
            let behind = run.len() - index - 1;
            if has_scores && behind >= keys && run.is(index, "WEIGHTS") {
                for (place, weight) in options.weights.iter_mut().enumerate() {
                    *weight = double::score(run.arg(index + 1 + place))
                        .ok_or(Refusal::Other("ERR weight value is not a float"))?;
                }
                index += keys;
            } else if has_scores && behind >= 1 && run.is(index, "AGGREGATE") {
                index += 1;
                options.aggregate = aggregate(run, index)?;
            } else if usage == Use::Replied && run.is(index, "WITHSCORES") {
                options.shown = Shown::WithScores;
            } else if usage == Use::Counted && behind >= 1 && run.is(index, "LIMIT") {
                index += 1;
                let limit = args::integer(run.arg(index)).and_then(|n| usize::try_from(n).ok());
                options.limit = limit.ok_or(Refusal::Other("ERR LIMIT can't be negative"))?;
            } else {
                return Err(Refusal::Syntax);
            }
            index += 1;
        }
        Ok(options)
    }
}

fn aggregate(run: &Run<'_>, index: usize) -> Result<Aggregate, Refusal> {
    let words = [
        ("SUM", Aggregate::Sum),
        ("MIN", Aggregate::Min),
        ("MAX", Aggregate::Max),
    ];
    let found = words.iter().find(|(word, _)| run.is(index, word));
    found.map(|(_, it)| *it).ok_or(Refusal::Syntax)
}

/// One of the sets that are combined.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// A set, or a sorted one; nothing where the key is not there.
    elements: Option<&'a Collection>,
    weight: f64,
}

impl<'a> Source<'a> {
    fn len(&self) -> u64 {
        self.elements.map_or(0, Collection::len)
    }

    /// Its members with their scores, without weight.
    fn members(&self) -> Result<Vec<(&'a Bytes, f64)>, NotLoaded> {
        let Some(collection) = self.elements else {
            return Ok(Vec::new());
        };
        let members = collection.iter()?;
        Ok(members
            .map(|(field, e)| (field, score(collection, e.rank)))
            .collect())
    }

    fn score_of(&self, member: &[u8]) -> Result<Option<f64>, NotLoaded> {
        let Some(collection) = self.elements else {
            return Ok(None);
        };
        let found = collection.get(member)?;
        Ok(found.map(|element| score(collection, element.rank)))
    }
}

/// A member of a plain set counts as if its score were 1.
fn score(collection: &Collection, rank: f64) -> f64 {
    match collection.kind() {
        Kind::SortedSet => rank,
        _ => 1.0,
    }
}

/// Adds up by the smallest first, as Redis does: sums of floating-point numbers
/// depend on the order.
fn smallest_first<'a>(sources: &[Source<'a>]) -> Vec<Source<'a>> {
    let mut sorted = sources.to_vec();
    sorted.sort_by_key(Source::len);
    sorted
}

fn union(sources: &[Source<'_>], by: Aggregate) -> Result<Vec<(Bytes, f64)>, NotLoaded> {
    let mut all: AHashMap<&Bytes, f64> = AHashMap::new();
    for source in smallest_first(sources) {
        for (member, score) in source.members()? {
            let score = no_nan(score * source.weight);
            all.entry(member)
                .and_modify(|sum| *sum = by.of(*sum, score))
                .or_insert(score);
        }
    }
    let all = all.into_iter();
    Ok(all.map(|(member, score)| (member.clone(), score)).collect())
}

/// At most `limit` members, if that is not 0.
fn inter(
    sources: &[Source<'_>],
    by: Aggregate,
    limit: usize,
) -> Result<Vec<(Bytes, f64)>, NotLoaded> {
    let sorted = smallest_first(sources);
    let Some((first, others)) = sorted.split_first() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    'members: for (member, score) in first.members()? {
        let mut sum = no_nan(score * first.weight);
        for other in others {
            match other.score_of(member)? {
                Some(score) => sum = by.of(sum, score * other.weight),
                None => continue 'members,
            }
        }
        found.push((member.clone(), sum));
        if found.len() == limit {
            break;
        }
    }
    Ok(found)
}

fn diff(sources: &[Source<'_>]) -> Result<Vec<(Bytes, f64)>, NotLoaded> {
    let Some((first, others)) = sources.split_first() else {
        return Ok(Vec::new());
    };
    let mut gone: AHashSet<&Bytes> = AHashSet::new();
    for other in others {
        gone.extend(other.members()?.into_iter().map(|(member, _)| member));
    }
    let left = first.members()?.into_iter();
    let left = left.filter(|(member, _)| !gone.contains(member));
    Ok(left
        .map(|(member, score)| (member.clone(), score))
        .collect())
}

/// All of every set.
pub(super) fn needs(call: &Call, db: Db) -> Needs {
    call.keys(db).map(|key| (key, Need::value())).collect()
}

/// The target's header, and all of every set.
pub(super) fn needs_of_store(call: &Call, db: Db) -> Needs {
    let mut needs = needs(call, db);
    if let Some((_, need)) = needs.first_mut() {
        *need = Need::header();
    }
    needs
}

fn number_of_keys(run: &Run<'_>, usage: Use) -> Result<usize, Refusal> {
    let number_at = usage.number_at();
    let number = run.integer(number_at)?;
    if number < 1 {
        let name = run.call.command.name.to_ascii_lowercase();
        let text = format!("ERR at least 1 input key is needed for '{name}' command");
        return Err(Refusal::Quoted(text.into()));
    }
    let number = usize::try_from(number).ok();
    let number = number.filter(|number| *number < run.len() - number_at);
    number.ok_or(Refusal::Syntax)
}

struct Combined {
    members: Vec<(Bytes, f64)>,
    shown: Shown,
}

fn combined(run: &Run<'_>, operation: Operation, usage: Use) -> Result<Combined, Refusal> {
    let count = number_of_keys(run, usage)?;
    let keys = (usage.number_at() + 1..).take(count);
    let mut sources = Vec::new();
    for index in keys {
        let elements = match run.live(&run.key(index))? {
            Some(live) if live.kind == Kind::Set => Some(live.collection(Kind::Set)?),
            Some(live) => Some(live.collection(Kind::SortedSet)?),
            None => None,
        };
        sources.push(Source {
            elements,
            weight: 1.0,
        });
    }
    let options = Options::read(run, operation, usage, count)?;
    for (source, weight) in sources.iter_mut().zip(options.weights) {
        source.weight = weight;
    }
    let members = match operation {
        Operation::Union => union(&sources, options.aggregate)?,
        Operation::Inter => inter(&sources, options.aggregate, options.limit)?,
        Operation::Diff => diff(&sources)?,
    };
    Ok(Combined {
        members,
        shown: options.shown,
    })
}

fn replied(run: &Run<'_>, operation: Operation) -> Result<Reply, Refusal> {
    let Combined { members, shown } = combined(run, operation, Use::Replied)?;
    let ranked = members
        .into_iter()
        .map(|(field, rank)| Ranked { rank, field });
    let mut ranked: Vec<Ranked> = ranked.collect();
    ranked.sort_unstable();
    Ok(shown.reply(&ranked))
}

fn stored(run: &mut Run<'_>, operation: Operation) -> Result<Reply, Refusal> {
    let result = combined(run, operation, Use::Stored)?;
    store(run, built(result.members)?)
}

pub(super) fn zunion(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    replied(run, Operation::Union)
}

pub(super) fn zinter(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    replied(run, Operation::Inter)
}

pub(super) fn zdiff(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    replied(run, Operation::Diff)
}

pub(super) fn zintercard(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let found = combined(run, Operation::Inter, Use::Counted)?;
    Ok(Reply::Integer(found.members.len() as i64))
}

pub(super) fn zunionstore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    stored(run, Operation::Union)
}

pub(super) fn zinterstore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    stored(run, Operation::Inter)
}

pub(super) fn zdiffstore(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    stored(run, Operation::Diff)
}

#[cfg(test)]
mod tests {
    use crate::engine::dispatch::testing::Session;

    #[test]
    fn sets_are_combined() {
        let mut s = Session::default();
        s.text("ZADD x 1 a 2 b 3 c");
        s.text("ZADD y 10 b 20 c 30 d");
        for (line, reply) in [
            ("ZUNION 2 x y", "[\"a\" \"b\" \"c\" \"d\"]"),
            ("ZINTER 2 x y WEIGHTS 2 -1", "[\"c\" \"b\"]"),
            ("ZDIFF 2 x y", "[\"a\"]"),
            ("ZINTERCARD 2 x y", ":2"),
            ("ZINTERCARD 2 x y LIMIT 1", ":1"),
            ("ZUNIONSTORE t 2 x y AGGREGATE MAX", ":4"),
            ("ZMSCORE t a b d", "[Double(1.0) Double(10.0) Double(30.0)]"),
            ("ZINTERSTORE t 2 t none", ":0"),
            ("EXISTS t", ":0"),
            ("ZDIFFSTORE x 2 x y", ":1"),
            ("ZRANGE x 0 -1", "[\"a\"]"),
            ("ZADD i inf a", ":1"),
            ("ZADD j -inf a", ":1"),
            ("ZUNIONSTORE t 2 i j", ":1"),
            ("ZSCORE t a", "Double(0.0)"),
            (
                "ZUNION 0 x",
                "-ERR at least 1 input key is needed for 'zunion' command",
            ),
            ("ZUNION 2 x", "-ERR syntax error"),
            ("ZDIFF 1 x WEIGHTS 1", "-ERR syntax error"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}
