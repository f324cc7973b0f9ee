//! `CLIENT`: what a connection says of itself, and sees and ends of others.

use std::time::Instant;

use bytes::Bytes;

use super::access::{check_name, set_name};
use super::hub::Hub;
use super::local::{After, error_with, not_an_integer, subcommand_error, syntax_error};
use super::registry::{Entry, Order, Unblock};
use super::state::{Client, Eviction, Replies};
use super::{pause, tracking};
use crate::command::args::is_word;
use crate::command::{Call, wrong_arity};
use crate::model::Reply;
use crate::resp::parse_integer;

/// Answers `CLIENT <subcommand>`, but for `REPLY` and `KILL`.
pub fn answer(client: &mut Client, hub: &Hub, call: &Call) -> Reply {
    match call.command.subcommand() {
        Some("ID") => integer(client.entry.id),
        Some("GETNAME") => {
            let name = client.entry.profile().name.clone();
            if name.is_empty() {
                Reply::Null
            } else {
                Reply::Bulk(name)
            }
        }
        Some("SETNAME") => {
            let name = call.request.arg_bytes(2);
            match check_name(&name) {
                Ok(()) => {
                    set_name(client, name);
                    Reply::OK
                }
                Err(reply) => reply,
            }
        }
        Some("SETINFO") => set_info(client, call),
        Some("INFO") => {
            let mut line = client.entry.line(Instant::now());
            line.push(b'\n');
            text(line)
        }
        Some("LIST") => list(hub, call),
        Some("NO-EVICT") => no_evict(client, call),
        Some("NO-TOUCH") => no_touch(call),
        Some("TRACKINGINFO") => tracking::info(client, hub),
        Some("GETREDIR") => tracking::redirect(client),
        Some("CACHING") => tracking::caching(client, call),
        Some("UNBLOCK") => unblock(hub, call),
        Some("PAUSE") => pause::pause(hub, call),
        Some("UNPAUSE") => pause::unpause(hub),
        _ => wrong_arity(call.command),
    }
}

fn integer(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

fn text(bytes: Vec<u8>) -> Reply {
    Reply::Verbatim(*b"txt", Bytes::from(bytes))
}

/// `CLIENT REPLY ON|OFF|SKIP`; only `ON` and a mistake are answered.
pub fn reply(client: &mut Client, call: &Call) -> Option<Reply> {
    let wish = call.request.arg(2);
    if is_word(wish, "ON") {
        client.replies = Replies::On;
        Some(Reply::OK)
    } else if is_word(wish, "OFF") {
        client.replies = Replies::Off;
        None
    } else if is_word(wish, "SKIP") {
        if client.replies != Replies::Off {
            client.replies = Replies::SkipNext;
        }
        None
    } else {
        Some(syntax_error())
    }
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER value`, as in Redis 7.2: client libraries
/// send it on every connect.
fn set_info(client: &Client, call: &Call) -> Reply {
    let (attribute, value) = (call.request.arg(2), call.request.arg(3));
    let name = if is_word(attribute, "LIB-NAME") {
        "lib-name"
    } else if is_word(attribute, "LIB-VER") {
        "lib-ver"
    } else {
        return error_with("ERR Unrecognized option '", attribute, "'");
    };
    if check_name(value).is_err() {
        return Reply::error(format!(
            "ERR {name} cannot contain spaces, newlines or special characters."
        ));
    }
    let value = Bytes::copy_from_slice(value);
    let mut profile = client.entry.profile();
    match name {
        "lib-name" => profile.library.name = value,
        _ => profile.library.version = value,
    }
    Reply::OK
}

fn no_evict(client: &Client, call: &Call) -> Reply {
    let wish = call.request.arg(2);
    client.entry.profile().eviction = if is_word(wish, "ON") {
        Eviction::Refused
    } else if is_word(wish, "OFF") {
        Eviction::Allowed
    } else {
        return syntax_error();
    };
    Reply::OK
}

/// `CLIENT NO-TOUCH ON|OFF`, as in Redis 7.2. Reads through Freshet never
/// change what PostgreSQL holds of a key, so there is nothing to leave untouched.
fn no_touch(call: &Call) -> Reply {
    let wish = call.request.arg(2);
    match is_word(wish, "ON") || is_word(wish, "OFF") {
        true => Reply::OK,
        false => syntax_error(),
    }
}

/// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`.
fn unblock(hub: &Hub, call: &Call) -> Reply {
    let request = &call.request;
    let how = match request.len() {
        3 => Unblock::Timeout,
        4 if is_word(request.arg(3), "TIMEOUT") => Unblock::Timeout,
        4 if is_word(request.arg(3), "ERROR") => Unblock::Error,
        4 => return Reply::error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        _ => return subcommand_error(call),
    };
    let Some(id) = parse_integer(request.arg(2)) else {
        return not_an_integer();
    };
    let entry = u64::try_from(id).ok().and_then(|id| hub.registry.find(id));
    Reply::Integer(i64::from(entry.is_some_and(|entry| entry.unblock(how))))
}

/// The kinds of clients that Redis tells apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Subscribed,
    /// Replicas and masters, of which Freshet has none.
    Replica,
}

impl Kind {
    fn named(name: &[u8]) -> Result<Self, Reply> {
        let kinds = [
            ("normal", Self::Normal),
            ("pubsub", Self::Subscribed),
            ("slave", Self::Replica),
            ("replica", Self::Replica),
            ("master", Self::Replica),
        ];
        let found = kinds.iter().find(|(word, _)| is_word(name, word));
        let found = found.map(|(_, kind)| *kind);
        found.ok_or_else(|| error_with("ERR Unknown client type '", name, "'"))
    }

    fn of(entry: &Entry) -> Self {
        match entry.profile().subscribed.is_any() {
            true => Self::Subscribed,
            false => Self::Normal,
        }
    }
}

fn list(hub: &Hub, call: &Call) -> Reply {
    let request = &call.request;
    let shown = match request.len() {
        2 => hub.registry.entries(),
        4 if is_word(request.arg(2), "TYPE") => match Kind::named(request.arg(3)) {
            Ok(kind) => {
                let mut entries = hub.registry.entries();
                entries.retain(|entry| Kind::of(entry) == kind);
                entries
            }
            Err(reply) => return reply,
        },
        count if count > 3 && is_word(request.arg(2), "ID") => {
            let ids: Option<Vec<u64>> = request
                .args()
                .skip(3)
                .map(|id| parse_integer(id).and_then(|id| u64::try_from(id).ok()))
                .collect();
            let Some(ids) = ids else {
                return Reply::error("ERR Invalid client ID");
            };
            let mut entries = hub.registry.entries();
            entries.retain(|entry| ids.contains(&entry.id));
            entries
        }
        _ => return syntax_error(),
    };
    let now = Instant::now();
    let mut lines = Vec::new();
    for entry in shown {
        lines.extend(entry.line(now));
        lines.push(b'\n');
    }
    text(lines)
}

/// Whom `CLIENT KILL` is to end: those that fit all that is given.
#[derive(Default)]
struct Filter {
    id: Option<u64>,
    peer: Option<Bytes>,
    local: Option<Bytes>,
    user: Option<Bytes>,
    kind: Option<Kind>,
    spare_self: bool,
}

impl Filter {
    fn fits(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<Bytes>, text: &dyn Fn() -> String| {
            wanted
                .as_ref()
                .is_none_or(|wanted| text().as_bytes() == wanted)
        };
        self.id.is_none_or(|id| id == entry.id)
            && self.kind.is_none_or(|kind| kind == Kind::of(entry))
            && is(&self.peer, &|| entry.peer.to_string())
            && is(&self.local, &|| entry.local.to_string())
            && is(&self.user, &|| entry.profile().user.to_string())
    }
}

/// `CLIENT KILL address`, or `CLIENT KILL filter value ...`.
pub fn kill(client: &Client, hub: &Hub, call: &Call) -> (Reply, After) {
    let old_form = call.request.len() == 3;
    let filter = if old_form {
        Ok(Filter {
            peer: Some(call.request.arg_bytes(2)),
            ..Filter::default()
        })
    } else {
        filter(hub, call)
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(reply) => return (reply, After::Continue),
    };
    let mut after = After::Continue;
    let mut killed = 0;
    for entry in hub.registry.entries() {
        if !filter.fits(&entry) {
            continue;
        }
        if entry.id != client.entry.id {
            entry.tell(Order::Close);
        } else if filter.spare_self {
            continue;
        } else {
            // The answer goes out first.
            after = After::Close;
        }
        killed += 1;
    }
    let reply = match (old_form, killed) {
        (true, 0) => Reply::error("ERR No such client"),
        (true, _) => Reply::OK,
        (false, killed) => Reply::Integer(killed),
    };
    (reply, after)
}

fn filter(hub: &Hub, call: &Call) -> Result<Filter, Reply> {
    let mut filter = Filter {
        spare_self: true,
        ..Filter::default()
    };
    let request = &call.request;
    for at in (2..request.len()).step_by(2) {
        if at + 1 == request.len() {
            return Err(syntax_error());
        }
        let (option, value) = (request.arg(at), request.arg_bytes(at + 1));
        if is_word(option, "ID") {
            let id = parse_integer(&value).and_then(|id| u64::try_from(id).ok());
            filter.id = Some(
                id.filter(|id| *id > 0)
                    .ok_or_else(|| Reply::error("ERR client-id should be greater than 0"))?,
            );
        } else if is_word(option, "TYPE") {
            filter.kind = Some(Kind::named(&value)?);
        } else if is_word(option, "ADDR") {
            filter.peer = Some(value);
        } else if is_word(option, "LADDR") {
            filter.local = Some(value);
        } else if is_word(option, "USER") {
            check_user(hub, &value)?;
            filter.user = Some(value);
        } else if is_word(option, "SKIPME") && is_word(&value, "YES") {
            filter.spare_self = true;
        } else if is_word(option, "SKIPME") && is_word(&value, "NO") {
            filter.spare_self = false;
        } else {
            return Err(syntax_error());
        }
    }
    Ok(filter)
}

fn check_user(hub: &Hub, name: &[u8]) -> Result<(), Reply> {
    if hub.users.find(name).is_some() {
        return Ok(());
    }
    Err(error_with("ERR No such user '", name, "'"))
}
