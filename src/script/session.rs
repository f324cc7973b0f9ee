//! One run of a script: what it runs on, and what it did.

use std::sync::Arc;

use ahash::AHashSet;
use bytes::Bytes;

use super::control::Ended;
use super::number::Draw;
use super::pool::Source;
use crate::acl::{Denied, User};
use crate::command::{Call, Class, Command, find, flags};
use crate::engine::{self, Workspace};
use crate::model::{Db, Event, KEY_BYTES_MAX, Key, Protocol, Reply, Request, UnixMs};
use crate::routing::{Routes, Verdict};

/// Whether a script may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// As any client.
    ReadWrite,
    /// A write of it is refused.
    ReadOnly,
}

/// What a script asked for that is done once its unit is committed, in order.
#[derive(Clone, Debug)]
pub enum Deed {
    /// `PUBLISH` or `SPUBLISH`.
    Publish(Request),
    /// A line for the log, with Redis's level (0 to 3).
    Log(u8, Bytes),
}

/// More refusals of one run are not told.
const REFUSED_MAX: usize = 128;

/// At most so many deeds of one run, and so many bytes of a line of the log.
const DEEDS_MAX: usize = 100_000;
const LOG_BYTES_MAX: usize = 1024;

/// What a run works on while Lua has control.
pub(super) struct Session {
    pub(super) workspace: Workspace,
    pub(super) events: Option<Vec<Event>>,
    pub(super) now: UnixMs,
    pub(super) db: Db,
    pub(super) user: Option<Arc<User>>,
    pub(super) routes: Option<Arc<Routes>>,
    pub(super) access: Access,
    /// What it has asked for with `redis.setresp`.
    pub(super) protocol: Protocol,
    pub(super) draw: Draw,
    pub(super) deeds: Vec<Deed>,
    /// What its user was refused.
    pub(super) refused: Vec<(Call, Denied)>,
    /// The keys that it has named so far.
    pub(super) touched: AHashSet<Key>,
    pub(super) source: Option<Arc<dyn Source>>,
}

/// What a command of a script came to.
pub(super) enum Outcome {
    Reply(Reply),
    /// The run is over.
    Ended(Ended),
}

impl Session {
    /// Runs one command as the script named it.
    pub(super) fn call(&mut self, request: Request) -> Outcome {
        let call = match self.admit(request) {
            Ok(call) => call,
            Err(text) => return Outcome::Reply(Reply::error(text)),
        };
        match call.command.class {
            Class::Read | Class::Expiry | Class::Write => self.run(&call),
            Class::Keyspace => match &self.source {
                Some(source) => Outcome::Reply(source.list(&call, self.db)),
                None => Outcome::Ended(Ended::Elsewhere),
            },
            _ => Outcome::Reply(self.answer(&call)),
        }
    }

    fn admit(&mut self, request: Request) -> Result<Call, String> {
        let unknown = "ERR Unknown Redis command called from script";
        let command = find(&request).map_err(|_| unknown.to_owned())?;
        if !command.accepts(request.len()) {
            return Err("ERR Wrong number of args calling Redis command from script".to_owned());
        }
        if command.flags.has(flags::NOSCRIPT) {
            return Err("ERR This Redis command is not allowed from script".to_owned());
        }
        let call = Call::new(command, request);
        if let Some(denied) = self.denied(&call) {
            let text = format!("ERR {}", refused(&denied));
            if self.refused.len() < REFUSED_MAX {
                self.refused.push((call, denied));
            }
            return Err(text);
        }
        if self.access == Access::ReadOnly && command.flags.has(flags::WRITE) {
            return Err("ERR Write commands are not allowed from read-only scripts.".to_owned());
        }
        if matches!(command.name, "XREAD" | "XREADGROUP") && engine::waits(&call).is_some() {
            let name = command.name.to_ascii_lowercase();
            return Err(format!(
                "ERR {name} command is not allowed with BLOCK option from scripts"
            ));
        }
        if is_elsewhere(command) {
            let name = command.name.to_ascii_lowercase();
            return Err(format!(
                "ERR Freshet does not serve '{name}' in scripts; nothing was changed by it"
            ));
        }
        self.check_route(&call)?;
        Ok(call)
    }

    /// Refuses what the routes of the call's keys do not allow here.
    fn check_route(&self, call: &Call) -> Result<(), String> {
        let Some(routes) = &self.routes else {
            return Ok(());
        };
        match routes.judge(call) {
            Verdict::Atomic | Verdict::Eventual => Ok(()),
            Verdict::Refused(Reply::Error(text)) => {
                Err(String::from_utf8_lossy(&text).into_owned())
            }
            Verdict::Mapped => {
                Err("ERR keys of mapped tables are not written by scripts".to_owned())
            }
            Verdict::WriteBehind => Err(
                "ERR keys of write-behind routes are not served in scripts; nothing was changed by it"
                    .to_owned(),
            ),
            Verdict::CacheOnly | Verdict::Refused(_) => Err(
                "ERR keys of cache-only routes are not served in scripts; nothing was changed by it"
                    .to_owned(),
            ),
        }
    }

    /// What the script's user may not do of `call`.
    pub(super) fn denied(&self, call: &Call) -> Option<Denied> {
        let user = self.user.as_ref()?;
        user.judge(call).err()
    }

    fn run(&mut self, call: &Call) -> Outcome {
        let is_long = |key: Key| key.name.len() > KEY_BYTES_MAX;
        if call.keys(self.db).any(is_long) {
            let text = "ERR the key is longer than 2600 bytes, which PostgreSQL cannot index";
            return Outcome::Reply(Reply::error(text));
        }
        self.touched.extend(call.keys(self.db));
        loop {
            if let Some(reply) = self.attempt(call) {
                return Outcome::Reply(reply);
            }
            let Some(source) = self.source.clone() else {
                return Outcome::Ended(Ended::Short);
            };
            let wanted = self.workspace.take_wanted();
            if !source.load(wanted, &mut self.workspace) {
                return Outcome::Ended(Ended::Short);
            }
            self.workspace.resume();
        }
    }

    /// Runs a call on what is loaded; `None` if that is too little.
    fn attempt(&mut self, call: &Call) -> Option<Reply> {
        if self.workspace.lacks(call, self.db) {
            return None;
        }
        let reply = match &mut self.events {
            Some(events) => {
                engine::execute_telling(call, self.db, &mut self.workspace, self.now, events)
            }
            None => engine::execute(call, self.db, &mut self.workspace, self.now),
        };
        (!self.workspace.is_short()).then_some(reply)
    }

    /// Commands that need no key.
    fn answer(&mut self, call: &Call) -> Reply {
        let request = &call.request;
        match call.command.name {
            "PING" if request.len() > 2 => {
                Reply::error("ERR wrong number of arguments for 'ping' command")
            }
            "PING" if request.len() == 2 => Reply::Bulk(request.arg_bytes(1)),
            "PING" => Reply::Simple("PONG"),
            "ECHO" => Reply::Bulk(request.arg_bytes(1)),
            "TIME" => {
                let (seconds, ms) = (self.now.0.div_euclid(1000), self.now.0.rem_euclid(1000));
                let micros = (ms * 1000).to_string();
                Reply::Array(vec![Reply::bulk(seconds.to_string()), Reply::bulk(micros)])
            }
            "SELECT" => self.select(request),
            "PUBLISH" | "SPUBLISH" => {
                if self.deeds.len() >= DEEDS_MAX {
                    return Reply::error("ERR the script publishes too many messages");
                }
                self.deeds.push(Deed::Publish(request.clone()));
                // Nobody has got it yet: it is sent once the script is committed.
                Reply::Integer(0)
            }
            _ => Reply::error("ERR Freshet does not serve this command in scripts"),
        }
    }

    fn select(&mut self, request: &Request) -> Reply {
        let Some(index) = crate::command::args::integer(request.arg(1)) else {
            return Reply::error("ERR value is not an integer or out of range");
        };
        match u8::try_from(index).ok().and_then(Db::new) {
            Some(db) => {
                self.db = db;
                Reply::OK
            }
            None => Reply::error("ERR DB index is out of range"),
        }
    }

    /// Keeps a line for the log.
    pub(super) fn log(&mut self, level: u8, line: &[u8]) {
        if self.deeds.len() < DEEDS_MAX {
            let line = Bytes::copy_from_slice(&line[..line.len().min(LOG_BYTES_MAX)]);
            self.deeds.push(Deed::Log(level, line));
        }
    }
}

/// What cannot be done within a transaction of the store, or is answered by a connection.
fn is_elsewhere(command: &Command) -> bool {
    match command.class {
        Class::Read | Class::Expiry | Class::Write | Class::Keyspace => false,
        _ => !matches!(
            command.name,
            "PING" | "ECHO" | "TIME" | "SELECT" | "PUBLISH" | "SPUBLISH"
        ),
    }
}

fn refused(denied: &Denied) -> &'static str {
    match denied {
        Denied::Command => "The user executing the script can't run this command or subcommand",
        Denied::Key(_) => {
            "The user executing the script can't access at least one of the keys mentioned in the \
             command arguments"
        }
        Denied::Channel(_) => {
            "The user executing the script can't publish to the channel mentioned in the command"
        }
    }
}
