//! `SLOWLOG`: the requests that took long, bounded as in Redis.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::registry::{Entry, lock};
use crate::command::{Call, flags};
use crate::model::Reply;
use crate::resp::parse_integer;

/// What takes at least this long is kept (Redis: `slowlog-log-slower-than`).
pub const SLOWER_THAN: Duration = Duration::from_millis(10);

/// How many are kept (Redis: `slowlog-max-len`).
pub const ENTRIES_MAX: usize = 128;

/// As in Redis: arguments shown of a request, and bytes shown of an argument.
const ARGS_MAX: usize = 32;
const ARG_BYTES_MAX: usize = 128;

/// The last requests that took long.
///
/// Calls of one pipeline that ran together share one entry: it names the
/// first, says how many followed, and has the time that all took.
#[derive(Debug, Default)]
pub struct SlowLog {
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    next_id: i64,
    entries: VecDeque<Slow>,
}

#[derive(Debug)]
struct Slow {
    id: i64,
    at: i64,
    took: Duration,
    args: Vec<Bytes>,
    peer: String,
    name: Bytes,
}

impl SlowLog {
    /// Keeps the run of `calls` if it took long.
    pub fn note(&self, calls: &[Call], took: Duration, entry: &Entry) {
        let Some(first) = calls.first().filter(|_| took >= SLOWER_THAN) else {
            return;
        };
        if first.command.flags.has(flags::SKIP_SLOWLOG) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let slow = Slow {
            id: 0,
            at: now.map_or(0, |since| {
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
            }),
            took,
            args: shown(first, calls.len() - 1),
            peer: entry.peer.to_string(),
            name: entry.profile().name.clone(),
        };
        let mut log = lock(&self.log);
        let id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(Slow { id, ..slow });
        log.entries.truncate(ENTRIES_MAX);
    }

    /// `SLOWLOG GET [count]`.
    pub fn get(&self, call: &Call) -> Reply {
        let count = match call.request.len() {
            2 => Some(10),
            3 => parse_integer(call.request.arg(2)).filter(|count| *count >= -1),
            _ => return super::local::subcommand_error(call),
        };
        let Some(count) = count else {
            return Reply::error("ERR count should be greater than or equal to -1");
        };
        let count = usize::try_from(count).unwrap_or(ENTRIES_MAX);
        let log = lock(&self.log);
        Reply::Array(log.entries.iter().take(count).map(Slow::reply).collect())
    }

    /// `SLOWLOG LEN`.
    pub fn len(&self) -> usize {
        lock(&self.log).entries.len()
    }

    /// Whether nothing took long since the last reset.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `SLOWLOG RESET`.
    pub fn reset(&self) {
        lock(&self.log).entries.clear();
    }
}

impl Slow {
    fn reply(&self) -> Reply {
        let micros = i64::try_from(self.took.as_micros()).unwrap_or(i64::MAX);
        Reply::Array(vec![
            Reply::Integer(self.id),
            Reply::Integer(self.at),
            Reply::Integer(micros),
            Reply::Array(self.args.iter().cloned().map(Reply::Bulk).collect()),
            Reply::bulk(self.peer.clone()),
            Reply::Bulk(self.name.clone()),
        ])
    }
}

/// The arguments that the log shows, copied so that it keeps no read buffer alive.
fn shown(call: &Call, followers: usize) -> Vec<Bytes> {
    let request = &call.request;
    let count = request.len();
    // Passwords are nobody's business.
    if matches!(call.command.name, "AUTH" | "HELLO") {
        return vec![
            Bytes::copy_from_slice(request.arg(0)),
            Bytes::from_static(b"(redacted)"),
        ];
    }
    let room = if count > ARGS_MAX {
        ARGS_MAX - 1
    } else {
        count
    };
    let mut args: Vec<Bytes> = request.args().take(room).map(shown_arg).collect();
    if count > room {
        args.push(format!("... ({} more arguments)", count - room).into());
    }
    if followers > 0 {
        args.push(format!("... (and {followers} more commands of its pipeline)").into());
    }
    args
}

fn shown_arg(arg: &[u8]) -> Bytes {
    if arg.len() <= ARG_BYTES_MAX {
        return Bytes::copy_from_slice(arg);
    }
    let more = format!("... ({} more bytes)", arg.len() - ARG_BYTES_MAX);
    [&arg[..ARG_BYTES_MAX], more.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::registry::{Address, Registry};
    use crate::command::resolve;
    use crate::model::Request;

    #[test]
    fn what_took_long_is_kept_and_cut_as_redis_does() {
        let registry = Registry::default();
        let address = Address::Unix("s".to_owned());
        let entry = registry.admit(1, address.clone(), address, 0).unwrap();
        let log = SlowLog::default();
        let call = |args: &[&str]| resolve(Request::from_args(args)).unwrap();
        let mut many = vec!["MGET"; 40];
        let long = "x".repeat(200);
        many[1] = &long;
        log.note(&[call(&["GET", "a"])], Duration::from_millis(9), &entry);
        log.note(&[call(&many)], Duration::from_millis(10), &entry);
        log.note(
            &[call(&["AUTH", "secret"])],
            Duration::from_millis(20),
            &entry,
        );
        assert_eq!(log.len(), 2);
        let text = format!("{:?}", log.get(&call(&["SLOWLOG", "GET"])));
        assert!(!text.contains("secret"));
        assert!(text.contains("... (9 more arguments)"));
        assert!(text.contains("... (72 more bytes)"));
        for _ in 0..300 {
            log.note(&[call(&["GET", "a"])], Duration::from_secs(1), &entry);
        }
        assert_eq!(log.len(), ENTRIES_MAX);
    }
}
