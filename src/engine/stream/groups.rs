//! `XGROUP` and `XACK`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::dispatch::{Family, Run};
use super::super::{Need, Needs, Refusal};
use super::id::Id;
use super::rebuild::{create as create_command, set_group_id};
use super::state::{self, Group, Header};
use super::{first_key, log_ids, no_group, subcommand_syntax, words};
use crate::command::Call;
use crate::model::{Collection, Db, Kind, NotLoaded, Reply};

pub(in super::super) const COMMANDS: &[Family] = &[
    Family::new("XGROUP|CREATE", group_alone, create),
    Family::new("XGROUP|SETID", group_alone, setid),
    Family::new("XGROUP|DESTROY", all_of_group, destroy),
    Family::new("XGROUP|CREATECONSUMER", group_and_consumer, create_consumer),
    Family::new("XGROUP|DELCONSUMER", all_of_group, delete_consumer),
    Family::new("XACK", pending_named, xack),
];

fn group_alone(call: &Call, db: Db) -> Needs {
    let group = state::group_field(call.request.arg(3));
    super::every(call, db, &Need::fields([group]))
}

fn all_of_group(call: &Call, db: Db) -> Needs {
    super::every(call, db, &state::group_need(call.request.arg(3)))
}

fn group_and_consumer(call: &Call, db: Db) -> Needs {
    let group = state::group_field(call.request.arg(3));
    let consumer = state::consumer_field(call.request.arg(3), call.request.arg(4));
    super::every(call, db, &Need::fields([group, consumer]))
}

/// What `XGROUP CREATE` does where the stream is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfAbsent {
    Fail,
    /// `MKSTREAM`.
    Create,
}

/// The options of `CREATE` and `SETID`, from argument 5 on.
struct Options {
    if_absent: IfAbsent,
    read: Option<u64>,
}

impl Options {
    fn parse(run: &Run<'_>) -> Result<Self, Refusal> {
        let is_create = run.call.command.name == "XGROUP|CREATE";
        let mut options = Self {
            if_absent: IfAbsent::Fail,
            read: None,
        };
        let mut index = 5;
        while index < run.len() {
            if is_create && run.is(index, "MKSTREAM") {
                options.if_absent = IfAbsent::Create;
                index += 1;
            } else if run.is(index, "ENTRIESREAD") && index + 1 < run.len() {
                options.read = match run.integer(index + 1)? {
                    -1 => None,
                    read => Some(u64::try_from(read).map_err(|_| {
                        Refusal::Other("ERR value for ENTRIESREAD must be positive or -1")
                    })?),
                };
                index += 2;
            } else {
                return Err(subcommand_syntax(run));
            }
        }
        Ok(options)
    }
}

/// The stream of the call, which has to be there.
fn stream<'a>(run: &'a Run<'_>) -> Result<&'a Collection, Refusal> {
    let stream = run.collection(&run.key(2), Kind::Stream)?;
    stream.ok_or(Refusal::Other(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
    ))
}

/// The group of the call, which has to be there, and its stream.
fn stream_and_group<'a>(run: &'a Run<'_>) -> Result<(&'a Collection, Group), Refusal> {
    let stream = stream(run)?;
    let group = Group::load(stream, run.arg(3))?;
    Ok((stream, group.ok_or_else(|| no_group(run))?))
}

fn create(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = Options::parse(run)?;
    let held = match options.if_absent {
        IfAbsent::Fail => Some(stream(run)?),
        IfAbsent::Create => run.collection(&run.key(2), Kind::Stream)?,
    };
    // Redis knows no form of `CREATE` with more arguments.
    if run.len() > 8 {
        return Err(subcommand_syntax(run));
    }
    let last = match run.arg(4) {
        b"$" => held.map_or(Id::MIN, |stream| Header::of(stream).last),
        text => Id::parse_strict(text, 0)?,
    };
    let before = held.map(|stream| Group::load(stream, run.arg(3)));
    if before.transpose()?.flatten().is_some() {
        return Err(Refusal::Other(
            "BUSYGROUP Consumer Group name already exists",
        ));
    }
    let name = run.arg_bytes(3);
    let group = Group::new(last, options.read);
    run.edit(2, Kind::Stream, |stream| {
        group.store(stream, &name)?;
        stream.log(create_command(&name, &group));
        Ok(Reply::OK)
    })
}

fn setid(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = Options::parse(run)?;
    let (stream, mut group) = stream_and_group(run)?;
    if run.len() != 5 && run.len() != 7 {
        return Err(subcommand_syntax(run));
    }
    group.last = match run.arg(4) {
        b"$" => Header::of(stream).last,
        text => Id::parse(text, 0)?,
    };
    group.read = options.read;
    let name = run.arg_bytes(3);
    run.edit(2, Kind::Stream, |stream| {
        group.store(stream, &name)?;
        stream.log(set_group_id(&name, &group));
        Ok(Reply::OK)
    })
}

fn destroy(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let name = run.arg_bytes(3);
    let stream = stream(run)?;
    if Group::load(stream, &name)?.is_none() {
        return Ok(Reply::Integer(0));
    }
    let mut fields = vec![state::group_field(&name)];
    for (consumer, _) in state::consumers(stream, &name)? {
        fields.push(state::consumer_field(&name, &consumer));
    }
    for (id, _) in state::pending(stream, &name)? {
        fields.push(state::pending_field(&name, id));
    }
    run.edit(2, Kind::Stream, |stream| {
        remove_all(stream, &fields)?;
        stream.log([words(&["XGROUP", "DESTROY"]), vec![name]].concat());
        Ok(Reply::Integer(1))
    })
}

fn remove_all(stream: &mut Collection, fields: &[Bytes]) -> Result<(), NotLoaded> {
    for field in fields {
        stream.remove(field)?;
    }
    Ok(())
}

fn create_consumer(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (stream, _) = stream_and_group(run)?;
    let (name, consumer) = (run.arg_bytes(3), run.arg_bytes(4));
    if state::seen(stream, &name, &consumer)?.is_some() {
        return Ok(Reply::Integer(0));
    }
    let now_ms = run.now.0;
    run.edit(2, Kind::Stream, |stream| {
        state::see(stream, &name, &consumer, now_ms)?;
        let mut command = words(&["XGROUP", "CREATECONSUMER"]);
        command.extend([name, consumer]);
        stream.log(command);
        Ok(Reply::Integer(1))
    })
}

fn delete_consumer(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let (stream, _) = stream_and_group(run)?;
    let (name, consumer) = (run.arg_bytes(3), run.arg_bytes(4));
    if state::seen(stream, &name, &consumer)?.is_none() {
        return Ok(Reply::Integer(0));
    }
    let all = state::pending(stream, &name)?.into_iter();
    let mut fields: Vec<Bytes> = all
        .filter(|(_, held)| held.consumer == consumer)
        .map(|(id, _)| state::pending_field(&name, id))
        .collect();
    let pending = fields.len() as i64;
    fields.push(state::consumer_field(&name, &consumer));
    run.edit(2, Kind::Stream, |stream| {
        remove_all(stream, &fields)?;
        let mut command = words(&["XGROUP", "DELCONSUMER"]);
        command.extend([name, consumer]);
        stream.log(command);
        Ok(Reply::Integer(pending))
    })
}

fn pending_named(call: &Call, db: Db) -> Needs {
    let group = call.request.arg(2);
    let ids = (3..call.request.len())
        .filter_map(|index| Id::parse_strict(call.request.arg(index), 0).ok());
    let mut need = Need::fields(ids.map(|id| state::pending_field(group, id)));
    need.fields.insert(state::group_field(group));
    Needs::from_iter([(first_key(call, db), need)])
}

fn xack(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let name = run.arg_bytes(2);
    let Some(stream) = run.collection(&run.key(1), Kind::Stream)? else {
        return Ok(Reply::Integer(0));
    };
    if Group::load(stream, &name)?.is_none() {
        return Ok(Reply::Integer(0));
    }
    let ids = (3..run.len()).map(|index| Id::parse_strict(run.arg(index), 0));
    let mut found = BTreeSet::new();
    for id in ids.collect::<Result<Vec<Id>, Refusal>>()? {
        if stream.get(&state::pending_field(&name, id))?.is_some() {
            found.insert(id);
        }
    }
    let found: Vec<Id> = found.into_iter().collect();
    if !found.is_empty() {
        run.edit(1, Kind::Stream, |stream| {
            Ok(acknowledge(stream, &name, &found)?)
        })?;
    }
    Ok(Reply::Integer(found.len() as i64))
}

/// Takes entries out of those pending.
pub(super) fn acknowledge(
    stream: &mut Collection,
    group: &Bytes,
    ids: &[Id],
) -> Result<(), NotLoaded> {
    for id in ids {
        stream.remove(&state::pending_field(group, *id))?;
    }
    log_ids(
        stream,
        &[words(&["XACK"]), vec![group.clone()]].concat(),
        ids,
        &[],
    );
    Ok(())
}
