//! `CONFIG`: the settings of Redis that clients ask for, as far as Freshet has
//! them. What they are is decided by Freshet's own configuration file, but for
//! `notify-keyspace-events`, which clients may set for this proxy until it ends.

use bytes::Bytes;

use super::hub::Hub;
use super::local::error_with;
use super::slowlog::{ENTRIES_MAX, SLOWER_THAN};
use crate::command::glob::{Case, matches};
use crate::command::{Call, wrong_arity};
use crate::model::{DATABASES, EventClasses, Reply};
use crate::resp::Limits;

/// Answers `CONFIG <subcommand>`.
pub fn answer(hub: &Hub, call: &Call) -> Reply {
    match call.command.subcommand() {
        Some("GET") => get(hub, call),
        Some("SET") => set(hub, call),
        Some("RESETSTAT") => {
            hub.stats.reset();
            Reply::OK
        }
        _ => {
            let refusal = call.command.refusal();
            refusal.unwrap_or_else(|| wrong_arity(call.command))
        }
    }
}

/// A setting that is named in full is answered under the name as it was
/// written, as Redis does.
fn get(hub: &Hub, call: &Call) -> Reply {
    let mut chosen: Vec<(Reply, Reply)> = Vec::new();
    let mut known = values(hub);
    for pattern in call.request.args().skip(2) {
        let is_name = !pattern.iter().any(|byte| b"*?[".contains(byte));
        known.retain(|(name, value)| {
            let fits = matches(pattern, name.as_bytes(), Case::Insensitive);
            if fits {
                let name = if is_name { pattern } else { name.as_bytes() };
                let name = Reply::bulk(Bytes::copy_from_slice(name));
                chosen.push((name, Reply::bulk(value.clone())));
            }
            !fits
        });
    }
    Reply::Map(chosen)
}

fn set(hub: &Hub, call: &Call) -> Reply {
    if !call.request.len().is_multiple_of(2) {
        return wrong_arity(call.command);
    }
    let known = values(hub);
    let mut classes = None;
    let pairs: Vec<&[u8]> = call.request.args().skip(2).collect();
    for pair in pairs.chunks(2) {
        let (name, value) = (pair[0], pair[1]);
        let is_known = |(known, _): &(&str, String)| name.eq_ignore_ascii_case(known.as_bytes());
        if !known.iter().any(is_known) {
            return error_with(
                "ERR Unknown option or number of arguments for CONFIG SET - '",
                name,
                "'",
            );
        }
        let failed = |why: &str| {
            let start = "ERR CONFIG SET failed (possibly related to argument '";
            error_with(start, name, &format!("') - {why}"))
        };
        if !name.eq_ignore_ascii_case(EVENTS.as_bytes()) {
            return failed("Freshet is configured by its file and environment");
        }
        if classes.is_some() {
            return failed("duplicate parameter");
        }
        classes = EventClasses::parse(value);
        if classes.is_none() {
            return failed("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
        }
    }
    if let Some(classes) = classes {
        hub.flow.broker().set_event_classes(classes);
    }
    Reply::OK
}

/// The one setting that clients may change.
const EVENTS: &str = "notify-keyspace-events";

/// All settings that `CONFIG GET` knows, by Redis's names.
fn values(hub: &Hub) -> Vec<(&'static str, String)> {
    let config = hub.config();
    let limits = Limits::default();
    let address = hub.address();
    let socket = config.listen.unix_socket.as_ref();
    let socket = socket.map_or_else(String::new, |path| path.display().to_string());
    let tls_port = match config.listen.tls_certificate {
        Some(_) => address.port(),
        None => 0,
    };
    let fixed = FIXED
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let own = [
        ("bind", address.ip().to_string()),
        ("port", address.port().to_string()),
        ("tls-port", tls_port.to_string()),
        ("unixsocket", socket),
        ("databases", DATABASES.to_string()),
        (
            "lua-time-limit",
            config.scripts.time_limit.as_millis().to_string(),
        ),
        (
            "busy-reply-threshold",
            config.scripts.time_limit.as_millis().to_string(),
        ),
        ("maxclients", config.listen.max_clients.to_string()),
        ("timeout", config.listen.idle_timeout.as_secs().to_string()),
        ("proto-max-bulk-len", limits.bulk_bytes.to_string()),
        (
            "client-query-buffer-limit",
            config.limits.query_buffer.as_u64().to_string(),
        ),
        (
            "slowlog-log-slower-than",
            SLOWER_THAN.as_micros().to_string(),
        ),
        ("slowlog-max-len", ENTRIES_MAX.to_string()),
        ("loglevel", "notice".to_owned()),
        (EVENTS, hub.flow.broker().event_classes().to_string()),
    ];
    own.into_iter().chain(fixed).collect()
}

/// What Freshet has no choice about: each value is what a Redis would say that
/// keeps everything, evicts nothing and stands alone.
const FIXED: &[(&str, &str)] = &[
    ("save", ""),
    ("appendonly", "no"),
    ("appendfsync", "always"),
    ("dbfilename", ""),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("maxmemory-samples", "5"),
    ("tcp-keepalive", "300"),
    ("tcp-backlog", "511"),
    ("protected-mode", "no"),
    ("requirepass", ""),
    ("masterauth", ""),
    ("daemonize", "no"),
    ("supervised", "no"),
    ("logfile", ""),
    ("io-threads", "1"),
    ("hz", "10"),
    ("cluster-enabled", "no"),
    ("replica-read-only", "yes"),
    ("slave-read-only", "yes"),
    ("min-replicas-to-write", "0"),
    ("latency-monitor-threshold", "0"),
    ("latency-tracking", "yes"),
    ("lazyfree-lazy-expire", "no"),
    ("lazyfree-lazy-eviction", "no"),
    ("enable-debug-command", "no"),
    ("enable-module-command", "no"),
    (
        "client-output-buffer-limit",
        "normal 0 0 0 slave 0 0 0 pubsub 0 0 0",
    ),
];
