//! How streams held in memory are compared with those of Redis.

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use freshet::command::resolve;
use freshet::engine::{Content, Loaded, Workspace, execute, replay};
use freshet::model::{Collection, Effect, Key, Kind, Protocol, Request, UnixMs, Value, Version};
use freshet::resp::encode;

use crate::patterns::stream::are_close;
use crate::support::client::{Client, show};

fn full_info(key: &[u8]) -> [&[u8]; 6] {
    [b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"]
}

/// Everything that the engine tells of a stream.
fn told(key: &Key, stream: &Collection) -> Result<BytesMut> {
    let call = resolve(Request::from_args(&full_info(&key.name)));
    let call = call.map_err(|reply| anyhow::anyhow!("{reply:?}"))?;
    let loaded = Loaded {
        version: Version(1),
        content: Content::Value(Value::Collection(Box::new(stream.clone()))),
        expires_at: None,
    };
    let mut workspace = Workspace::default();
    workspace.load(key.clone(), loaded);
    let reply = execute(&call, key.db, &mut workspace, UnixMs(0));
    let mut out = BytesMut::new();
    encode(&reply, Protocol::Resp2, &mut out);
    Ok(out)
}

/// Fails unless Redis holds the same stream under `key`, its groups and what is pending included.
pub fn same_as_redis(key: &Key, stream: &Collection, redis: &mut Client) -> Result<()> {
    compare(key, stream, &key.name, redis)
}

fn compare(key: &Key, stream: &Collection, name: &[u8], redis: &mut Client) -> Result<()> {
    let ours = told(key, stream)?;
    redis.send(&full_info(name))?;
    let theirs = redis.read_with_bytes()?.1;
    ensure!(
        are_close(&ours, &theirs),
        "{key:?} is\n{}\nin Redis\n{}",
        ours.escape_ascii(),
        theirs.escape_ascii()
    );
    Ok(())
}

/// Whether more entries were ever added, or read by a group, than `XSETID` and `XGROUP` can say,
/// which Redis tells as a negative number: no command makes such a stream, and the cache does without.
fn counts_beyond_commands(key: &Key, stream: &Collection) -> Result<bool> {
    const COUNTS: [&[u8]; 2] = [b"entries-added\r\n:-", b"entries-read\r\n:-"];
    let told = told(key, stream)?;
    let has = |count: &&[u8]| told.windows(count.len()).any(|line| line == *count);
    Ok(COUNTS.iter().any(has))
}

/// How a copy of a stream is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    /// By what was logged, where that is possible.
    Changes,
    /// From nothing.
    Afresh,
}

/// Does to a copy of the stream what the cache would be told to do after
/// `effect`, and fails unless it is the same stream then.
pub fn same_in_cache(
    key: &Key,
    held: Option<&Value>,
    effect: &Effect,
    copying: Copying,
    cache: &mut Client,
) -> Result<()> {
    let name = [format!("{}:", key.db.index()).as_bytes(), &key.name].concat();
    let Some(Value::Collection(stream)) = held.filter(|value| value.kind() == Kind::Stream) else {
        cache.integer(&[&b"DEL"[..], &name])?;
        return Ok(());
    };
    let is_copied = cache.integer(&[&b"EXISTS"[..], &name])? == 1;
    let commands = match effect {
        Effect::Delta(entry) if copying == Copying::Changes && is_copied => match &entry.value {
            Value::Collection(delta) => delta.logged().to_vec(),
            Value::String(_) => anyhow::bail!("a delta of a string"),
        },
        Effect::Expiry(_) => return Ok(()),
        _ => {
            cache.integer(&[&b"DEL"[..], &name])?;
            match replay::rebuild(stream) {
                Err(_) if counts_beyond_commands(key, stream)? => return Ok(()),
                commands => commands?,
            }
        }
    };
    for command in commands {
        let mut sent: Vec<&[u8]> = command.iter().map(|part| &part[..]).collect();
        let is_family = sent[0] == b"XGROUP";
        sent.insert(if is_family { 2 } else { 1 }, &name);
        let done = cache.ok(&sent);
        if done.is_err() && counts_beyond_commands(key, stream)? {
            cache.integer(&[&b"DEL"[..], &name])?;
            return Ok(());
        }
        done.with_context(|| format!("in the cache: {}", show(&sent)))?;
    }
    compare(key, stream, &name, cache).context("in the cache")
}
