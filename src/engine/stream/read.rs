//! `XREAD` and `XREADGROUP`: what they ask for, and the reading itself.
//!
//! `BLOCK` is read and checked; whether to wait and to ask again is the
//! caller's business. One run is one try.

use bytes::Bytes;

use super::super::dispatch::{Family, Run};
use super::super::{Need, Needs, Refusal};
use super::deliver::{self, Acknowledgement};
use super::entry;
use super::id::Id;
use super::quoted;
use super::state::{self, Group};
use crate::command::{Call, args};
use crate::model::{Collection, Db, Key, Kind, NotLoaded, Reply, STREAM_ENTRY};

pub(in super::super) const COMMANDS: &[Family] = &[
    Family::new("XREAD", read_needs, xread),
    Family::new("XREADGROUP", group_needs, xreadgroup),
];

/// Behind which entry a stream is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// `$`: behind the last there is.
    Last,
    /// `>`: behind the last that the group was given.
    Undelivered,
    /// This one. In a group: of what is pending.
    Id(Id),
}

/// The options of both commands.
struct Options {
    /// Names of group and consumer.
    group: Option<(Bytes, Bytes)>,
    count: Option<usize>,
    acknowledgement: Acknowledgement,
    /// Where the first key stands.
    first: usize,
    /// How many streams are read.
    streams: usize,
}

impl Options {
    fn parse(call: &Call) -> Result<Self, Refusal> {
        let request = &call.request;
        let is_for_group = call.command.name == "XREADGROUP";
        let mut options = Self {
            group: None,
            count: None,
            acknowledgement: Acknowledgement::Expected,
            first: 0,
            streams: 0,
        };
        let mut index = 1;
        while index < request.len() && options.first == 0 {
            let word = request.arg(index);
            let more = request.len() - index - 1;
            if args::is_word(word, "BLOCK") && more > 0 {
                check_timeout(request.arg(index + 1))?;
                index += 2;
            } else if args::is_word(word, "COUNT") && more > 0 {
                let count = args::integer(request.arg(index + 1)).ok_or(Refusal::NotInteger)?;
                options.count = usize::try_from(count).ok().filter(|count| *count > 0);
                index += 2;
            } else if args::is_word(word, "STREAMS") && more > 0 {
                if more % 2 == 1 {
                    return Err(UNBALANCED);
                }
                options.first = index + 1;
                options.streams = more / 2;
            } else if args::is_word(word, "GROUP") && more >= 2 {
                if !is_for_group {
                    return Err(GROUP_IN_XREAD);
                }
                let names = (request.arg_bytes(index + 1), request.arg_bytes(index + 2));
                options.group = Some(names);
                index += 3;
            } else if args::is_word(word, "NOACK") {
                if !is_for_group {
                    return Err(NOACK_IN_XREAD);
                }
                options.acknowledgement = Acknowledgement::None;
                index += 1;
            } else {
                return Err(Refusal::Syntax);
            }
        }
        if options.first == 0 {
            return Err(Refusal::Syntax);
        }
        if is_for_group && options.group.is_none() {
            return Err(Refusal::Other("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(options)
    }

    fn limit(&self) -> usize {
        self.count.unwrap_or(usize::MAX)
    }

    /// Where the keys stand, each with the place of its id.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (first, streams) = (self.first, self.streams);
        (first..first + streams).map(move |place| (place, place + streams))
    }
}

const UNBALANCED: Refusal = Refusal::Other(
    "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
);
const GROUP_IN_XREAD: Refusal = Refusal::Other(
    "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
);
const NOACK_IN_XREAD: Refusal = Refusal::Other(
    "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
);
const UNDELIVERED_IN_XREAD: Refusal = Refusal::Other(
    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
);
const LAST_IN_GROUP: Refusal = Refusal::Other(
    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
);

fn check_timeout(text: &[u8]) -> Result<(), Refusal> {
    match args::integer(text) {
        None => Err(Refusal::Other(
            "ERR timeout is not an integer or out of range",
        )),
        Some(..0) => Err(Refusal::Other("ERR timeout is negative")),
        Some(_) => Ok(()),
    }
}

impl From {
    fn parse(text: &[u8]) -> Result<Self, Refusal> {
        match args::c_text(text) {
            b"$" => Ok(Self::Last),
            b">" => Ok(Self::Undelivered),
            _ => Ok(Self::Id(Id::parse_strict(text, 0)?)),
        }
    }

    /// As a group reads it: the highest id of all stands for `>`, as in Redis.
    fn of_group(text: &[u8]) -> Result<Self, Refusal> {
        match Self::parse(text)? {
            Self::Last => Err(LAST_IN_GROUP),
            Self::Id(Id::MAX) => Ok(Self::Undelivered),
            other => Ok(other),
        }
    }
}

fn read_needs(call: &Call, db: Db) -> Needs {
    let Ok(options) = Options::parse(call) else {
        return super::header(call, db);
    };
    let need = |(key, id): (usize, usize)| {
        let key = Key::new(db, call.request.arg_bytes(key));
        let need = match From::parse(call.request.arg(id)) {
            Ok(From::Id(id)) => Need::after(&id.field(), options.limit() as u64),
            _ => Need::header(),
        };
        (key, need)
    };
    options.places().map(need).collect()
}

fn xread(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = Options::parse(run.call)?;
    let mut streams = Vec::new();
    for (key, id) in options.places() {
        run.collection(&run.key(key), Kind::Stream)?;
        match From::parse(run.arg(id))? {
            From::Undelivered => return Err(UNDELIVERED_IN_XREAD),
            From::Last => {}
            From::Id(id) => streams.push((key, id)),
        }
    }
    let mut found = Vec::new();
    for (key, id) in streams {
        let Some(stream) = run.collection(&run.key(key), Kind::Stream)? else {
            continue;
        };
        let entries = newer(stream, id, options.limit())?;
        if !entries.is_empty() {
            found.push((Reply::Bulk(run.arg_bytes(key)), Reply::Array(entries)));
        }
    }
    Ok(streams_reply(found))
}

fn newer(stream: &Collection, id: Id, limit: usize) -> Result<Vec<Reply>, NotLoaded> {
    let Some(start) = id.next().filter(|_| !stream.is_empty()) else {
        return Ok(Vec::new());
    };
    let found = state::entries_from(stream, start, limit)?;
    let found = found.into_iter();
    Ok(found
        .map(|(id, element)| entry::reply(id, element))
        .collect())
}

fn streams_reply(found: Vec<(Reply, Reply)>) -> Reply {
    if found.is_empty() {
        return Reply::NullArray;
    }
    Reply::MapOfPairs(found)
}

fn group_needs(call: &Call, db: Db) -> Needs {
    let Ok(options) = Options::parse(call) else {
        return super::header(call, db);
    };
    let Some((group, consumer)) = &options.group else {
        return super::header(call, db);
    };
    let need = |(key, id): (usize, usize)| {
        let key = Key::new(db, call.request.arg_bytes(key));
        let consumer_field = state::consumer_field(group, consumer);
        if !matches!(From::of_group(call.request.arg(id)), Ok(From::Undelivered)) {
            // Which entries these are is asked for when they are known.
            let mut need = state::pending_need(group, Id::MIN, u64::MAX);
            need.fields
                .extend([state::group_field(group), consumer_field]);
            return (key, need);
        }
        let mut need = Need::behind(state::group_field(group), options.limit() as u64);
        need.add(Need::fields([consumer_field]));
        // What a group has read is sometimes told from the first entry.
        need.add(Need::after(&[STREAM_ENTRY], 1));
        (key, need)
    };
    options.places().map(need).collect()
}

fn xreadgroup(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = Options::parse(run.call)?;
    let Some((group, consumer)) = options.group.clone() else {
        return Err(Refusal::Syntax);
    };
    let mut streams = Vec::new();
    for (key, id) in options.places() {
        let stream = run.collection(&run.key(key), Kind::Stream)?;
        let found = stream.map(|stream| Group::load(stream, &group));
        if found.transpose()?.flatten().is_none() {
            return Err(no_group(run.arg(key), &group));
        }
        streams.push((key, From::of_group(run.arg(id))?));
    }
    let reader = deliver::Reader {
        group,
        consumer,
        limit: options.limit(),
        acknowledgement: options.acknowledgement,
        now_ms: run.now.0,
    };
    // Nothing may fail once the first stream is changed.
    for (index, (key, from)) in streams.iter().enumerate() {
        if let Some(stream) = run.collection(&run.key(*key), Kind::Stream)? {
            let is_again = streams[..index]
                .iter()
                .any(|(before, _)| run.arg(*before) == run.arg(*key));
            if is_again && !stream.is_whole() {
                return Err(Refusal::NotLoaded);
            }
            let unknown = match from {
                From::Id(id) => reader.unknown_history(stream, *id)?,
                From::Undelivered | From::Last => Vec::new(),
            };
            if !unknown.is_empty() {
                return Err(run.want(*key, Need::fields(unknown)));
            }
            plan(&reader, stream, *from)?;
        }
    }
    let mut found = Vec::new();
    for (key, from) in streams {
        let Some(stream) = run.collection(&run.key(key), Kind::Stream)? else {
            continue;
        };
        let Some(delivery) = plan(&reader, stream, from)? else {
            continue;
        };
        if delivery.changes_anything() {
            run.edit(key, Kind::Stream, |stream| {
                Ok(delivery.apply(&reader, stream)?)
            })?;
        }
        found.push((
            Reply::Bulk(run.arg_bytes(key)),
            Reply::Array(delivery.reply),
        ));
    }
    Ok(streams_reply(found))
}

fn plan(
    reader: &deliver::Reader,
    stream: &Collection,
    from: From,
) -> Result<Option<deliver::Delivery>, NotLoaded> {
    match from {
        From::Id(id) => reader.history(stream, id).map(Some),
        From::Undelivered | From::Last => reader.undelivered(stream),
    }
}

fn no_group(key: &[u8], group: &[u8]) -> Refusal {
    quoted([
        b"NOGROUP No such key '",
        key,
        b"' or consumer group '",
        group,
        b"' in XREADGROUP with GROUP option",
    ])
}
