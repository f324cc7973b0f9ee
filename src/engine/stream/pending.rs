//! `XPENDING`: what was delivered and is not acknowledged.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::dispatch::{Family, Run};
use super::super::{Needs, Refusal};
use super::id::Id;
use super::no_key_or_group;
use super::state::{self, Group, Pending};
use crate::command::Call;
use crate::model::{Db, Kind, Reply};

pub(in super::super) const COMMANDS: &[Family] = &[Family::new("XPENDING", needs, xpending)];

fn needs(call: &Call, db: Db) -> Needs {
    let group = call.request.arg(2);
    let mut need = state::pending_need(group, Id::MIN, u64::MAX);
    need.fields.insert(state::group_field(group));
    Needs::from_iter([(super::first_key(call, db), need)])
}

/// The entries that are asked for one by one.
struct Range {
    idle_min: i64,
    start: Id,
    end: Id,
    count: usize,
    consumer: Option<Bytes>,
}

impl Range {
    /// `None` where only the summary is asked for.
    fn parse(run: &Run<'_>) -> Result<Option<Self>, Refusal> {
        if run.len() == 3 {
            return Ok(None);
        }
        if !(6..=9).contains(&run.len()) {
            return Err(Refusal::Syntax);
        }
        let (mut idle_min, mut at) = (0, 3);
        if run.is(3, "IDLE") {
            idle_min = run.integer(4)?;
            at = 5;
            if run.len() < 8 {
                return Err(Refusal::Syntax);
            }
        }
        let count = usize::try_from(run.integer(at + 2)?).unwrap_or(0);
        Ok(Some(Self {
            idle_min,
            start: Id::parse_start(run.arg(at))?,
            end: Id::parse_end(run.arg(at + 1))?,
            count,
            consumer: (at + 3 < run.len()).then(|| run.arg_bytes(at + 3)),
        }))
    }
}

fn xpending(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let range = Range::parse(run)?;
    let stream = run.collection(&run.key(1), Kind::Stream)?;
    let stream = stream.ok_or_else(|| no_key_or_group(run))?;
    let name = run.arg(2);
    if Group::load(stream, name)?.is_none() {
        return Err(no_key_or_group(run));
    }
    let all = state::pending(stream, name)?;
    Ok(match range {
        None => summary(&all),
        Some(range) => one_by_one(&all, &range, run.now.0),
    })
}

fn summary(all: &[(Id, Pending)]) -> Reply {
    let (Some((first, _)), Some((last, _))) = (all.first(), all.last()) else {
        return Reply::Array(vec![
            Reply::Integer(0),
            Reply::Null,
            Reply::Null,
            Reply::NullArray,
        ]);
    };
    let mut by_consumer: BTreeMap<&Bytes, u64> = BTreeMap::new();
    for (_, held) in all {
        *by_consumer.entry(&held.consumer).or_default() += 1;
    }
    let by_consumer = by_consumer.into_iter().map(|(name, count)| {
        Reply::Array(vec![
            Reply::Bulk(name.clone()),
            Reply::bulk(count.to_string()),
        ])
    });
    Reply::Array(vec![
        Reply::Integer(all.len() as i64),
        first.reply(),
        last.reply(),
        Reply::Array(by_consumer.collect()),
    ])
}

fn one_by_one(all: &[(Id, Pending)], range: &Range, now_ms: i64) -> Reply {
    let idle = |held: &Pending| now_ms.saturating_sub(held.delivered);
    let asked = all
        .iter()
        .filter(|(id, _)| (range.start..=range.end).contains(id))
        .filter(|(_, held)| range.consumer.as_ref().is_none_or(|c| *c == held.consumer))
        .filter(|(_, held)| range.idle_min == 0 || idle(held) >= range.idle_min)
        .take(range.count);
    let items = asked.map(|(id, held)| {
        Reply::Array(vec![
            id.reply(),
            Reply::Bulk(held.consumer.clone()),
            Reply::Integer(idle(held).max(0)),
            Reply::Integer(held.count as i64),
        ])
    });
    Reply::Array(items.collect())
}
