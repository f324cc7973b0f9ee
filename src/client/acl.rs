//! `ACL`: the users, and what they may do.

use std::sync::Arc;

use bytes::Bytes;

use super::hub::Hub;
use super::local::{error_with, not_an_integer, subcommand_error};
use super::registry::Order;
use super::state::Client;
use super::users::DEFAULT_USER;
use crate::acl::{CATEGORIES, Denied, category_commands, join_selectors};
use crate::command::args::is_word;
use crate::command::{Call, resolve, wrong_arity};
use crate::model::{Reply, Request};
use crate::resp::parse_integer;

/// Lines of `ACL LOG` where no number is given.
const LOG_DEFAULT: usize = 10;
/// Bits of `ACL GENPASS` without a number, and at most.
const PASSWORD_BITS: i64 = 256;
const PASSWORD_BITS_MAX: i64 = 4096;

const NO_FILE: &str = "ERR This Redis instance is not configured to use an ACL file. You may want \
                       to specify users via the ACL SETUSER command and then issue a CONFIG \
                       REWRITE (assuming you have a Redis configuration file set) in order to \
                       store users in the Redis configuration.";

/// Answers `ACL <subcommand>`.
pub fn answer(client: &Client, hub: &Hub, call: &Call) -> Reply {
    hub.users.follow(&hub.config().auth);
    match call.command.subcommand() {
        Some("WHOAMI") => match &client.user {
            Some(user) => Reply::bulk(user.name.to_string()),
            None => Reply::Null,
        },
        Some("USERS") => {
            let names = hub.users.all();
            Reply::Array(
                names
                    .iter()
                    .map(|it| Reply::bulk(it.name.to_string()))
                    .collect(),
            )
        }
        Some("LIST") => {
            let line = |name: &str, rules: String| Reply::bulk(format!("user {name} {rules}"));
            let users = hub.users.all();
            Reply::Array(
                users
                    .iter()
                    .map(|it| line(&it.name, it.rules().line()))
                    .collect(),
            )
        }
        Some("GETUSER") => match hub.users.find(call.request.arg(2)) {
            Some(user) => user.rules().describe(),
            None => Reply::Null,
        },
        Some("SETUSER") => set_user(hub, call),
        Some("DELUSER") => delete_users(hub, call),
        Some("CAT") => categories(call),
        Some("DRYRUN") => dry_run(hub, call),
        Some("LOG") => log(hub, call),
        Some("GENPASS") => password(call),
        Some("LOAD") => load(hub),
        Some("SAVE") => save(hub),
        _ => wrong_arity(call.command),
    }
}

fn set_user(hub: &Hub, call: &Call) -> Reply {
    let name = call.request.arg(2);
    if name
        .iter()
        .any(|byte| byte.is_ascii_whitespace() || *byte == 0)
    {
        return Reply::error("ERR Usernames can't contain spaces or null characters");
    }
    let words: Vec<Bytes> = (3..call.request.len())
        .map(|index| call.request.arg_bytes(index))
        .collect();
    let rules = match join_selectors(&words) {
        Ok(rules) => rules,
        Err(start) => {
            let before = "ERR Unmatched parenthesis in acl selector starting at '";
            return error_with(before, &start, "'.");
        }
    };
    match hub.users.change(name, &rules) {
        Ok(()) => Reply::OK,
        Err((rule, mistake)) => {
            let before = "ERR Error in ACL SETUSER modifier '";
            error_with(before, &rule, &format!("': {mistake}"))
        }
    }
}

/// Those who are logged in as a user that goes are disconnected.
fn delete_users(hub: &Hub, call: &Call) -> Reply {
    let names = || call.request.args().skip(2);
    if names().any(|name| name == DEFAULT_USER.as_bytes()) {
        return Reply::error("ERR The 'default' user cannot be removed");
    }
    let mut removed = 0;
    for account in names().filter_map(|name| hub.users.remove(name)) {
        removed += 1;
        for entry in hub.registry.entries() {
            if entry.profile().user == account.name {
                entry.tell(Order::Close);
            }
        }
    }
    Reply::Integer(removed)
}

/// Those who are logged in as another user than `default` are disconnected, as by Redis.
fn load(hub: &Hub) -> Reply {
    let Some(file) = &hub.config().acl.file else {
        return Reply::error(NO_FILE);
    };
    if let Err(mistakes) = hub.users.load(file) {
        return Reply::error(format!("ERR {mistakes}"));
    }
    for entry in hub.registry.entries() {
        let user = Arc::clone(&entry.profile().user);
        if !user.is_empty() && *user != *DEFAULT_USER {
            entry.tell(Order::Close);
        }
    }
    Reply::OK
}

fn save(hub: &Hub) -> Reply {
    let Some(file) = &hub.config().acl.file else {
        return Reply::error(NO_FILE);
    };
    match hub.users.save(file) {
        Ok(()) => Reply::OK,
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "the ACL file cannot be written");
            Reply::error(
                "ERR There was an error trying to save the ACLs. Please check the server logs for \
                 more information",
            )
        }
    }
}

fn categories(call: &Call) -> Reply {
    match call.request.len() {
        2 => Reply::Array(CATEGORIES.iter().map(|name| Reply::bulk(*name)).collect()),
        3 => match category_commands(call.request.arg(2)) {
            Some(names) => Reply::Array(names.into_iter().map(Reply::bulk).collect()),
            None => error_with("ERR Unknown category '", call.request.arg(2), "'"),
        },
        _ => subcommand_error(call),
    }
}

fn dry_run(hub: &Hub, call: &Call) -> Reply {
    let Some(user) = hub.users.find(call.request.arg(2)) else {
        return error_with("ERR User '", call.request.arg(2), "' not found");
    };
    let words: Vec<&[u8]> = call.request.args().skip(3).collect();
    let call = match resolve(Request::from_args(&words)) {
        Ok(call) => call,
        Err(Reply::Error(text)) if text.starts_with(b"ERR unknown ") => {
            return error_with("ERR Command '", words[0], "' not found");
        }
        Err(reply) => return reply,
    };
    let argument = |index: usize| String::from_utf8_lossy(call.request.arg(index)).into_owned();
    let what = match user.rules().judge(&call) {
        Ok(()) => return Reply::OK,
        Err(Denied::Command) => {
            format!(
                "run the '{}' command",
                call.command.name.to_ascii_lowercase()
            )
        }
        Err(Denied::Key(index)) => format!("access the '{}' key", argument(index)),
        Err(Denied::Channel(index)) => format!("access the '{}' channel", argument(index)),
    };
    Reply::bulk(format!("This user has no permissions to {what}"))
}

fn log(hub: &Hub, call: &Call) -> Reply {
    match call.request.len() {
        2 => hub.users.log(LOG_DEFAULT),
        3 if is_word(call.request.arg(2), "RESET") => {
            hub.users.clear_log();
            Reply::OK
        }
        3 => match parse_integer(call.request.arg(2)) {
            Some(count) => hub.users.log(usize::try_from(count).unwrap_or(0)),
            None => not_an_integer(),
        },
        _ => subcommand_error(call),
    }
}

fn password(call: &Call) -> Reply {
    let bits = match call.request.len() {
        2 => Some(PASSWORD_BITS),
        3 => parse_integer(call.request.arg(2)),
        _ => return subcommand_error(call),
    };
    let Some(bits) = bits else {
        return not_an_integer();
    };
    if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
        return Reply::error(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to 4096",
        );
    }
    let digit = |_| char::from(b"0123456789abcdef"[rand::random_range(0..16)]);
    Reply::bulk((0..(bits + 3) / 4).map(digit).collect::<String>())
}
