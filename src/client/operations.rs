//! What an operator asks of a server. Freshet has no dump file, no replicas of
//! its own and no cluster mode; each of these says so, or answers as a Redis
//! that is alone does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::hub::Hub;
use super::local::{not_an_integer, syntax_error};
use super::process;
use crate::command::args::is_word;
use crate::command::{Call, wrong_arity};
use crate::model::Reply;
use crate::resp::parse_integer;

/// The longest `DEBUG SLEEP`: it holds up one connection only, but for no longer.
const SLEEP_MAX: Duration = Duration::from_secs(300);

/// Answers the commands that are about the server as a whole.
pub fn answer(hub: &Hub, call: &Call) -> Reply {
    match call.command.name {
        "ROLE" => Reply::Array(vec![
            Reply::bulk("master"),
            Reply::Integer(0),
            Reply::Array(Vec::new()),
        ]),
        "WAIT" => wait(call),
        "LASTSAVE" => last_save(),
        "REPLICAOF" | "SLAVEOF" => replica_of(call),
        "FAILOVER" => failover(call),
        "MODULE|LIST" => Reply::Array(Vec::new()),
        "MEMORY|DOCTOR" => Reply::Verbatim(
            *b"txt",
            Bytes::from_static(
                b"Freshet holds no data in its own memory. MEMORY STATS and INFO memory say what \
                the process uses.\n",
            ),
        ),
        "MEMORY|STATS" => memory_stats(hub),
        "MEMORY|PURGE" => Reply::OK,
        "MEMORY|MALLOC-STATS" => Reply::bulk("Stats not supported for the current allocator"),
        "READONLY" | "READWRITE" | "ASKING" => no_cluster(),
        _ if call.command.family() == "CLUSTER" => no_cluster(),
        _ => {
            let refusal = call.command.refusal();
            refusal.unwrap_or_else(|| wrong_arity(call.command))
        }
    }
}

fn no_cluster() -> Reply {
    Reply::error("ERR This instance has cluster support disabled")
}

/// A Redis that is nobody's replica stays so by `NO ONE`.
fn replica_of(call: &Call) -> Reply {
    let is = |index, word| is_word(call.request.arg(index), word);
    if is(1, "NO") && is(2, "ONE") {
        return Reply::OK;
    }
    Reply::error("ERR Freshet replicates no other server: its data are in PostgreSQL")
}

/// What a Redis without replicas says.
fn failover(call: &Call) -> Reply {
    if call.request.len() == 2 && is_word(call.request.arg(1), "ABORT") {
        return Reply::error("ERR No failover in progress.");
    }
    Reply::error("ERR FAILOVER requires connected replicas.")
}

/// There are no replicas to wait for, so the answer is known at once.
fn wait(call: &Call) -> Reply {
    if parse_integer(call.request.arg(1)).is_none() {
        return not_an_integer();
    }
    match parse_integer(call.request.arg(2)) {
        None => Reply::error("ERR timeout is not an integer or out of range"),
        Some(timeout) if timeout < 0 => Reply::error("ERR timeout is negative"),
        Some(_) => Reply::Integer(0),
    }
}

/// Whatever was acknowledged up to now is saved.
fn last_save() -> Reply {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Reply::Integer(now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX)))
}

fn memory_stats(hub: &Hub) -> Reply {
    let memory = process::memory();
    let integer = |value: u64| Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX));
    let clients = u64::try_from(hub.registry.len()).unwrap_or(u64::MAX);
    let fields = [
        ("peak.allocated", integer(memory.peak)),
        ("total.allocated", integer(memory.resident)),
        ("clients.connected", integer(clients)),
        ("replication.backlog", Reply::Integer(0)),
        ("aof.buffer", Reply::Integer(0)),
        ("allocator.resident", integer(memory.resident)),
        ("system.total", integer(memory.total)),
    ];
    Reply::Map(
        fields
            .map(|(name, value)| (Reply::bulk(name), value))
            .into(),
    )
}

/// `DEBUG SLEEP seconds` holds up this connection; Freshet has no other `DEBUG`.
pub async fn debug(call: &Call) -> Reply {
    let request = &call.request;
    if !is_word(request.arg(1), "SLEEP") {
        return Reply::error("ERR Freshet serves DEBUG SLEEP only");
    }
    if request.len() != 3 {
        return syntax_error();
    }
    let seconds = std::str::from_utf8(request.arg(2))
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match seconds {
        Some(time) => {
            tokio::time::sleep(time.min(SLEEP_MAX)).await;
            Reply::OK
        }
        None => Reply::error("ERR value is not a valid float"),
    }
}
