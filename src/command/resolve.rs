//! From a request to a call: known command, right number of arguments, served.

use bytes::Bytes;

use super::{Call, Class, Command, ONCE, args, lookup, once};
use crate::model::{Reply, Request};

/// The most bytes of a client's text that an error repeats.
const QUOTE_MAX: usize = 128;

/// The call that `request` is, or the error that Redis gives for it (Freshet's
/// own for a Redis command that is not served). The request is not empty.
pub fn resolve(request: Request) -> Result<Call, Reply> {
    let command = find(&request)?;
    if !command.accepts(request.len()) {
        return Err(wrong_arity(command));
    }
    if command.class == Class::Unserved
        && let Some(refusal) = command.refusal()
    {
        return Err(refusal);
    }
    if std::ptr::eq(command, &ONCE) {
        return once::unwrap(command, request);
    }
    Ok(Call::new(command, request))
}

/// The row of the command or subcommand that `request`, which is not empty, names; if there is
/// none, the error that Redis gives.
pub fn find(request: &Request) -> Result<&'static Command, Reply> {
    let name = request.args().next().unwrap_or_default();
    let Some(command) = lookup(name) else {
        if once::is_it(name) {
            return Ok(&ONCE);
        }
        return Err(unknown_command(request));
    };
    if command.subcommands.is_empty() || request.len() == 1 {
        return Ok(command);
    }
    let second = request.arg(1);
    let found = command.subcommands.iter().find(|sub| {
        sub.subcommand()
            .is_some_and(|word| word.as_bytes().eq_ignore_ascii_case(second))
    });
    found.ok_or_else(|| unknown_subcommand(command, second))
}

/// `ERR wrong number of arguments for 'get' command`.
pub fn wrong_arity(command: &Command) -> Reply {
    Reply::error(format!(
        "ERR wrong number of arguments for '{}' command",
        command.name.to_ascii_lowercase()
    ))
}

fn unknown_command(request: &Request) -> Reply {
    let mut arguments = request.args();
    let mut text = b"ERR unknown command '".to_vec();
    args::quote_into(&mut text, arguments.next().unwrap_or_default(), QUOTE_MAX);
    text.extend_from_slice(b"', with args beginning with: ");
    let start = text.len();
    for arg in arguments {
        let used = text.len() - start;
        if used >= QUOTE_MAX {
            break;
        }
        text.push(b'\'');
        args::quote_into(&mut text, arg, QUOTE_MAX - used);
        text.extend_from_slice(b"' ");
    }
    Reply::Error(Bytes::from(text))
}

fn unknown_subcommand(family: &Command, second: &[u8]) -> Reply {
    let mut text = b"ERR unknown subcommand '".to_vec();
    args::quote_into(&mut text, second, QUOTE_MAX);
    text.extend_from_slice(format!("'. Try {} HELP.", family.name).as_bytes());
    Reply::Error(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(args: &[&str]) -> String {
        match resolve(Request::from_args(args)) {
            Err(Reply::Error(text)) => String::from_utf8(text.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_are_those_of_redis() {
        for (args, text) in [
            (
                &["foo", "a", "b"][..],
                "ERR unknown command 'foo', with args beginning with: 'a' 'b' ",
            ),
            (
                &["a\r\nb", "c\0d"],
                "ERR unknown command 'a  b', with args beginning with: 'c' ",
            ),
            (&["Get"], "ERR wrong number of arguments for 'get' command"),
            (
                &["object"],
                "ERR wrong number of arguments for 'object' command",
            ),
            (
                &["OBJECT", "Encoding"],
                "ERR wrong number of arguments for 'object|encoding' command",
            ),
            (
                &["object", "foo", "x"],
                "ERR unknown subcommand 'foo'. Try OBJECT HELP.",
            ),
            (
                &["lpush", "k"],
                "ERR wrong number of arguments for 'lpush' command",
            ),
            (
                &["migrate", "host", "1", "k", "0", "5"],
                "ERR Freshet does not serve 'migrate': its data stay in PostgreSQL, DUMP and RESTORE move \
                 single keys",
            ),
        ] {
            assert_eq!(error_of(args), text);
        }
    }

    #[test]
    fn long_arguments_are_cut() {
        let text = error_of(&[&"x".repeat(200), &"y".repeat(100), &"z".repeat(100), "w"]);
        let expected = format!(
            "ERR unknown command '{}', with args beginning with: '{}' '{}' ",
            "x".repeat(128),
            "y".repeat(100),
            "z".repeat(25)
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_subcommand_resolves_to_its_own_row() {
        let call = resolve(Request::from_args(&["object", "encoding", "k"])).unwrap();
        assert_eq!(call.command.name, "OBJECT|ENCODING");
        assert_eq!(call.command.family(), "OBJECT");
        assert_eq!(call.key_names().collect::<Vec<_>>(), ["k"]);
        let call = resolve(Request::from_args(&["mset", "a", "1", "b", "2"])).unwrap();
        assert_eq!(call.key_names().collect::<Vec<_>>(), ["a", "b"]);
    }
}
