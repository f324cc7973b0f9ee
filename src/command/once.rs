//! `FRESHET.ONCE token command [arg ...]`: which commands may be made once, and what
//! becomes of one that is.
//!
//! The command behind the token is resolved like any other and goes its usual way with
//! the token at it: access rules, keys and statistics are those of the command itself.
//! `FRESHET.ONCE token` alone, as the first command of a MULTI block, makes the block once.

use std::fmt;
use std::sync::Arc;

use super::{Call, Class, Command, args, flags, resolve};
use crate::model::{Reply, Request};

/// Its name.
pub const NAME: &str = "FRESHET.ONCE";

/// The longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 255;

/// What a client calls one unit by, however often it sends it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// Its bytes, 1 to [`TOKEN_BYTES_MAX`].
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Whether `name` is that of this command, in any case of letters.
pub(super) fn is_it(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(NAME.as_bytes())
}

/// The call behind the token of `request`, with the token at it; without one behind it, the
/// call that stands first in a block.
pub(super) fn unwrap(command: &'static Command, request: Request) -> Result<Call, Reply> {
    let token = request.arg(1);
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(Reply::error(format!(
            "ERR the token of {NAME} must have 1 to {TOKEN_BYTES_MAX} bytes"
        )));
    }
    let token = Some(Token(Arc::from(token)));
    if request.len() == 2 {
        return Ok(Call {
            token,
            ..Call::new(command, request)
        });
    }
    if is_it(request.arg(2)) {
        return Err(refusal(command));
    }
    let rest: Vec<&[u8]> = request.args().skip(2).collect();
    let call = resolve(Request::from_args(&rest))?;
    if !may_be_once(&call) {
        return Err(refusal(call.command));
    }
    Ok(Call { token, ..call })
}

/// Whether the reply of `call` can be kept in the transaction that makes its changes: it writes
/// named keys, or is a script that may, and does not wait for others.
fn may_be_once(call: &Call) -> bool {
    match call.command.class {
        Class::Write => call.command.flags.has(flags::WRITE) && !blocks(call),
        Class::Script => !call.command.flags.has(flags::READONLY),
        _ => false,
    }
}

fn blocks(call: &Call) -> bool {
    if call.command.name != "XREADGROUP" {
        return call.command.flags.has(flags::BLOCKING);
    }
    let options = call.streams_word().unwrap_or(call.request.len());
    let mut options = call.request.args().take(options).skip(4);
    options.any(|option| args::is_word(option, "BLOCK"))
}

fn refusal(command: &Command) -> Reply {
    let name = command.name.to_ascii_lowercase();
    let why = match command.name {
        "MULTI" | "EXEC" => "send it without a command, as the first one of a MULTI block",
        _ if command.class == Class::Flush => "it cannot be part of a transaction",
        _ if command.flags.has(flags::BLOCKING) => "it waits for other clients",
        _ => "only commands that write keys can",
    };
    Reply::error(format!("ERR {NAME} cannot make '{name}' once: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(line: &str) -> Result<Call, String> {
        let words: Vec<&str> = line.split(' ').collect();
        resolve(Request::from_args(&words)).map_err(|reply| match reply {
            Reply::Error(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_command_behind_the_token_is_the_call() {
        for line in [
            "FRESHET.ONCE t INCR k",
            "freshet.once t SET k v NX",
            "FRESHET.ONCE t xreadgroup GROUP g c STREAMS BLOCK 0",
            "FRESHET.ONCE t XGROUP CREATE k g 0 MKSTREAM",
        ] {
            let call = resolved(line).unwrap();
            let plain = resolved(line.splitn(3, ' ').nth(2).unwrap()).unwrap();
            assert!(std::ptr::eq(call.command, plain.command), "{line}");
            assert_eq!(call.request.raw(), plain.request.raw());
            assert_eq!(call.token.unwrap().bytes(), b"t");
            assert!(plain.token.is_none());
        }
        let bare = resolved("FRESHET.ONCE t").unwrap();
        assert_eq!((bare.command.name, bare.request.len()), (NAME, 2));
    }

    #[test]
    fn what_cannot_be_made_once_is_refused_with_the_reason() {
        for (line, text) in [
            (
                "FRESHET.ONCE",
                "wrong number of arguments for 'freshet.once' command",
            ),
            (
                "FRESHET.ONCE t GET k",
                "cannot make 'get' once: only commands that write keys can",
            ),
            (
                "FRESHET.ONCE t SORT_RO k",
                "cannot make 'sort_ro' once: only commands that write keys can",
            ),
            (
                "FRESHET.ONCE t PUBLISH c m",
                "cannot make 'publish' once: only commands that write keys can",
            ),
            (
                "FRESHET.ONCE t SELECT 1",
                "cannot make 'select' once: only commands that write keys can",
            ),
            (
                "FRESHET.ONCE t BLPOP k 0",
                "cannot make 'blpop' once: it waits for other clients",
            ),
            (
                "FRESHET.ONCE t XREADGROUP GROUP g c COUNT 1 BLOCK 0 STREAMS k >",
                "cannot make 'xreadgroup' once: it waits for other clients",
            ),
            (
                "FRESHET.ONCE t FLUSHALL",
                "cannot make 'flushall' once: it cannot be part of a transaction",
            ),
            (
                "FRESHET.ONCE t EXEC",
                "cannot make 'exec' once: send it without a command, as the first one of a MULTI block",
            ),
            (
                "FRESHET.ONCE t FRESHET.ONCE u INCR k",
                "cannot make 'freshet.once' once: only commands that write keys can",
            ),
            (
                "FRESHET.ONCE t INCR",
                "wrong number of arguments for 'incr' command",
            ),
            ("FRESHET.ONCE t NOSUCH", "unknown command 'NOSUCH'"),
            (
                "FRESHET.ONCE  INCR k",
                "the token of FRESHET.ONCE must have 1 to 255 bytes",
            ),
        ] {
            let error = resolved(line).unwrap_err();
            assert!(error.contains(text), "{line}: {error}");
        }
        let long = format!("FRESHET.ONCE {} INCR k", "t".repeat(256));
        assert!(resolved(&long).unwrap_err().contains("1 to 255 bytes"));
    }
}
