//! Keys of any type: `DEL`, `EXISTS`, `TYPE`, `RENAME`, `COPY`, `MOVE`, `OBJECT`, `MEMORY USAGE`.

use smallvec::SmallVec;

use super::dispatch::Run;
use super::encoding::Encoding;
use super::need::Need;
use super::{Refusal, footprint};
use crate::command::{Call, args};
use crate::model::{DATABASES, Db, Key, Reply};

/// What `COPY`, `MOVE`, `RENAME` and `RENAMENX` must know of their keys.
pub(super) fn needs(call: &Call, db: Db) -> SmallVec<[(Key, Need); 2]> {
    let key = |db, index: usize| Key {
        db,
        name: call.request.arg_bytes(index),
    };
    let mut needs = SmallVec::new();
    needs.push((key(db, 1), Need::value()));
    match call.command.name {
        // The target is overwritten unseen.
        "RENAME" => {}
        "RENAMENX" => needs.push((key(db, 2), Need::header())),
        "MOVE" => {
            if let Ok(target) = database(call.request.arg(2)) {
                needs.push((key(target, 1), Need::header()));
            }
        }
        _ => match CopyOptions::of(call, db) {
            Ok(options) => needs.push((key(options.db, 2), Need::header())),
            // It will be refused for this reason.
            Err(_) => needs.clear(),
        },
    }
    needs
}

/// The database that an argument names, as `COPY` and `MOVE` check it.
fn database(arg: &[u8]) -> Result<Db, Refusal> {
    let index = args::integer(arg).ok_or(Refusal::NotInteger)?;
    if i32::try_from(index).is_err() {
        return Err(Refusal::Other(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    u8::try_from(index)
        .ok()
        .filter(|index| *index < DATABASES)
        .and_then(Db::new)
        .ok_or(Refusal::DbIndex)
}

/// `DEL` and `UNLINK`; a key named twice counts once.
pub(super) fn del(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    // First see that all were loaded, so that nothing fails half-way.
    for index in 1..run.len() {
        run.live(&run.key(index))?;
    }
    let mut count = 0;
    for index in 1..run.len() {
        let key = run.key(index);
        if run.live(&key)?.is_some() {
            run.workspace.delete(key);
            count += 1;
        }
    }
    Ok(Reply::Integer(count))
}

/// `EXISTS` and `TOUCH`; a key named twice counts twice.
pub(super) fn exists(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let mut count = 0;
    for index in 1..run.len() {
        count += i64::from(run.live(&run.key(index))?.is_some());
    }
    Ok(Reply::Integer(count))
}

pub(super) fn type_of(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let live = run.live(&run.key(1))?;
    Ok(Reply::Simple(live.map_or("none", |live| live.kind.name())))
}

/// `RENAME` and `RENAMENX`.
pub(super) fn rename(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let only_new = run.call.command.name == "RENAMENX";
    let done = if only_new {
        Reply::Integer(1)
    } else {
        Reply::OK
    };
    let (from, to) = (run.key(1), run.key(2));
    let Some(live) = run.live(&from)? else {
        return Err(Refusal::NoSuchKey);
    };
    if from == to {
        return Ok(if only_new { Reply::Integer(0) } else { done });
    }
    let (value, expires_at) = (live.value()?.clone(), live.expires_at);
    if only_new && run.live(&to)?.is_some() {
        return Ok(Reply::Integer(0));
    }
    run.workspace.delete(from);
    run.workspace.put(to, value, expires_at, run.now);
    Ok(done)
}

/// The options of `COPY`.
struct CopyOptions {
    /// The database to copy into.
    db: Db,
    /// Whether a key that is there may be replaced.
    replace: bool,
}

impl CopyOptions {
    fn of(call: &Call, db: Db) -> Result<Self, Refusal> {
        let request = &call.request;
        let mut options = Self { db, replace: false };
        let mut index = 3;
        while index < request.len() {
            if args::is_word(request.arg(index), "REPLACE") {
                options.replace = true;
            } else if args::is_word(request.arg(index), "DB") && index + 1 < request.len() {
                index += 1;
                options.db = database(request.arg(index))?;
            } else {
                return Err(Refusal::Syntax);
            }
            index += 1;
        }
        Ok(options)
    }
}

pub(super) fn copy(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = CopyOptions::of(run.call, run.db)?;
    let from = run.key(1);
    let to = Key {
        db: options.db,
        name: run.arg_bytes(2),
    };
    if from == to {
        return Err(Refusal::SameObject);
    }
    let Some(live) = run.live(&from)? else {
        return Ok(Reply::Integer(0));
    };
    let (value, expires_at) = (live.value()?.clone(), live.expires_at);
    if run.live(&to)?.is_some() && !options.replace {
        return Ok(Reply::Integer(0));
    }
    run.workspace.put(to, value, expires_at, run.now);
    Ok(Reply::Integer(1))
}

/// `MOVE`.
pub(super) fn move_to(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let from = run.key(1);
    let to = Key {
        db: database(run.arg(2))?,
        name: run.arg_bytes(1),
    };
    if from == to {
        return Err(Refusal::SameObject);
    }
    let Some(live) = run.live(&from)? else {
        return Ok(Reply::Integer(0));
    };
    let (value, expires_at) = (live.value()?.clone(), live.expires_at);
    if run.live(&to)?.is_some() {
        return Ok(Reply::Integer(0));
    }
    run.workspace.delete(from);
    run.workspace.put(to, value, expires_at, run.now);
    Ok(Reply::Integer(1))
}

/// What Redis would choose for a value that was just set as it is. A string that `APPEND`
/// or `SETRANGE` made is `raw` there, and a collection that was once too large for its
/// small form stays in the other; that history is not stored.
pub(super) fn object_encoding(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(live) = run.live(&run.key(2))? else {
        return Ok(Reply::Null);
    };
    let encoding = Encoding::of(live.value()?)?;
    Ok(Reply::bulk(encoding.name()))
}

/// One reference: small integers, which Redis may share, are shared only in
/// the cache.
pub(super) fn object_refcount(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let live = run.live(&run.key(2))?;
    Ok(live.map_or(Reply::Null, |_| Reply::Integer(1)))
}

/// No idle time: what the store was asked for is being used now.
pub(super) fn object_idletime(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let live = run.live(&run.key(2))?;
    Ok(live.map_or(Reply::Null, |_| Reply::Integer(0)))
}

/// Only a cache with an LFU policy knows frequencies; the store never does.
pub(super) fn object_freq(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    if run.live(&run.key(2))?.is_none() {
        return Ok(Reply::Null);
    }
    Err(Refusal::Other(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
         Please note that when switching between policies at runtime LRU and LFU data \
         will take some time to adjust.",
    ))
}

/// `MEMORY USAGE`: what the key would take in Redis.
pub(super) fn memory_usage(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let mut index = 3;
    while index < run.len() {
        if !run.is(index, "SAMPLES") || index + 1 == run.len() {
            return Err(Refusal::Syntax);
        }
        if run.integer(index + 1)? < 0 {
            return Err(Refusal::Syntax);
        }
        index += 2;
    }
    let key = run.key(2);
    let Some(live) = run.live(&key)? else {
        return Ok(Reply::Null);
    };
    let bytes = footprint::key(&key.name, live.value()?)?;
    Ok(Reply::Integer(bytes as i64))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;

    #[test]
    fn names_and_copies() {
        let mut s = Session::default();
        for (line, reply) in [
            ("RENAME none k", "-ERR no such key"),
            ("SET a 1 PX 100", "OK"),
            ("RENAME a a", "OK"),
            ("RENAMENX a a", ":0"),
            ("RENAME a b", "OK"),
            ("EXISTS a b b", ":2"),
            ("PTTL b", ":100"),
            ("COPY b c", ":1"),
            ("PTTL c", ":100"),
            ("COPY b c", ":0"),
            ("SET b 2", "OK"),
            ("COPY b c REPLACE", ":1"),
            ("PTTL c", ":-1"),
            (
                "COPY b b",
                "-ERR source and destination objects are the same",
            ),
            ("COPY b b DB 1", ":1"),
            ("COPY b c DB 16", "-ERR DB index is out of range"),
            (
                "COPY b c DB x",
                "-ERR value is not an integer or out of range",
            ),
            ("COPY b c FOO", "-ERR syntax error"),
            ("RENAMENX b c", ":0"),
            ("RENAMENX b d", ":1"),
            ("MOVE d 1", ":1"),
            ("EXISTS d", ":0"),
            ("SET d 3", "OK"),
            ("MOVE d 1", ":0"),
            (
                "MOVE d 0",
                "-ERR source and destination objects are the same",
            ),
            ("MOVE d -1", "-ERR DB index is out of range"),
            (
                "MOVE d 4294967296",
                "-ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
            ("DEL d d none", ":1"),
            ("TYPE d", "none"),
            ("TYPE c", "string"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn objects() {
        let mut s = Session::default();
        s.run(&["SET", "long", &"x".repeat(45)]);
        for (line, reply) in [
            ("SET i 12", "OK"),
            ("SET e x", "OK"),
            ("HSET h f v", ":1"),
            ("OBJECT ENCODING h", "\"listpack\""),
            ("OBJECT ENCODING i", "\"int\""),
            ("OBJECT ENCODING e", "\"embstr\""),
            ("OBJECT ENCODING long", "\"raw\""),
            ("OBJECT ENCODING none", "nil"),
            ("OBJECT IDLETIME e", ":0"),
            ("OBJECT REFCOUNT e", ":1"),
            ("OBJECT FREQ none", "nil"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}
