//! Random small Lua programs, against a plain Redis.

use std::fmt::Write;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::{Client, Redis, Stack, seed};

const SCRIPTS: usize = 150;

/// Commands on the keys of the script, by number or made up in it; `%` is a key.
const COMMANDS: &[&str] = &[
    "'set', %, 'v'",
    "'set', %, 7",
    "'set', %, 1.5, 'ex', 1000",
    "'get', %",
    "'incr', %",
    "'incrby', %, 3",
    "'append', %, 'z'",
    "'strlen', %",
    "'del', %",
    "'exists', %, %",
    "'expire', %, 1000",
    "'persist', %",
    "'type', %",
    "'rename', %, %",
    "'copy', %, %",
    "'mget', %, %, 'none'",
    "'mset', %, 1, %, 2",
    "'hset', %, 'f', 1, 'g', 'x'",
    "'hincrby', %, 'f', 2",
    "'hget', %, 'f'",
    "'hmget', %, 'f', 'none'",
    "'hdel', %, 'f'",
    "'hlen', %",
    "'lpush', %, 'a', 'b'",
    "'rpush', %, 1",
    "'lpop', %",
    "'rpop', %, 2",
    "'lrange', %, 0, -1",
    "'llen', %",
    "'lmove', %, %, 'left', 'right'",
    "'ltrim', %, 0, 2",
    "'sadd', %, 'a', 'b', 'c'",
    "'srem', %, 'a'",
    "'sismember', %, 'b'",
    "'scard', %",
    "'zadd', %, 1, 'a', 2.5, 'b'",
    "'zincrby', %, 1.5, 'a'",
    "'zrange', %, 0, -1, 'withscores'",
    "'zscore', %, 'b'",
    "'zpopmin', %",
    "'zrangebyscore', %, '-inf', 2",
    "'zrem', %, 'a'",
    "'setex', %, 100, 'w'",
    "'getset', %, 'old'",
    "'setrange', %, 2, 'yy'",
    "'getrange', %, 0, 1",
    "'bitcount', %",
    "'setbit', %, 3, 1",
    "'nosuch', %",
    "'get'",
    "'blpop', %, 0",
    "'echo', 'word'",
    "'ping'",
    "'select', 1",
    "'select', 0",
];

const KEYS: &[&str] = &["KEYS[1]", "KEYS[2]", "'made'", "'m'..'ade2'", "ARGV[1]"];

/// Values and what is done with them, without any command.
const EXPRESSIONS: &[&str] = &[
    "cjson.encode({1,2,{'x'}})",
    "cjson.decode('[1,null,{\"a\":1.5}]')",
    "cjson.decode('[1,')",
    "cmsgpack.unpack(cmsgpack.pack({1,'two',{3}}))",
    "cmsgpack.pack({n, v})",
    "struct.pack('>I2s', n, 'x')",
    "{struct.unpack('<hb', '\\1\\2\\3')}",
    "bit.bxor(n, 255)",
    "bit.tohex(n)",
    "redis.sha1hex(tostring(n))",
    "redis.error_reply('CODE text')",
    "redis.status_reply('fine')",
    "tostring(v)",
    "type(v)",
    "n / 3",
    "n * 1e10",
    "{n, {v}, 'x'}",
    "{err = 'MINE error'}",
    "{ok = 'good'}",
    "v == nil",
    "v == false",
    "nothing.here",
    "#v",
    "v .. 'x'",
    "v + 1",
    "select('#', unpack({1, 2}))",
    "string.rep('ab', 3)",
    "tonumber('12x')",
];

fn statement(rng: &mut StdRng, out: &mut String) {
    let filled = |rng: &mut StdRng| {
        let mut text = String::new();
        for part in COMMANDS.choose(rng).unwrap().split_inclusive('%') {
            text.push_str(part.trim_end_matches('%'));
            if part.ends_with('%') {
                text.push_str(KEYS.choose(rng).unwrap());
            }
        }
        text
    };
    let call = filled(rng);
    let indent = ["", "", "\n"].choose(rng).unwrap();
    let _ = match rng.random_range(0..10) {
        0..=3 => writeln!(out, "{indent}v = redis.call({call})"),
        4..=5 => writeln!(out, "{indent}v = redis.pcall({call})"),
        6 => writeln!(
            out,
            "{indent}do local ok, e = pcall(redis.call, {call}) if not ok then v = e end end"
        ),
        7 => writeln!(
            out,
            "for i = 1, {} do redis.pcall({call}) n = n + i end",
            rng.random_range(1..5)
        ),
        8 => writeln!(
            out,
            "if type(v) == 'table' then v = v[1] or v.err or v.ok end"
        ),
        _ => {
            let expression = EXPRESSIONS.choose(rng).unwrap();
            writeln!(
                out,
                "do local ok, e = pcall(function() return {expression} end) v = e end"
            )
        }
    };
}

fn script(rng: &mut StdRng) -> String {
    let mut text = String::from("local n, v = 5, nil\n");
    if rng.random_bool(0.15) {
        text.push_str("redis.setresp(3)\n");
    }
    for _ in 0..rng.random_range(1..8) {
        statement(rng, &mut text);
    }
    match rng.random_range(0..6) {
        0 => text.push_str("return {n, v}"),
        1 => {
            let _ = write!(text, "return {}", EXPRESSIONS.choose(rng).unwrap());
        }
        // Redis itself does not survive an error that is a table of another kind.
        2 => text.push_str("error(type(v) == 'table' and (v.err or 'table') or v)"),
        _ => text.push_str("return v"),
    }
    text
}

/// What is told of a table tells nothing.
fn comparable(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.find("0x") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// What a key holds, in a form that both tell alike.
fn content(client: &mut Client, key: &str) -> String {
    let dump = "
        local kind = redis.call('type', KEYS[1]).ok
        if kind == 'string' then return redis.call('get', KEYS[1]) end
        if kind == 'list' then return redis.call('lrange', KEYS[1], 0, -1) end
        if kind == 'zset' then return redis.call('zrange', KEYS[1], 0, -1, 'withscores') end
        local all = {}
        if kind == 'hash' then all = redis.call('hgetall', KEYS[1]) end
        if kind == 'set' then all = redis.call('smembers', KEYS[1]) end
        table.sort(all)
        return {kind, all, redis.call('ttl', KEYS[1]) > 0}";
    comparable(&client.call_with_bytes(&["EVAL", dump, "1", key]).unwrap())
}

fn run(stack: &Stack, judge: &Redis, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
    let protocol = ["2", "3"].choose(&mut rng).unwrap();
    for client in [&mut ours, &mut theirs] {
        client.ok(&["HELLO", protocol]).unwrap();
        client.ok(&["FLUSHALL"]).unwrap();
    }
    for _ in 0..SCRIPTS {
        let text = script(&mut rng);
        let names = ["a", "b", "c"];
        let mut name = || *names.choose(&mut rng).unwrap();
        let call = ["EVAL", &text, "2", name(), name(), name()];
        let our = comparable(&ours.call_with_bytes(&call).unwrap());
        let their = comparable(&theirs.call_with_bytes(&call).unwrap());
        assert_eq!(our, their, "FRESHET_SEED={seed}\n{call:?}\n{text}");
    }
    for key in ["a", "b", "c", "made", "made2"] {
        let (our, their) = (content(&mut ours, key), content(&mut theirs, key));
        assert_eq!(our, their, "FRESHET_SEED={seed} {key}");
    }
}

#[test]
fn random_scripts_are_answered_as_by_redis() {
    let mut stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let time = seed::seconds("FRESHET_DIFFERENTIAL_SECONDS", 5);
    let started = Instant::now();
    let first = seed::seed();
    for seed in first.. {
        run(&stack, &judge, seed);
        if seed::is_replay() || started.elapsed() > time {
            break;
        }
    }
    stack.program.stop_quietly().unwrap();
}
