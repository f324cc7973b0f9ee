//! Commands that are answered in place: the one list of who answers what.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use super::hub::Hub;
use super::state::Client;
use super::{
    access, acl, clients, help, info, latency, operations, settings, subscribe, tracking,
    transaction,
};
use crate::command::{Call, Class, args, docs, wrong_arity};
use crate::model::{Db, Reply};
use crate::resp::{self, parse_integer};

/// What becomes of the connection behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Continue,
    /// It is closed once the answer is sent.
    Close,
}

/// Answers a command of class `Local` or `Transaction`. `None` is no answer at all, which
/// `CLIENT REPLY OFF` and `SKIP` are due.
pub async fn answer(client: &mut Client, hub: &Hub, call: &Call) -> (Option<Reply>, After) {
    if call.command.class == Class::Transaction {
        let (reply, after) = transaction::answer(client, hub, call).await;
        return (Some(reply), after);
    }
    client.note_command(call);
    if let Some(reply) = subscribe::answer(client, hub, call).await {
        return (Some(reply), After::Continue);
    }
    let reply = match call.command.name {
        "QUIT" => {
            // Before the answer: who reads it may count on it.
            client.leave();
            return (Some(Reply::OK), After::Close);
        }
        "CLIENT|REPLY" => return (clients::reply(client, call), After::Continue),
        "CLIENT|KILL" => {
            let (reply, after) = clients::kill(client, hub, call);
            return (Some(reply), after);
        }
        // What waits is answered here; all others are answered at once.
        "INFO" => info::reply(hub, call).await,
        "DEBUG" => operations::debug(call).await,
        _ if call.command.family() == "FUNCTION" && !is_help(call) => {
            Box::pin(hub.flow.function(call)).await
        }
        _ if call.command.family() == "SCRIPT" && !is_help(call) => {
            Box::pin(hub.flow.script(call)).await
        }
        "CLIENT|TRACKING" => tracking::tracking(client, hub, call).await,
        "RESET" => reset(client, hub),
        _ => at_once(client, hub, call),
    };
    (Some(reply), After::Continue)
}

fn at_once(client: &mut Client, hub: &Hub, call: &Call) -> Reply {
    match call.command.name {
        "PING" => ping(client, call),
        "ECHO" => Reply::Bulk(call.request.arg_bytes(1)),
        "SELECT" => select(client, call),
        "AUTH" => access::auth(client, hub, call),
        "HELLO" => access::hello(client, hub, call),
        "TIME" => time(),
        "LOLWUT" => Reply::Verbatim(
            *b"txt",
            Bytes::from(format!("Redis ver. {}\n", access::REDIS_VERSION)),
        ),
        _ => match call.command.family() {
            "ACL" if !is_help(call) => acl::answer(client, hub, call),
            "CLIENT" if !is_help(call) => clients::answer(client, hub, call),
            "CONFIG" if !is_help(call) => settings::answer(hub, call),
            "LATENCY" if !is_help(call) => latency::answer(hub, call),
            "SLOWLOG" if !is_help(call) => slowlog(hub, call),
            "COMMAND" => docs::reply(call),
            family if is_help(call) => help::reply(family).unwrap_or_else(syntax_error),
            _ => operations::answer(hub, call),
        },
    }
}

fn is_help(call: &Call) -> bool {
    call.command.subcommand() == Some("HELP")
}

/// `ERR syntax error`.
pub fn syntax_error() -> Reply {
    Reply::error("ERR syntax error")
}

/// What Redis says of a subcommand whose arguments it cannot make sense of.
pub fn subcommand_error(call: &Call) -> Reply {
    error_with(
        "ERR unknown subcommand or wrong number of arguments for '",
        call.request.arg(1),
        &format!("'. Try {} HELP.", call.command.family()),
    )
}

/// `ERR value is not an integer or out of range`.
pub fn not_an_integer() -> Reply {
    Reply::error("ERR value is not an integer or out of range")
}

/// An error text with a client's own words in it.
pub fn error_with(before: &str, words: &[u8], after: &str) -> Reply {
    let mut text = before.as_bytes().to_vec();
    args::quote_into(&mut text, words, 128);
    text.extend_from_slice(after.as_bytes());
    Reply::Error(Bytes::from(text))
}

/// What was told before is older than the answer to `RESET`.
fn reset(client: &mut Client, hub: &Hub) -> Reply {
    let mut out = BytesMut::new();
    let protocol = client.protocol;
    let listened = client.listens();
    client.leave();
    if let Some(mailbox) = client.entry.mail() {
        mailbox.take(protocol, listened, &mut out);
    }
    client.reset(hub);
    resp::encode(&Reply::Simple("RESET"), client.protocol, &mut out);
    Reply::Raw(out.freeze())
}

fn ping(client: &Client, call: &Call) -> Reply {
    match call.request.len() {
        1 | 2 if let Some(reply) = subscribe::ping(client, call) => reply,
        1 => Reply::Simple("PONG"),
        2 => Reply::Bulk(call.request.arg_bytes(1)),
        _ => wrong_arity(call.command),
    }
}

fn select(client: &mut Client, call: &Call) -> Reply {
    match selected(call) {
        Ok(db) => {
            client.db = db;
            client.publish();
            Reply::OK
        }
        Err(reply) => reply,
    }
}

/// The database that a `SELECT` names.
pub fn selected(call: &Call) -> Result<Db, Reply> {
    let index = parse_integer(call.request.arg(1)).ok_or_else(not_an_integer)?;
    if i32::try_from(index).is_err() {
        return Err(Reply::error(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    let db = u8::try_from(index).ok().and_then(Db::new);
    db.ok_or_else(|| Reply::error("ERR DB index is out of range"))
}

fn time() -> Reply {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Reply::Array(vec![
        Reply::bulk(now.as_secs().to_string()),
        Reply::bulk(now.subsec_micros().to_string()),
    ])
}

fn slowlog(hub: &Hub, call: &Call) -> Reply {
    match call.command.subcommand() {
        Some("GET") => hub.slowlog.get(call),
        Some("LEN") => Reply::Integer(i64::try_from(hub.slowlog.len()).unwrap_or(i64::MAX)),
        Some("RESET") => {
            hub.slowlog.reset();
            Reply::OK
        }
        _ => wrong_arity(call.command),
    }
}
