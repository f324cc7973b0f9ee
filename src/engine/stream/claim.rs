//! `XCLAIM` and `XAUTOCLAIM`: pending entries change hands.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::dispatch::{Family, Run};
use super::super::{Need, Needs, Refusal};
use super::deliver::hold;
use super::entry;
use super::groups::acknowledge;
use super::id::Id;
use super::rebuild::set_group_id;
use super::state::{self, Group, Pending};
use super::{first_key, no_key_or_group, quoted};
use crate::command::{Call, args};
use crate::model::{Collection, Db, Kind, NotLoaded, Reply};

pub(in super::super) const COMMANDS: &[Family] = &[
    Family::new("XCLAIM", claim_needs, xclaim),
    Family::new("XAUTOCLAIM", autoclaim_needs, xautoclaim),
];

/// For each entry that `XAUTOCLAIM` may claim it looks at so many.
const ATTEMPTS: u64 = 10;
/// How many entries `XAUTOCLAIM` claims at most, unless `COUNT` says otherwise.
const COUNT_DEFAULT: u64 = 100;

/// What of the claimed entries is replied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Entries,
    /// `JUSTID`; then a claim does not count as a delivery either.
    Ids,
}

/// What becomes of entries that are not pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotPending {
    Left,
    /// `FORCE`.
    Claimed,
}

/// What a claim asks for.
struct Terms {
    group: Bytes,
    consumer: Bytes,
    idle_min: i64,
    now_ms: i64,
    delivered: i64,
    count: Option<u64>,
    not_pending: NotPending,
    shown: Shown,
}

/// What a claim does.
#[derive(Default)]
struct Claims {
    /// Entries that change hands, as they are held from now on.
    held: BTreeMap<Id, Pending>,
    /// Pending entries that are gone from the stream.
    gone: Vec<Id>,
    reply: Vec<Reply>,
}

impl Terms {
    fn new(run: &Run<'_>, idle_min: i64) -> Self {
        Self {
            group: run.arg_bytes(2),
            consumer: run.arg_bytes(3),
            idle_min: idle_min.max(0),
            now_ms: run.now.0,
            delivered: run.now.0,
            count: None,
            not_pending: NotPending::Left,
            shown: Shown::Entries,
        }
    }

    fn is_idle(&self, held: &Pending) -> bool {
        self.idle_min == 0 || self.now_ms.saturating_sub(held.delivered) >= self.idle_min
    }

    fn claimed(&self, count_before: u64) -> Pending {
        let count = match (self.count, self.shown) {
            (Some(count), _) => count,
            (None, Shown::Ids) => count_before,
            (None, Shown::Entries) => count_before.wrapping_add(1),
        };
        Pending {
            delivered: self.delivered,
            count,
            consumer: self.consumer.clone(),
        }
    }

    /// Claims the entry `id`, if it may be claimed. Whether it is still in the stream.
    fn claim(&self, stream: &Collection, id: Id, claims: &mut Claims) -> Result<bool, NotLoaded> {
        let held = match claims.held.get(&id) {
            Some(held) => Some(held.clone()),
            None if claims.gone.contains(&id) => None,
            None => Pending::load(stream, &self.group, id)?,
        };
        let Some(element) = stream.get(&id.field())? else {
            if held.is_some() {
                claims.gone.push(id);
            }
            return Ok(false);
        };
        let count = match (&held, self.not_pending) {
            (Some(held), _) if !self.is_idle(held) => return Ok(true),
            (Some(held), _) => held.count,
            (None, NotPending::Left) => return Ok(true),
            // As if it had been delivered once before.
            (None, NotPending::Claimed) => 1,
        };
        claims.held.insert(id, self.claimed(count));
        claims.reply.push(match self.shown {
            Shown::Ids => id.reply(),
            Shown::Entries => entry::reply(id, element),
        });
        Ok(true)
    }

    fn apply(&self, stream: &mut Collection, claims: &Claims) -> Result<(), NotLoaded> {
        if !claims.gone.is_empty() {
            acknowledge(stream, &self.group, &claims.gone)?;
        }
        if !claims.held.is_empty() {
            state::see(stream, &self.group, &self.consumer, self.now_ms)?;
            let held: Vec<(Id, Pending)> = claims
                .held
                .iter()
                .map(|(id, held)| (*id, held.clone()))
                .collect();
            hold(stream, &self.group, None, &held)?;
        }
        Ok(())
    }
}

fn claim_needs(call: &Call, db: Db) -> Needs {
    let (group, consumer) = (call.request.arg(2), call.request.arg(3));
    let ids = (5..call.request.len())
        .map_while(|index| Id::parse_strict(call.request.arg(index), 0).ok())
        .flat_map(|id| [id.field(), state::pending_field(group, id)]);
    let mut need = Need::fields(ids);
    need.fields.insert(state::group_field(group));
    need.fields.insert(state::consumer_field(group, consumer));
    Needs::from_iter([(first_key(call, db), need)])
}

/// The group that the call names, which has to be there, and its stream.
fn stream_and_group<'a>(run: &'a Run<'_>) -> Result<(&'a Collection, Group), Refusal> {
    let stream = run.collection(&run.key(1), Kind::Stream)?;
    let stream = stream.ok_or_else(|| no_key_or_group(run))?;
    let group = Group::load(stream, run.arg(2))?;
    Ok((stream, group.ok_or_else(|| no_key_or_group(run))?))
}

fn xclaim(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (stream, before) = stream_and_group(run)?;
    let idle_min = args::integer(run.arg(4)).ok_or(Refusal::Other(
        "ERR Invalid min-idle-time argument for XCLAIM",
    ))?;
    let mut terms = Terms::new(run, idle_min);
    let ids: Vec<Id> = (5..run.len())
        .map_while(|index| Id::parse_strict(run.arg(index), 0).ok())
        .collect();
    let last = claim_options(run, 5 + ids.len(), &mut terms)?;
    let mut group = before;
    group.last = group.last.max(last);
    let mut claims = Claims::default();
    for id in ids {
        terms.claim(stream, id, &mut claims)?;
    }
    if !claims.held.is_empty() {
        state::seen(stream, &terms.group, &terms.consumer)?;
    }
    if group != before || !claims.held.is_empty() || !claims.gone.is_empty() {
        run.edit(1, Kind::Stream, |stream| {
            if group != before {
                group.store(stream, &terms.group)?;
                stream.log(set_group_id(&terms.group, &group));
            }
            Ok(terms.apply(stream, &claims)?)
        })?;
    }
    Ok(Reply::Array(claims.reply))
}

/// Reads the options of `XCLAIM` from argument `index` on; returns `LASTID`.
fn claim_options(run: &Run<'_>, mut index: usize, terms: &mut Terms) -> Result<Id, Refusal> {
    let mut last = Id::MIN;
    let number = |index: usize, wrong: &'static str| {
        args::integer(run.arg(index)).ok_or(Refusal::Other(wrong))
    };
    let mut delivered = None;
    while index < run.len() {
        let has_more = index + 1 < run.len();
        let value = index + 1;
        index += 2;
        if run.is(value - 1, "FORCE") {
            terms.not_pending = NotPending::Claimed;
            index = value;
        } else if run.is(value - 1, "JUSTID") {
            terms.shown = Shown::Ids;
            index = value;
        } else if run.is(value - 1, "IDLE") && has_more {
            let idle = number(value, "ERR Invalid IDLE option argument for XCLAIM")?;
            delivered = Some(terms.now_ms.wrapping_sub(idle));
        } else if run.is(value - 1, "TIME") && has_more {
            delivered = Some(number(
                value,
                "ERR Invalid TIME option argument for XCLAIM",
            )?);
        } else if run.is(value - 1, "RETRYCOUNT") && has_more {
            let wrong = "ERR Invalid RETRYCOUNT option argument for XCLAIM";
            terms.count = u64::try_from(number(value, wrong)?).ok();
        } else if run.is(value - 1, "LASTID") && has_more {
            last = Id::parse_strict(run.arg(value), 0)?;
        } else {
            let word = run.arg(value - 1);
            let before = b"ERR Unrecognized XCLAIM option '";
            return Err(quoted([before, word, b"'", b"", b""]));
        }
    }
    // A time that cannot be is taken for now, as in Redis.
    let delivered = delivered.filter(|time| (0..=terms.now_ms).contains(time));
    terms.delivered = delivered.unwrap_or(terms.now_ms);
    Ok(last)
}

/// The pending entries that it looks at, and one more. Which entries of the stream these
/// are is asked for when they are known.
fn autoclaim_needs(call: &Call, db: Db) -> Needs {
    let (group, consumer) = (call.request.arg(2), call.request.arg(3));
    let start = Id::parse_start(call.request.arg(5)).unwrap_or_default();
    let count = (6..call.request.len().saturating_sub(1))
        .find(|index| args::is_word(call.request.arg(*index), "COUNT"))
        .and_then(|index| args::integer(call.request.arg(index + 1)))
        .map_or(COUNT_DEFAULT, |count| count.max(0).unsigned_abs());
    let mut need = state::pending_need(group, start, looked_at(count));
    need.fields.insert(state::group_field(group));
    need.fields.insert(state::consumer_field(group, consumer));
    Needs::from_iter([(first_key(call, db), need)])
}

/// How many pending entries are looked at to claim so many, with the one that is next.
fn looked_at(count: u64) -> u64 {
    count.saturating_mul(ATTEMPTS).saturating_add(1)
}

fn xautoclaim(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let idle_min = args::integer(run.arg(4)).ok_or(Refusal::Other(
        "ERR Invalid min-idle-time argument for XAUTOCLAIM",
    ))?;
    let start = Id::parse_start(run.arg(5))?;
    let mut terms = Terms::new(run, idle_min);
    let count_max = autoclaim_options(run, &mut terms)?;
    let (stream, _) = stream_and_group(run)?;
    let all = state::pending_from(stream, &terms.group, start, looked_at(count_max))?;
    let unknown = |(id, _): &&(Id, Pending)| stream.get(&id.field()).is_err();
    let unknown: Vec<Bytes> = all
        .iter()
        .filter(unknown)
        .map(|(id, _)| id.field())
        .collect();
    if !unknown.is_empty() {
        return Err(run.want(1, Need::fields(unknown)));
    }
    let mut waiting = all.iter().map(|(id, _)| *id);
    let (mut count, mut attempts) = (count_max, count_max.saturating_mul(ATTEMPTS));
    let mut claims = Claims::default();
    while count > 0 && attempts > 0 {
        let Some(id) = waiting.next() else {
            break;
        };
        attempts -= 1;
        let before = claims.reply.len();
        let is_there = terms.claim(stream, id, &mut claims)?;
        if !is_there || claims.reply.len() > before {
            count -= 1;
        }
    }
    let next = waiting.next().unwrap_or(Id::MIN);
    if !claims.held.is_empty() || !claims.gone.is_empty() {
        run.edit(1, Kind::Stream, |stream| Ok(terms.apply(stream, &claims)?))?;
    }
    let gone = claims.gone.iter().map(|id| id.reply()).collect();
    Ok(Reply::Array(vec![
        next.reply(),
        Reply::Array(claims.reply),
        Reply::Array(gone),
    ]))
}

/// Reads the options of `XAUTOCLAIM`; returns `COUNT`.
fn autoclaim_options(run: &Run<'_>, terms: &mut Terms) -> Result<u64, Refusal> {
    let mut count = COUNT_DEFAULT;
    let mut index = 6;
    while index < run.len() {
        if run.is(index, "COUNT") && index + 1 < run.len() {
            let given = args::integer(run.arg(index + 1));
            let given = given.filter(|count| (1..=i64::MAX / 16).contains(count));
            let given = given.and_then(|count| u64::try_from(count).ok());
            count = given.ok_or(Refusal::Other("ERR COUNT must be > 0"))?;
            index += 2;
        } else if run.is(index, "JUSTID") {
            terms.shown = Shown::Ids;
            index += 1;
        } else {
            return Err(Refusal::Syntax);
        }
    }
    Ok(count)
}
