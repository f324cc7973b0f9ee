//! What Freshet says of commands is what a real Redis 7.0 says: the table, and
//! the replies of the `COMMAND` family.
//!
//! `src/command/reference.resp` holds Redis's own description of its commands.
//! `FRESHET_WRITE_REFERENCE=1 cargo test --test command_reference` writes it anew
//! from the installed redis-server.
//!
//! `docs/commands.md` says of each of them how it is served. `FRESHET_WRITE_DOCS=1` with the same
//! command writes it.

#[allow(
    dead_code,
    reason = "shared with the integration tests, which use all of it"
)]
mod support {
    pub mod client;
    pub mod port;
    pub mod process;
    pub mod redis;
}

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use freshet::command::{Class, Command, Keys, Served, TABLE, docs, find, resolve};
use freshet::model::{Protocol, Reply, Request};
use freshet::resp::{decode_reply, encode};
use support::client::{Client, show};
use support::redis::Redis;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/command/reference.resp");

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");

/// Rows of the table that Redis 7.0 does not have.
const ADDED: &[&str] = &["CLIENT|SETINFO", "CLIENT|NO-TOUCH"];

fn connect(redis: &Redis, version: &str) -> Result<Client> {
    let mut client = redis.client()?;
    client.ok(&["HELLO", version])?;
    Ok(client)
}

fn ask<A: AsRef<[u8]>>(client: &mut Client, arguments: &[A]) -> Result<Reply> {
    client.send(arguments)?;
    Ok(decode_reply(&Bytes::from(client.read_with_bytes()?.1))?)
}

fn encoded(reply: &Reply, protocol: Protocol) -> Bytes {
    let mut out = BytesMut::new();
    encode(reply, protocol, &mut out);
    out.freeze()
}

/// The same reply in an order that does not depend on the server's hash seed.
fn sorted(reply: Reply) -> Reply {
    let key = |reply: &Reply| encoded(reply, Protocol::Resp3);
    match reply {
        // Lists of commands and subcommands; all other arrays are in Redis's own order.
        Reply::Array(items) if items.iter().all(is_command) => {
            let mut items: Vec<Reply> = items.into_iter().map(sorted).collect();
            items.sort_by_key(key);
            Reply::Array(items)
        }
        Reply::Array(items) => Reply::Array(items.into_iter().map(sorted).collect()),
        Reply::Map(pairs) => {
            let are_commands = pairs.iter().all(|(_, value)| is_documentation(value));
            let mut pairs: Vec<(Reply, Reply)> = pairs
                .into_iter()
                .map(|(name, value)| (name, sorted(value)))
                .collect();
            if are_commands {
                pairs.sort_by_key(|(name, _)| key(name));
            }
            Reply::Map(pairs)
        }
        other => other,
    }
}

fn is_command(reply: &Reply) -> bool {
    matches!(reply, Reply::Array(parts) if parts.len() == 10)
}

fn is_documentation(reply: &Reply) -> bool {
    matches!(reply, Reply::Map(pairs)
        if pairs.first().is_some_and(|(name, _)| *name == Reply::bulk("summary")))
}

/// For each command in order of names: the name, `COMMAND INFO`, `COMMAND DOCS`.
fn reference(client: &mut Client) -> Result<Bytes> {
    let Reply::Array(mut names) = ask(client, &["COMMAND", "LIST"])? else {
        anyhow::bail!("COMMAND LIST is no array");
    };
    names.sort_by_key(|name| encoded(name, Protocol::Resp3).split_off(1));
    let mut names: Vec<Bytes> = names
        .into_iter()
        .filter_map(|name| match name {
            Reply::Bulk(name) if !name.contains(&b'|') => Some(name),
            _ => None,
        })
        .collect();
    names.sort();
    let mut out = BytesMut::new();
    for name in names {
        encode(&Reply::Bulk(name.clone()), Protocol::Resp3, &mut out);
        for subcommand in [&b"INFO"[..], b"DOCS"] {
            let reply = ask(client, &[&b"COMMAND"[..], subcommand, &name])?;
            encode(&sorted(reply), Protocol::Resp3, &mut out);
        }
    }
    Ok(out.freeze())
}

#[test]
fn reference_is_what_redis_says() -> Result<()> {
    let redis = Redis::start()?;
    let fresh = reference(&mut connect(&redis, "3")?)?;
    if std::env::var_os("FRESHET_WRITE_REFERENCE").is_some() {
        std::fs::write(REFERENCE, &fresh)?;
        return Ok(());
    }
    let kept = std::fs::read(REFERENCE)?;
    ensure!(
        kept == fresh,
        "{REFERENCE} is not that of the installed Redis"
    );
    Ok(())
}

/// The rows of the table and of all its families.
fn rows() -> impl Iterator<Item = &'static Command> {
    TABLE
        .iter()
        .flat_map(|row| row.subcommands.iter().chain([row]))
}

#[test]
fn table_agrees_with_redis() -> Result<()> {
    let redis = Redis::start()?;
    let mut client = connect(&redis, "3")?;
    ensure!(client.integer(&["COMMAND", "COUNT"])? == TABLE.len() as i64);
    let Reply::Array(names) = ask(&mut client, &["COMMAND", "LIST"])? else {
        anyhow::bail!("COMMAND LIST is no array");
    };
    ensure!(names.len() + ADDED.len() == rows().count());
    for row in rows().filter(|row| !ADDED.contains(&row.name)) {
        let name = row.name.to_ascii_lowercase();
        let Reply::Array(infos) = ask(&mut client, &["COMMAND", "INFO", &name])? else {
            anyhow::bail!("COMMAND INFO is no array");
        };
        let Some(Reply::Array(info)) = infos.first() else {
            anyhow::bail!("Redis has no {name}");
        };
        ensure!(info[1] == Reply::Integer(i64::from(row.arity)), "{name}");
        let flags = row
            .flags
            .names()
            .map(|flag| Reply::Raw(Bytes::from(format!("+{flag}\r\n"))));
        let mut flags: Vec<Bytes> = flags.map(|flag| encoded(&flag, Protocol::Resp3)).collect();
        let Reply::Set(theirs) = &info[2] else {
            anyhow::bail!("flags of {name} are no set");
        };
        let mut theirs: Vec<Bytes> = theirs
            .iter()
            .map(|flag| encoded(flag, Protocol::Resp3))
            .collect();
        flags.sort();
        theirs.sort();
        ensure!(
            flags == theirs,
            "flags of {name}: {flags:?}, in Redis {theirs:?}"
        );
        if let Keys::Range { first, last, step } = row.keys {
            let ours = [i64::from(first), i64::from(last), i64::from(step)].map(Reply::Integer);
            ensure!(info[3..6] == ours, "keys of {name}");
        }
    }
    Ok(())
}

/// Requests of the `COMMAND` family, and what else is answered before any
/// command runs.
const REQUESTS: &[&str] = &[
    "COMMAND",
    "COMMAND COUNT",
    "COMMAND COUNT x",
    "COMMAND HELP",
    "COMMAND FOO",
    "COMMAND INFO",
    "COMMAND INFO get nothing Object|Encoding GET|x client|id|x",
    "COMMAND DOCS",
    "COMMAND DOCS get nothing client|id Object",
    "COMMAND LIST",
    "COMMAND LIST FILTERBY MODULE x",
    "COMMAND LIST FILTERBY ACLCAT geo",
    "COMMAND LIST filterby aclcat KEYSPACE",
    "COMMAND LIST FILTERBY ACLCAT foo",
    "COMMAND LIST FILTERBY PATTERN gEt*",
    "COMMAND LIST FILTERBY PATTERN x*|h[a-f]*",
    "COMMAND LIST FILTERBY foo x",
    "COMMAND LIST foo bar baz",
    "COMMAND LIST FILTERBY",
    "COMMAND GETKEYS",
    "COMMAND GETKEYS get",
];

/// Full commands whose keys are asked for.
const KEYED: &[&str] = &[
    "foo bar",
    "client foo",
    "client id",
    "ping x",
    "object help",
    "object encoding k",
    "memory usage k samples 5",
    "set a",
    "set a b",
    "set a b NX get",
    "set a b getx",
    "mset a 1 b 2",
    "mset a 1 b",
    "mset a",
    "del a b a",
    "bitop and d a b",
    "bitfield a get u1 0",
    "bitfield a set u1 0 1 get u1 0",
    "bitfield a overflow sat get u1 0",
    "bitfield a get u1",
    "bitfield a",
    "bitfield_ro a get u1 0",
    "copy a b",
    "rename a b",
    "sort a by store get store store 5 limit 0",
    "sort a store x store y",
    "sort a limit 0 store store z",
    "sort a",
    "sort_ro a by x",
    "migrate h 1 k 0 5",
    "migrate h 1 {} 0 5",
    "migrate h 1 {} 0 5 auth keys keys a b",
    "migrate h 1 {} 0 5 auth2 u keys copy keys a b",
    "migrate h 1 k 0 5 keys a b",
    "georadius a b c d e",
    "georadius a b c d e store x",
    "georadius a b c d e store x storedist y",
    "georadius a b c d e storedist y store",
    "georadiusbymember a b c d storedist y",
    "georadiusbymember a b c d",
    "geosearchstore a b c d e f g",
    "xread streams a b c",
    "xread count 5 streams a b 0 0",
    "xread a b c",
    "xreadgroup group g c count streams streams a 1",
    "eval x 2 a b c",
    "eval x 5 a",
    "eval x 0 a",
    "eval x y a",
    "evalsha_ro x 1 k",
    "fcall f 1 k",
    "zunionstore d 2 a b weights 1 2",
    "zunionstore d 5 a b",
    "zunionstore d 0 a",
    "zinter x a",
    "zinter 2 a b",
    "sintercard 1 a limit 3",
    "lmpop 1 a left",
    "blmpop 0 2 a b left",
    "bzmpop 0 1 a min",
    "blpop a b 0",
    "pfdebug x k",
    "pfmerge d a b",
    "spublish c m",
    "xgroup create k g 0",
    "xgroup help",
    "xinfo stream k full",
    "watch a b",
    "lcs a b",
    "smove a b c",
    "restore k 0 x replace",
    "command getkeys get k",
];

#[test]
fn replies_are_those_of_redis() -> Result<()> {
    let redis = Redis::start()?;
    let mut requests: Vec<Vec<String>> = REQUESTS.iter().map(|line| words(line)).collect();
    for line in KEYED {
        for subcommand in ["GETKEYS", "GetKeysAndFlags"] {
            requests.push(words(&format!("COMMAND {subcommand} {line}")));
        }
    }
    for (version, protocol) in [("2", Protocol::Resp2), ("3", Protocol::Resp3)] {
        let mut client = connect(&redis, version)?;
        for request in &requests {
            client.send(request)?;
            let theirs = Bytes::from(client.read_with_bytes()?.1);
            let ours = match resolve(Request::from_args(request)) {
                Ok(call) => without_own(docs::reply(&call)),
                Err(reply) => reply,
            };
            let ours = encoded(&ours, protocol);
            // Lists of commands come in the order of the server's hash tables.
            let is_list = !request[1..].join(" ").to_uppercase().starts_with("GETKEYS");
            let (ours, theirs) = if is_list {
                (
                    unordered(decode_reply(&ours)?),
                    unordered(decode_reply(&theirs)?),
                )
            } else {
                (ours, theirs)
            };
            ensure!(
                ours == theirs,
                "RESP{version} {}\nours:   {}\ntheirs: {}",
                show(request),
                shown_from_difference(&ours, &theirs),
                shown_from_difference(&theirs, &ours)
            );
        }
    }
    Ok(())
}

/// A reply of the `COMMAND` family without the one command that is Freshet's own.
fn without_own(reply: Reply) -> Reply {
    let name = Reply::bulk("freshet.once");
    match reply {
        Reply::Integer(count) => Reply::Integer(count - 1),
        Reply::Array(items) => {
            let is_own = |item: &Reply| match item {
                Reply::Array(parts) => parts.first() == Some(&name),
                item => *item == name,
            };
            Reply::Array(items.into_iter().filter(|item| !is_own(item)).collect())
        }
        Reply::Map(pairs) => Reply::Map(pairs.into_iter().filter(|(of, _)| *of != name).collect()),
        other => other,
    }
}

/// The words of `line`; `{}` is an empty one.
fn words(line: &str) -> Vec<String> {
    line.split(' ').map(|word| word.replace("{}", "")).collect()
}

/// At most 300 bytes of `text` around the first place where it differs.
fn shown_from_difference(text: &[u8], other: &[u8]) -> String {
    let same = text.iter().zip(other).take_while(|(a, b)| a == b).count();
    let from = same.saturating_sub(100);
    let to = (from + 300).min(text.len());
    text[from..to].escape_ascii().to_string()
}

/// The bytes of a reply whose parts are sorted at every level.
fn unordered(reply: Reply) -> Bytes {
    let mut parts: Vec<Bytes> = match reply {
        Reply::Array(items) | Reply::Set(items) => items.into_iter().map(unordered).collect(),
        Reply::Map(pairs) => pairs
            .into_iter()
            .map(|(name, value)| [unordered(name), unordered(value)].concat().into())
            .collect(),
        other => return encoded(&other, Protocol::Resp3),
    };
    parts.sort();
    parts.concat().into()
}

#[test]
fn keys_of_calls_are_those_of_redis() -> Result<()> {
    let redis = Redis::start()?;
    let mut client = connect(&redis, "2")?;
    for line in KEYED {
        let request = Request::from_args(&words(line));
        let Some(row) = TABLE.iter().find(|row| {
            row.subcommands.is_empty() && row.name.as_bytes().eq_ignore_ascii_case(request.arg(0))
        }) else {
            continue;
        };
        // Keys that keywords announce are not asked of calls.
        let by_keyword = [
            "SORT",
            "XREAD",
            "XREADGROUP",
            "MIGRATE",
            "GEORADIUS",
            "GEORADIUSBYMEMBER",
            "SORT_RO",
        ];
        if !row.accepts(request.len()) || by_keyword.contains(&row.name) {
            continue;
        }
        let call = freshet::command::Call::new(row, request);
        let theirs = ask(&mut client, &words(&format!("COMMAND GETKEYS {line}")))?;
        let Reply::Array(theirs) = theirs else {
            continue;
        };
        let ours: Vec<Reply> = call.key_names().map(Reply::Bulk).collect();
        // A number of keys beyond the arguments is refused when the call is run.
        if !theirs.is_empty() {
            ensure!(ours == theirs, "{line}: {ours:?}, in Redis {theirs:?}");
        }
    }
    Ok(())
}

/// What the documentation of commands says of one.
struct Described {
    name: String,
    group: String,
    summary: String,
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

/// The commands and subcommands of `docs`, a reply to `COMMAND DOCS`; families are left out.
fn described(docs: Reply) -> Result<Vec<Described>> {
    let Reply::Map(commands) = docs else {
        anyhow::bail!("COMMAND DOCS is no map");
    };
    let mut found = Vec::new();
    for (name, fields) in commands {
        let Reply::Map(fields) = fields else {
            anyhow::bail!("{name:?} is not described by a map");
        };
        let field = |wanted: &str| {
            let field = fields.iter().find(|(name, _)| text(name) == wanted);
            field.map(|(_, value)| value.clone())
        };
        match field("subcommands") {
            Some(subcommands) => found.extend(described(subcommands)?),
            None => found.push(Described {
                name: text(&name).to_uppercase(),
                group: text(&field("group").context("no group")?),
                summary: text(&field("summary").context("no summary")?),
            }),
        }
    }
    Ok(found)
}

/// The row of a command, and that of its family.
fn row_of(name: &str) -> Result<(&'static Command, &'static Command)> {
    let words: Vec<&str> = name.split('|').collect();
    let found = |words: &[&str]| find(&Request::from_args(words)).ok();
    let row = found(&words).with_context(|| format!("no row for {name}"))?;
    Ok((row, found(&words[..1]).context("no family")?))
}

/// The ways in which commands are served, with what they mean.
const WAYS: &[(&str, &str)] = &[
    (
        "cache",
        "read in Redis; what is not there is read from PostgreSQL, and then kept there",
    ),
    ("durable", "committed in PostgreSQL before it is answered"),
    (
        "PostgreSQL",
        "answered by PostgreSQL, in whole or page by page",
    ),
    (
        "messages",
        "through Redis, to the clients of all proxies; kept nowhere, as in Redis",
    ),
    ("proxy", "answered by the proxy itself"),
    ("**refused**", "an error, which says why; nothing changes"),
];

fn way(row: &Command, group: &str) -> &'static str {
    if matches!(row.served, Served::Not(_)) {
        return "**refused**";
    }
    let is_help = row.subcommand() == Some("HELP");
    match row.class {
        Class::Read | Class::Expiry => "cache",
        Class::Write | Class::Flush | Class::Script => "durable",
        Class::Keyspace => "PostgreSQL",
        Class::Local if group == "pubsub" && !is_help => "messages",
        Class::Local => match row.name {
            "FUNCTION|LOAD" | "FUNCTION|DELETE" | "FUNCTION|FLUSH" | "FUNCTION|RESTORE"
            | "SCRIPT|LOAD" | "SCRIPT|FLUSH" => "durable",
            "SCRIPT|EXISTS" | "FUNCTION|LIST" | "FUNCTION|DUMP" => "PostgreSQL",
            _ => "proxy",
        },
        Class::Transaction => "proxy",
        Class::Unserved => "**refused**",
    }
}

/// How a command is served, as a line of the page.
fn line(it: &Described) -> Result<String> {
    let (row, family) = row_of(&it.name)?;
    let own = [row.served, family.served];
    let note = own.into_iter().find_map(|served| match served {
        Served::Fully => None,
        Served::But(text) | Served::Not(text) => Some(text),
    });
    let name = it.name.replace('|', " ");
    let (how, note) = (way(row, &it.group), note.unwrap_or_default());
    let summary = it.summary.replace('|', "\\|");
    Ok(format!("| `{name}` | {summary} | {how} | {note} |\n"))
}

fn page() -> Result<String> {
    let request = Request::from_args(&["COMMAND", "DOCS"]);
    let call = resolve(request).map_err(|reply| anyhow::anyhow!("{reply:?}"))?;
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all = described(without_own(docs::reply(&call)))?;
    let refused = |it: &&Described| {
        let row = row_of(&it.name);
        row.is_ok_and(|(row, _)| matches!(row.served, Served::Not(_)))
    };
    let (count, refused) = (all.len(), all.iter().filter(refused).count());
    for it in &all {
        groups.entry(it.group.clone()).or_default().push(line(it)?);
    }
    let mut page = format!(
        "# Commands\n\nOf the {count} commands and subcommands of Redis 7.0, Freshet serves {} and refuses \
         {refused}. The tests compare replies\nand errors with those of a real Redis 7.0. One of them writes this \
         page from the command table. How commands are served:\n\n",
        count - refused
    );
    for (name, meaning) in WAYS {
        writeln!(page, "- {name}: {meaning}.")?;
    }
    page += "\nBesides, there is `FRESHET.ONCE` (see the README), and `CLIENT SETINFO` and `CLIENT NO-TOUCH` of \
             Redis 7.2.\n";
    for (group, lines) in groups {
        write!(
            page,
            "\n## {group}\n\n| command | | served | |\n|---|---|---|---|\n"
        )?;
        page += &lines.concat();
    }
    Ok(page)
}

#[test]
fn page_of_commands_is_that_of_the_table() -> Result<()> {
    let page = page()?;
    if std::env::var_os("FRESHET_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &page)?;
        return Ok(());
    }
    let kept = std::fs::read_to_string(PAGE)?;
    ensure!(
        kept == page,
        "{PAGE} is out of date: FRESHET_WRITE_DOCS=1 cargo test --test command_reference"
    );
    Ok(())
}

#[test]
fn what_is_refused_says_why() {
    for row in rows() {
        let is_refused = matches!(row.served, Served::Not(_));
        let is_unserved = row.class == Class::Unserved;
        assert!(
            is_refused || !is_unserved,
            "{} is refused without a reason",
            row.name
        );
        assert_eq!(row.refusal().is_some(), is_refused, "{}", row.name);
    }
}
