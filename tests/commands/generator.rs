//! Random commands: of strings and keys from templates, of all types from the patterns that
//! the engine's own test uses too.
//!
//! A template is a line of words. `<key>` and its like are drawn, `a|b|` is one
//! of its alternatives (the last one is empty), `+` joins words of one
//! alternative, and a word that ends in `*` is repeated one to three times.

use std::time::{SystemTime, UNIX_EPOCH};

use freshet::model::UnixMs;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::patterns::{commands, open, rdb};

/// An argument of a generated command.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What the last DUMP of this key replied, or nonsense if there was none.
    Payload,
}

/// A generated command.
pub type Command = Vec<Argument>;

/// The databases that are used. Few, so that they meet.
pub const DATABASES: u8 = 4;

const TEMPLATES: &[&str] = &[
    "SET <key> <value>",
    "SET <key> <value>",
    "SET <key> <value> NX|XX| GET| EX+<seconds>|PX+<ms>|EXAT+<unix>|PXAT+<unixms>|KEEPTTL|",
    "SET <key> <value> EX+<badtime>|PX+<badtime>|EXAT+<badtime>|PXAT+<badtime>",
    "GET <key>",
    "GET <key>",
    "GET <key>",
    "GET big",
    "GETEX <key> PERSIST|EX+<seconds>|PX+<ms>|EXAT+<unix>|PXAT+<unixms>|EX+<badtime>|",
    "GETDEL <key>",
    "GETSET <key> <value>",
    "SETEX <key> <seconds>|<badtime> <value>",
    "PSETEX <key> <ms>|<badtime> <value>",
    "SETNX <key> <value>",
    "MGET <key>*",
    "MGET <key>*",
    "MSET <key>+<value>*",
    "MSETNX <key>+<value>*",
    "APPEND <key> <value>",
    "APPEND big <value>",
    "SET big <bulk>",
    "STRLEN <key>|big",
    "SETRANGE <key> <offset> <value>",
    "SETRANGE big <offset> <bulk>",
    "GETRANGE <key>|big <index> <index>",
    "SUBSTR <key> <index> <index>",
    "INCR <key>|<counter>",
    "DECR <key>|<counter>",
    "INCRBY <key>|<counter> <int>",
    "DECRBY <key>|<counter> <int>",
    "INCRBYFLOAT <key>|<counter> <float>|<int>",
    "SET <counter> <int>|<float>",
    "LCS <key> <key> LEN|IDX| MINMATCHLEN+<small>| WITHMATCHLEN|",
    "SETBIT <key> <offset> <bit>",
    "GETBIT <key> <offset>",
    "BITCOUNT <key>",
    "BITCOUNT <key> <index> <index> BYTE|BIT|",
    "BITPOS <key> <bit>",
    "BITPOS <key> <bit> <index>",
    "BITPOS <key> <bit> <index> <index> BYTE|BIT|",
    "BITOP AND|OR|XOR <key> <key>*",
    "BITOP NOT <key> <key>",
    "BITFIELD <key> GET+<bits>+<bitoffset>|SET+<bits>+<bitoffset>+<int>|INCRBY+<bits>+<bitoffset>+<int>|OVERFLOW+WRAP|OVERFLOW+SAT|OVERFLOW+FAIL*",
    "BITFIELD_RO <key> GET+<bits>+<bitoffset>*",
    "BITFIELD_RO <key> SET+<bits>+<bitoffset>+<int>",
    "DEL <key>*",
    "UNLINK <key>*",
    "EXISTS <key>*",
    "TOUCH <key>*",
    "TYPE <key>",
    "EXPIRE <key> <seconds>|<badtime> NX|XX|GT|LT|",
    "PEXPIRE <key> <ms>|<badtime> NX|XX|GT|LT|",
    "EXPIREAT <key> <unix>|<badtime> NX|XX|GT|LT|",
    "PEXPIREAT <key> <unixms>|<badtime> NX|XX|GT|LT|",
    "EXPIRE <key> <seconds> NX|XX|GT|LT NX|XX|GT|LT",
    "TTL <key>",
    "PTTL <key>",
    "EXPIRETIME <key>",
    "PEXPIRETIME <key>",
    "PERSIST <key>",
    "RENAME <key> <key>",
    "RENAMENX <key> <key>",
    "COPY <key> <key> DB+<db>| REPLACE|",
    "MOVE <key> <db>",
    "SWAPDB <db> <db>",
    "KEYS <pattern>",
    "SCAN 0 COUNT abc|0|-1",
    "SCAN abc|99999999999999999999999|1x",
    "SCAN 0 MATCH|NONSENSE+1",
    "RANDOMKEY",
    "DBSIZE",
    "FLUSHDB ASYNC|SYNC|",
    "FLUSHALL ASYNC|SYNC|",
    "OBJECT ENCODING|REFCOUNT|IDLETIME|FREQ <key>",
    "OBJECT NONSENSE <key>",
    "DUMP <key>",
    "DUMP <key>",
    "RESTORE <key> 0|<ms> <payload> REPLACE|",
    "RESTORE <key> <unixms> <payload> ABSTTL REPLACE|",
    "RESTORE <key> 0 <payload> REPLACE| IDLETIME+<small>|FREQ+<small>|",
    "SELECT <db>",
    "PING <value>|",
    "ECHO <value>",
    "WAIT 0 0",
    "NONSENSE <value>",
];

/// Stands for what `DUMP` last said.
const PAYLOAD: &[u8] = b"<payload>";

/// What tells of whole databases, which is not the same within a block, or divides it.
const NOT_IN_BLOCKS: &[&[u8]] = &[
    b"KEYS",
    b"SCAN",
    b"RANDOMKEY",
    b"DBSIZE",
    b"FLUSHDB",
    b"FLUSHALL",
    b"SWAPDB",
    b"WAIT",
];

/// One random command of any type.
pub fn command(rng: &mut StdRng) -> Command {
    if rng.random_bool(0.3) {
        from_template(rng)
    } else {
        from_pattern(rng)
    }
}

/// The same, fit for a `MULTI` block.
pub fn for_block(rng: &mut StdRng) -> Command {
    loop {
        let command = command(rng);
        let name = name(&command);
        if !NOT_IN_BLOCKS.contains(&&name[..]) {
            return command;
        }
    }
}

/// Whether the command waits if there is nothing.
pub fn waits(command: &Command) -> bool {
    let name = name(command);
    open::BLOCKING
        .iter()
        .any(|waiting| waiting.as_bytes() == name)
}

fn name(command: &Command) -> Vec<u8> {
    match command.first() {
        Some(Argument::Bytes(name)) => name.to_ascii_uppercase(),
        _ => Vec::new(),
    }
}

/// A scan of one key, without its cursor.
pub fn one_key_scan(rng: &mut StdRng) -> (Vec<u8>, Vec<u8>) {
    let scans: &[(&str, &[&str])] = &[
        ("HSCAN", &["h1", "h2", "h3"]),
        ("SSCAN", &["s1", "s2", "s3"]),
        ("ZSCAN", &["z1", "z2", "zl1", "g1"]),
    ];
    let (name, keys) = scans[rng.random_range(0..scans.len())];
    (name.as_bytes().to_vec(), one_of(rng, keys).into_bytes())
}

/// A command from the patterns of all types; one that depends on another before it is sent
/// without that one.
fn from_pattern(rng: &mut StdRng) -> Command {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = UnixMs(since.map_or(0, |since| since.as_millis() as i64));
    let mut payloads: Vec<Vec<u8>> = vec![PAYLOAD.to_vec(); rdb::OLD.len()];
    payloads.extend(rdb::OLD.iter().map(|payload| payload.to_vec()));
    let mut commands = commands::some(rng, now, &payloads);
    let last = commands.pop().unwrap_or_default();
    let argument = |bytes: Vec<u8>| match &bytes[..] {
        PAYLOAD => Argument::Payload,
        _ => Argument::Bytes(bytes),
    };
    last.into_iter().map(argument).collect()
}

/// One in twenty is damaged: an argument lost, doubled or replaced.
fn from_template(rng: &mut StdRng) -> Command {
    let template = TEMPLATES.choose(rng).copied().unwrap_or("PING");
    let mut arguments = Vec::new();
    for word in template.split(' ') {
        let (word, times) = match word.strip_suffix('*') {
            Some(word) => (word, rng.random_range(1..=3)),
            None => (word, 1),
        };
        for _ in 0..times {
            let alternatives: Vec<&str> = word.split('|').collect();
            let chosen = alternatives.choose(rng).copied().unwrap_or("");
            for part in chosen.split('+').filter(|part| !part.is_empty()) {
                arguments.push(argument(rng, part));
            }
        }
    }
    // A damaged SCAN can be a right one, whose pages no two servers cut alike.
    if !template.starts_with("SCAN") && rng.random_bool(0.05) {
        damage(rng, &mut arguments);
    }
    if rng.random_bool(0.1) {
        lower_case(&mut arguments[0]);
    }
    arguments
}

fn damage(rng: &mut StdRng, arguments: &mut Command) {
    let place = rng.random_range(0..arguments.len());
    match rng.random_range(0..3) {
        0 if arguments.len() > 1 => drop(arguments.pop()),
        1 if place > 0 => arguments[place] = argument(rng, "<any>"),
        _ => arguments.push(argument(rng, "<any>")),
    }
}

fn lower_case(argument: &mut Argument) {
    if let Argument::Bytes(bytes) = argument {
        bytes.make_ascii_lowercase();
    }
}

fn argument(rng: &mut StdRng, part: &str) -> Argument {
    let text = match part {
        "<payload>" => return Argument::Payload,
        "<key>" => return Argument::Bytes(key(rng)),
        "<value>" => return Argument::Bytes(value(rng)),
        "<bulk>" => return Argument::Bytes(bulk(rng)),
        "<counter>" => format!("counter{}", rng.random_range(0..3)),
        "<int>" => one_of(rng, INTEGERS),
        "<float>" => one_of(rng, FLOATS),
        // Nothing ends during an episode: far away, or in the past.
        "<seconds>" => rng.random_range(10_000..1_000_000).to_string(),
        "<ms>" => rng.random_range(10_000_000..1_000_000_000).to_string(),
        "<unix>" => rng
            .random_range(4_000_000_000_u64..5_000_000_000)
            .to_string(),
        "<unixms>" => rng
            .random_range(4_000_000_000_000_u64..5_000_000_000_000)
            .to_string(),
        "<badtime>" => one_of(rng, TIMES),
        "<offset>" => rng.random_range(0..300).to_string(),
        "<index>" => rng.random_range(-40..40).to_string(),
        "<small>" => rng.random_range(0..5).to_string(),
        "<bit>" => rng.random_range(0..=1).to_string(),
        "<bits>" => one_of(rng, BIT_KINDS),
        "<bitoffset>" => one_of(rng, BIT_OFFSETS),
        "<db>" => database(rng),
        "<pattern>" => one_of(rng, PATTERNS),
        "<any>" => one_of(rng, ANY),
        literal => literal.to_owned(),
    };
    Argument::Bytes(text.into_bytes())
}

const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "7",
    "100",
    "-250",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775806",
    "4294967296",
    "12345678901",
    "9223372036854775808",
    "abc",
    "",
];
const FLOATS: &[&str] = &[
    "0.1",
    "-1.5",
    "3.0e3",
    "1e17",
    "0.00000001",
    "-0.0",
    "1234567.891",
    "5e-5",
    "nan",
    "inf",
    "-inf",
    "1.",
    ".5",
    "0x10",
    "1e4000",
    "1e-10",
];
const TIMES: &[&str] = &[
    "0",
    "-1",
    "abc",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775",
    "",
    "1000000000000000000",
];
const BIT_KINDS: &[&str] = &[
    "u8", "i8", "u1", "i64", "u63", "u64", "i16", "u5", "i3", "x8", "u0",
];
const BIT_OFFSETS: &[&str] = &["0", "3", "#0", "#2", "100", "17", "-1", "#-1", "abc"];
const PATTERNS: &[&str] = &[
    "*", "k*", "k[0-3]", "k?", "*1", "[^k]*", "counter*", "\\k1", "k[", "nothing", "*\\*", "{t}*",
    "",
];
// No small positive numbers: they could become a short expiry.
const ANY: &[&str] = &[
    "abc",
    "",
    "-1",
    "0",
    "9223372036854775807",
    "-9223372036854775808",
    "4294967296",
    "1.5",
    "NX",
    "GET",
    "LIMIT",
    " 3",
    "+1",
    "0x1",
    "00",
];
// No two alike: EXPIRE GT compares with what is there, to the millisecond.
const WORDS: &[&str] = &[
    "",
    "a",
    "hello",
    "hello world",
    "ohmytext",
    "mynewtext",
    "foobar",
    "abcdef",
];

fn one_of(rng: &mut StdRng, list: &[&str]) -> String {
    list.choose(rng).copied().unwrap_or("").to_owned()
}

fn database(rng: &mut StdRng) -> String {
    if rng.random_bool(0.05) {
        return one_of(rng, &["16", "-1", "abc", "99999999999"]);
    }
    rng.random_range(0..DATABASES).to_string()
}

/// The keys that templates use. Few, so that commands meet.
fn template_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..8).map(|n| format!("k{n}").into_bytes()).collect();
    keys.extend((0..3).map(|n| format!("counter{n}").into_bytes()));
    keys.push(b"{t}a".to_vec());
    keys.push(b"x{t}b".to_vec());
    keys.push(b"".to_vec());
    keys.push(b"\x00\xff\r\n $5".to_vec());
    // Looks like one of Freshet's own names in the cache.
    keys.push(b"\x00fc{k1}".to_vec());
    keys.push(b"\x00f:gen".to_vec());
    keys.push("l".repeat(300).into_bytes());
    keys
}

/// All keys that any command is about.
pub fn keys() -> Vec<Vec<u8>> {
    let mut keys = template_keys();
    keys.push(b"big".to_vec());
    keys.extend(commands::keys());
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn key(rng: &mut StdRng) -> Vec<u8> {
    // `big` has templates of its own: LCS of large values takes for ever.
    let keys = template_keys();
    let count = keys.len();
    let index = if rng.random_bool(0.7) {
        rng.random_range(0..8)
    } else {
        rng.random_range(0..count)
    };
    keys[index].clone()
}

fn value(rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..10) {
        0..4 => one_of(rng, WORDS).into_bytes(),
        4 | 5 => one_of(rng, INTEGERS).into_bytes(),
        6 => one_of(rng, FLOATS).into_bytes(),
        7 => "ab".repeat(rng.random_range(0..60)).into_bytes(),
        _ => {
            let length = rng.random_range(0..80);
            (0..length).map(|_| rng.random()).collect()
        }
    }
}

fn bulk(rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(1_000..200_000);
    let first: u8 = rng.random();
    (0..length)
        .map(|n: u32| first.wrapping_add((n % 251) as u8))
        .collect()
}
