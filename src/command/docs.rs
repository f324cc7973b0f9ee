//! The replies of `COMMAND` and its subcommands.
//!
//! What is said of each command was captured from a real Redis 7.0 into
//! `reference.resp` (see `tests/command_reference.rs`, which also writes it
//! anew): for each command its name, the reply to `COMMAND INFO` and the reply
//! to `COMMAND DOCS`, in RESP3. It is read when it is first asked for.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;

use super::{Call, ONCE, args, getkeys};
use crate::model::glob::{self, Case};
use crate::model::{Reply, Request};

static TEXT: &[u8] = include_bytes!("reference.resp");

/// One command or subcommand.
pub(super) struct Description {
    /// The reply to `COMMAND INFO`.
    pub info: Reply,
    /// The reply to `COMMAND DOCS`.
    docs: Reply,
}

/// All commands and subcommands by name, in lower case.
struct Reference {
    all: BTreeMap<Bytes, Description>,
}

/// The places in a `COMMAND INFO` reply.
pub(super) mod place {
    /// Arity.
    pub const ARITY: usize = 1;
    /// Flags.
    pub const FLAGS: usize = 2;
    /// Access control categories.
    pub const CATEGORIES: usize = 6;
    /// Where the keys are.
    pub const KEY_SPECIFICATIONS: usize = 8;
    /// The same of each subcommand.
    pub const SUBCOMMANDS: usize = 9;
}

/// Answers a call of the `COMMAND` family.
pub fn reply(call: &Call) -> Reply {
    let request = &call.request;
    match call.command.name {
        "COMMAND" => all_infos(),
        "COMMAND|COUNT" => Reply::Integer(commands().count() as i64),
        "COMMAND|INFO" if request.len() == 2 => all_infos(),
        "COMMAND|INFO" => {
            let infos = request.args().skip(2).map(|name| match describe(name) {
                Some((_, description)) => description.info.clone(),
                None => Reply::Null,
            });
            Reply::Array(infos.collect())
        }
        "COMMAND|DOCS" => docs(request),
        "COMMAND|LIST" => list(request),
        "COMMAND|GETKEYS" => getkeys::keys(request),
        "COMMAND|GETKEYSANDFLAGS" => getkeys::keys_and_flags(request),
        _ => Reply::Array(HELP.lines().map(Reply::Simple).collect()),
    }
}

/// The description of `name`, in any case of letters, and the name in lower case.
pub(super) fn describe(name: &[u8]) -> Option<(&'static Bytes, &'static Description)> {
    reference()
        .all
        .get_key_value(&name.to_ascii_lowercase()[..])
}

/// The commands without their subcommands.
fn commands() -> impl Iterator<Item = (&'static Bytes, &'static Description)> {
    let all = reference().all.iter();
    all.filter(|(name, _)| !name.contains(&b'|'))
}

fn all_infos() -> Reply {
    Reply::Array(commands().map(|(_, it)| it.info.clone()).collect())
}

/// Unknown names are left out, as in Redis.
fn docs(request: &Request) -> Reply {
    let pair = |(name, description): (&Bytes, &Description)| {
        (Reply::Bulk(name.clone()), description.docs.clone())
    };
    Reply::Map(if request.len() == 2 {
        commands().map(pair).collect()
    } else {
        request
            .args()
            .skip(2)
            .filter_map(describe)
            .map(pair)
            .collect()
    })
}

/// Whether the command or subcommand `name` is in an access control category (without `@`).
pub fn is_in_category(name: &str, category: &str) -> bool {
    describe(name.as_bytes()).is_some_and(|(_, it)| it.has_category(category.as_bytes()))
}

/// What `COMMAND LIST FILTERBY` keeps.
enum Filter<'a> {
    All,
    /// No modules are loaded, so none has commands.
    Module,
    Category(&'a [u8]),
    Pattern(&'a [u8]),
}

fn list(request: &Request) -> Reply {
    let filter = match request.len() {
        2 => Filter::All,
        5 if args::is_word(request.arg(2), "FILTERBY") => {
            let (kind, value) = (request.arg(3), request.arg(4));
            if args::is_word(kind, "MODULE") {
                Filter::Module
            } else if args::is_word(kind, "ACLCAT") {
                Filter::Category(value)
            } else if args::is_word(kind, "PATTERN") {
                Filter::Pattern(value)
            } else {
                return Reply::error("ERR syntax error");
            }
        }
        _ => return Reply::error("ERR syntax error"),
    };
    let kept = reference().all.iter().filter(|(name, it)| match filter {
        Filter::All => true,
        Filter::Module => false,
        Filter::Category(category) => it.has_category(category),
        Filter::Pattern(pattern) => glob::matches(pattern, name, Case::Insensitive),
    });
    Reply::Array(kept.map(|(name, _)| Reply::Bulk(name.clone())).collect())
}

impl Description {
    /// The part of the `COMMAND INFO` reply at `place`.
    pub fn part(&self, place: usize) -> &Reply {
        match &self.info {
            Reply::Array(parts) => parts.get(place).unwrap_or(&Reply::Null),
            _ => &Reply::Null,
        }
    }

    /// Whether `name` (without `@`) is one of its access control categories.
    fn has_category(&self, name: &[u8]) -> bool {
        items(self.part(place::CATEGORIES)).iter().any(|category| {
            matches!(category, Reply::Simple(text)
                if text.as_bytes()[1..].eq_ignore_ascii_case(name))
        })
    }
}

/// The items of an array or a set; of anything else, none.
pub(super) fn items(reply: &Reply) -> &[Reply] {
    match reply {
        Reply::Array(items) | Reply::Set(items) => items,
        _ => &[],
    }
}

/// The value of `name` in a map.
pub(super) fn field<'a>(map: &'a Reply, name: &str) -> &'a Reply {
    match map {
        Reply::Map(pairs) => pairs
            .iter()
            .find(|(key, _)| matches!(key, Reply::Bulk(key) if key == name))
            .map_or(&Reply::Null, |(_, value)| value),
        _ => &Reply::Null,
    }
}

fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        read_reference().expect("the reference is whole: tests/command_reference.rs reads it")
    })
}

fn read_reference() -> Option<Reference> {
    let mut reader = Reader { rest: TEXT };
    let mut all = BTreeMap::new();
    while !reader.rest.is_empty() {
        let name = reader.reply()?;
        let info = items(&reader.reply()?).first()?.clone();
        let Reply::Bulk(name) = name else {
            return None;
        };
        let Reply::Map(mut docs) = reader.reply()? else {
            return None;
        };
        let (_, docs) = docs.pop()?;
        let description = Description { info, docs };
        all.extend(subcommands_of(&description));
        all.insert(name, description);
    }
    let name = ONCE.name.to_ascii_lowercase();
    all.insert(name.into(), once());
    Some(Reference { all })
}

/// What is said of the one command that Redis does not have.
fn once() -> Description {
    let text = |text: &'static str| Reply::Bulk(Bytes::from_static(text.as_bytes()));
    let flags = ONCE.flags.names().map(Reply::Simple).collect();
    let zero = || Reply::Integer(0);
    let none = || Reply::Array(Vec::new());
    let info = Reply::Array(vec![
        Reply::bulk(ONCE.name.to_ascii_lowercase()),
        Reply::Integer(i64::from(ONCE.arity)),
        Reply::Set(flags),
        zero(),
        zero(),
        zero(),
        Reply::Set(vec![
            Reply::Simple("@write"),
            Reply::Simple("@slow"),
            Reply::Simple("@transaction"),
        ]),
        none(),
        none(),
        none(),
    ]);
    let docs = [
        (
            "summary",
            "Run a command, or the rest of a MULTI block, once however often it is sent",
        ),
        ("since", env!("CARGO_PKG_VERSION")),
        ("group", "transactions"),
        ("complexity", "That of the command"),
    ];
    let docs = docs.map(|(name, value)| (text(name), text(value)));
    Description {
        info,
        docs: Reply::Map(docs.into()),
    }
}

/// The subcommands, which stand within the description of their family.
fn subcommands_of(family: &Description) -> Vec<(Bytes, Description)> {
    let infos = items(family.part(place::SUBCOMMANDS));
    let docs = field(&family.docs, "subcommands");
    let described = infos.iter().filter_map(|info| {
        let Some(Reply::Bulk(name)) = items(info).first() else {
            return None;
        };
        let docs = field(docs, std::str::from_utf8(name).ok()?);
        let description = Description {
            info: info.clone(),
            docs: docs.clone(),
        };
        Some((name.clone(), description))
    });
    described.collect()
}

/// Reads the kinds of replies that the reference consists of.
struct Reader {
    rest: &'static [u8],
}

impl Reader {
    fn line(&mut self) -> Option<&'static str> {
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = &rest[2..];
        std::str::from_utf8(line).ok()
    }

    fn reply(&mut self) -> Option<Reply> {
        let (kind, text) = self.line()?.split_at_checked(1)?;
        let number = text.parse::<i64>();
        Some(match kind {
            "+" => Reply::Simple(text),
            ":" => Reply::Integer(number.ok()?),
            "_" => Reply::Null,
            "$" => {
                let (bulk, rest) = self.rest.split_at_checked(number.ok()? as usize)?;
                self.rest = rest.strip_prefix(b"\r\n")?;
                Reply::Bulk(Bytes::from_static(bulk))
            }
            "*" => Reply::Array(self.replies(number.ok()?)?),
            "~" => Reply::Set(self.replies(number.ok()?)?),
            "%" => {
                let mut pairs = Vec::new();
                for _ in 0..number.ok()? {
                    pairs.push((self.reply()?, self.reply()?));
                }
                Reply::Map(pairs)
            }
            _ => return None,
        })
    }

    fn replies(&mut self, count: i64) -> Option<Vec<Reply>> {
        (0..count).map(|_| self.reply()).collect()
    }
}

const HELP: &str = "\
COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:
(no subcommand)
    Return details about all Redis commands.
COUNT
    Return the total number of commands in this Redis server.
LIST
    Return a list of all commands in this Redis server.
INFO [<command-name> ...]
    Return details about multiple Redis commands.
    If no command names are given, documentation details for all
    commands are returned.
DOCS [<command-name> ...]
    Return documentation details about multiple Redis commands.
    If no command names are given, documentation details for all
    commands are returned.
GETKEYS <full-command>
    Return the keys from a full Redis command.
GETKEYSANDFLAGS <full-command>
    Return the keys and the access flags from a full Redis command.
HELP
    Prints this help.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{TABLE, resolve};

    #[test]
    fn the_reference_has_every_command() {
        for command in TABLE.iter().chain([&ONCE]) {
            let (name, description) = describe(command.name.as_bytes()).unwrap();
            assert_eq!(name, command.name.to_ascii_lowercase().as_bytes());
            assert!(!matches!(description.docs, Reply::Null));
        }
    }

    #[test]
    fn a_subcommand_is_described_by_its_full_name() {
        let call = resolve(Request::from_args(&["command", "docs", "Object|Freq", "x"])).unwrap();
        let Reply::Map(pairs) = reply(&call) else {
            panic!("no map");
        };
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].0, Reply::bulk("object|freq"));
        assert_eq!(field(&pairs[0].1, "group"), &Reply::bulk("generic"));
    }
}
