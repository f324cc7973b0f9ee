//! What was counted since the start, or since `CONFIG RESETSTAT`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::registry::lock;
use crate::command::{Call, Class, Command};
use crate::resp::scan_reply;
use crate::telemetry;

/// As in Redis: further error codes are counted in the sum only.
const ERROR_CODES_MAX: usize = 128;

/// The buckets of a command's durations: the first ends at 1.024 µs, each at twice the one before.
pub const BUCKETS: usize = 30;

/// What was counted of the whole server.
#[derive(Debug, Default)]
pub struct Stats {
    /// Clients that were admitted.
    pub connections: AtomicU64,
    /// Clients that were refused because there were too many.
    pub connections_refused: AtomicU64,
    /// Clients that were cut off because they did not read their replies.
    pub connections_cut_off: AtomicU64,
    /// Bytes from clients.
    pub input_bytes: AtomicU64,
    /// Bytes to clients.
    pub output_bytes: AtomicU64,
    /// Reads from sockets that brought something.
    pub reads: AtomicU64,
    /// Replies written to sockets, as many at once as were ready.
    pub writes: AtomicU64,
    /// Requests answered, errors included.
    pub commands: AtomicU64,
    /// Error replies.
    pub errors: AtomicU64,
    /// Wrong names or passwords.
    pub failed_logins: AtomicU64,
    /// Reads that found their key.
    pub lookup_hits: AtomicU64,
    /// Reads that found nothing.
    pub lookup_misses: AtomicU64,
    by_command: RwLock<AHashMap<usize, Arc<CommandStats>>>,
    by_error: Mutex<BTreeMap<String, u64>>,
    rate: Mutex<Rate>,
}

/// What was counted of one command.
#[derive(Debug)]
pub struct CommandStats {
    /// Which one.
    pub command: &'static Command,
    /// How often it ran.
    pub calls: AtomicU64,
    /// How long in all; calls that ran together share their time evenly.
    pub nanos: AtomicU64,
    /// How often it was refused before it ran.
    pub rejected: AtomicU64,
    /// How often it answered with an error.
    pub failed: AtomicU64,
    /// How many calls took up to each bucket's end.
    pub buckets: [AtomicU64; BUCKETS],
    answered: metrics::Counter,
    erred: metrics::Counter,
    latency: metrics::Histogram,
}

/// The latest known rates.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    at: Instant,
    commands: u64,
    input_bytes: u64,
    output_bytes: u64,
    /// Commands per second.
    pub commands_per_second: u64,
    /// Bytes from clients per second.
    pub input_per_second: u64,
    /// Bytes to clients per second.
    pub output_per_second: u64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            commands: 0,
            input_bytes: 0,
            output_bytes: 0,
            commands_per_second: 0,
            input_per_second: 0,
            output_per_second: 0,
        }
    }
}

/// A class as metrics name it.
fn class_name(class: Class) -> &'static str {
    match class {
        Class::Local => "local",
        Class::Read => "read",
        Class::Expiry => "expiry",
        Class::Write => "write",
        Class::Script => "script",
        Class::Keyspace => "keyspace",
        Class::Flush => "flush",
        Class::Transaction => "transaction",
        Class::Unserved => "unserved",
    }
}

impl CommandStats {
    fn new(command: &'static Command) -> Self {
        let name = command.name.to_ascii_lowercase();
        let counter = |outcome: &'static str| metrics::counter!("freshet_commands_total", "command" => name.clone(), "outcome" => outcome);
        Self {
            command,
            calls: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            answered: counter("ok"),
            erred: counter("error"),
            latency: metrics::histogram!(telemetry::COMMAND_SECONDS, "class" => class_name(command.class)),
        }
    }

    /// The end of a bucket, in nanoseconds.
    pub fn bucket_end_nanos(bucket: usize) -> u64 {
        1024 << bucket
    }

    fn record(&self, calls: u64, failed: u64, each: Duration) {
        let nanos = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - (nanos / 1024).leading_zeros()) as usize;
        self.calls.fetch_add(calls, Relaxed);
        self.nanos.fetch_add(calls.saturating_mul(nanos), Relaxed);
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(calls, Relaxed);
        self.answered.increment(calls - failed);
        if failed > 0 {
            self.failed.fetch_add(failed, Relaxed);
            self.erred.increment(failed);
        }
        self.latency.record(each.as_secs_f64());
    }

    fn reset(&self) {
        for counter in [&self.calls, &self.nanos, &self.rejected, &self.failed]
            .into_iter()
            .chain(&self.buckets)
        {
            counter.store(0, Relaxed);
        }
    }
}

impl Stats {
    /// Counts calls that ran together and were answered by `replies`, one each.
    pub fn record_run(&self, calls: &[Call], replies: &[u8], took: Duration) {
        let Ok(count) = u32::try_from(calls.len()) else {
            return;
        };
        let Some(first) = calls.first() else { return };
        self.commands.fetch_add(u64::from(count), Relaxed);
        let each = took / count;
        let mut rest = replies;
        let mut stretch = (first.command, 0, 0);
        for call in calls {
            if !std::ptr::eq(stretch.0, call.command) {
                self.of(stretch.0).record(stretch.1, stretch.2, each);
                stretch = (call.command, 0, 0);
            }
            stretch.1 += 1;
            if rest.first() == Some(&b'-') {
                stretch.2 += 1;
                self.note_error(rest);
            } else if matches!(call.command.class, Class::Read | Class::Expiry) {
                self.count_lookups(call, rest);
            }
            if count > 1 {
                let length = scan_reply(rest).ok().flatten().unwrap_or(rest.len());
                rest = &rest[length..];
            }
        }
        self.of(stretch.0).record(stretch.1, stretch.2, each);
    }

    /// Counts whether a read found its key, going by the reply: one that a missing key
    /// gives too counts as a miss. Of `MGET` each key counts.
    fn count_lookups(&self, call: &Call, reply: &[u8]) {
        let count = |reply: &[u8]| match is_nothing(reply) {
            true => self.lookup_misses.fetch_add(1, Relaxed),
            false => self.lookup_hits.fetch_add(1, Relaxed),
        };
        if call.command.name != "MGET" {
            count(reply);
            return;
        }
        let header = reply.iter().position(|byte| *byte == b'\n');
        let mut rest = header.map_or(&b""[..], |end| &reply[end + 1..]);
        for _ in call.key_indices() {
            count(rest);
            let length = scan_reply(rest).ok().flatten().unwrap_or(rest.len());
            rest = &rest[length..];
        }
    }

    /// Counts a request that was refused before it ran.
    pub fn record_refusal(&self, command: Option<&'static Command>, reply: &[u8]) {
        self.commands.fetch_add(1, Relaxed);
        self.note_error(reply);
        if let Some(command) = command {
            self.of(command).rejected.fetch_add(1, Relaxed);
        }
    }

    /// Counts an encoded error reply by its code.
    pub fn note_error(&self, reply: &[u8]) {
        self.errors.fetch_add(1, Relaxed);
        let line = reply.strip_prefix(b"-").unwrap_or(reply);
        let end = line.iter().position(|byte| !byte.is_ascii_graphic());
        let code = String::from_utf8_lossy(&line[..end.unwrap_or(line.len()).min(32)]);
        let mut by_error = lock(&self.by_error);
        if let Some(count) = by_error.get_mut(code.as_ref()) {
            *count += 1;
        } else if by_error.len() < ERROR_CODES_MAX {
            by_error.insert(code.into_owned(), 1);
        }
    }

    /// Counts bytes that came from a client.
    pub fn note_read(&self, bytes: usize) {
        self.reads.fetch_add(1, Relaxed);
        self.input_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes that go to a client.
    pub fn note_write(&self, bytes: usize) {
        self.writes.fetch_add(1, Relaxed);
        self.output_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts a client that was admitted.
    pub fn note_admitted(&self) {
        self.connections.fetch_add(1, Relaxed);
        metrics::counter!(telemetry::CONNECTIONS_TOTAL, "outcome" => "accepted").increment(1);
    }

    /// Counts a client for whom there was no room.
    pub fn note_turned_away(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
        metrics::counter!(telemetry::CONNECTIONS_TOTAL, "outcome" => "refused").increment(1);
    }

    /// Counts a client that did not read its replies.
    pub fn note_cut_off(&self) {
        self.connections_cut_off.fetch_add(1, Relaxed);
        metrics::counter!(telemetry::CONNECTIONS_TOTAL, "outcome" => "cut_off").increment(1);
    }

    /// Counts a wrong name or password.
    pub fn note_failed_login(&self) {
        self.failed_logins.fetch_add(1, Relaxed);
    }

    fn of(&self, command: &'static Command) -> Arc<CommandStats> {
        let address = std::ptr::from_ref(command).addr();
        let known = self
            .by_command
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(stats) = known.get(&address) {
            return Arc::clone(stats);
        }
        drop(known);
        let mut known = self
            .by_command
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let stats = known
            .entry(address)
            .or_insert_with(|| Arc::new(CommandStats::new(command)));
        Arc::clone(stats)
    }

    /// What was counted of each command that was ever sent, by name.
    pub fn by_command(&self) -> Vec<Arc<CommandStats>> {
        let known = self
            .by_command
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = known.values().cloned().collect();
        all.sort_by_key(|stats| stats.command.name);
        all
    }

    /// How often each error code was answered.
    pub fn by_error(&self) -> Vec<(String, u64)> {
        let by_error = lock(&self.by_error);
        by_error
            .iter()
            .map(|(code, count)| (code.clone(), *count))
            .collect()
    }

    /// Computes the rates since the last time; called about once a second.
    pub fn sample_rates(&self) {
        let mut rate = lock(&self.rate);
        let now = Instant::now();
        let millis = u64::try_from((now - rate.at).as_millis()).unwrap_or(u64::MAX);
        let per_second = |now: u64, before: u64| now.saturating_sub(before) * 1000 / millis.max(1);
        let (commands, input, output) = (
            self.commands.load(Relaxed),
            self.input_bytes.load(Relaxed),
            self.output_bytes.load(Relaxed),
        );
        *rate = Rate {
            at: now,
            commands_per_second: per_second(commands, rate.commands),
            input_per_second: per_second(input, rate.input_bytes),
            output_per_second: per_second(output, rate.output_bytes),
            commands,
            input_bytes: input,
            output_bytes: output,
        };
    }

    /// The latest known rates.
    pub fn rate(&self) -> Rate {
        *lock(&self.rate)
    }

    /// Begins to count anew (`CONFIG RESETSTAT`).
    pub fn reset(&self) {
        for counter in [
            &self.connections,
            &self.connections_refused,
            &self.connections_cut_off,
            &self.input_bytes,
            &self.output_bytes,
            &self.reads,
            &self.writes,
            &self.commands,
            &self.errors,
            &self.failed_logins,
            &self.lookup_hits,
            &self.lookup_misses,
        ] {
            counter.store(0, Relaxed);
        }
        for stats in self.by_command() {
            stats.reset();
        }
        lock(&self.by_error).clear();
        *lock(&self.rate) = Rate::default();
    }
}

/// Whether an encoded reply is what a missing key gives.
fn is_nothing(reply: &[u8]) -> bool {
    const OF_NOTHING: [&[u8]; 9] = [
        b"$-1", b"*-1", b"_", b":0", b":-2", b"*0", b"%0", b"~0", b"+none",
    ];
    let end = reply.iter().position(|byte| *byte == b'\r');
    let line = &reply[..end.unwrap_or(reply.len())];
    OF_NOTHING.contains(&line) || line == b"$0"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::resolve;
    use crate::model::Request;

    #[test]
    fn calls_are_counted_by_command_and_outcome() {
        let stats = Stats::default();
        let call = |args: &[&str]| resolve(Request::from_args(args)).unwrap();
        let calls = [
            call(&["get", "a"]),
            call(&["GET", "b"]),
            call(&["INCR", "b"]),
            call(&["GET", "c"]),
        ];
        let replies = b"$1\r\nx\r\n-ERR a\r\n-WRONGTYPE b\r\n$-1\r\n";
        stats.record_run(&calls, replies, Duration::from_micros(40));
        stats.record_refusal(Some(calls[0].command), b"-NOAUTH x\r\n");
        let counted: Vec<_> = stats
            .by_command()
            .iter()
            .map(|c| {
                let load = |counter: &AtomicU64| counter.load(Relaxed);
                (
                    c.command.name,
                    load(&c.calls),
                    load(&c.nanos) / 1000,
                    load(&c.failed),
                    load(&c.rejected),
                )
            })
            .collect();
        assert_eq!(counted, [("GET", 3, 30, 1, 1), ("INCR", 1, 10, 1, 0)]);
        let codes = ["ERR", "NOAUTH", "WRONGTYPE"].map(|code| (code.to_owned(), 1));
        assert_eq!(stats.by_error(), codes);
        assert_eq!(stats.commands.load(Relaxed), 5);
        stats.reset();
        assert_eq!(stats.by_command()[0].calls.load(Relaxed), 0);
        assert!(stats.by_error().is_empty());
    }

    #[test]
    fn a_duration_is_counted_in_the_bucket_that_ends_behind_it() {
        let stats = CommandStats::new(crate::command::lookup(b"get").unwrap());
        for nanos in [0, 1023, 1024, 2047, 2048, u64::MAX] {
            stats.record(1, 0, Duration::from_nanos(nanos));
        }
        let filled: Vec<_> = (0..BUCKETS)
            .filter(|bucket| stats.buckets[*bucket].load(Relaxed) > 0)
            .collect();
        assert_eq!(filled, [0, 1, 2, BUCKETS - 1]);
        assert_eq!(CommandStats::bucket_end_nanos(1), 2048);
    }
}
