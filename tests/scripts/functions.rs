//! Libraries of functions: as Redis answers, known to all proxies, and lasting.

use std::time::Duration;

use crate::support::{Program, Redis, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(10);

const ONE: &str = "#!lua name=one
redis.register_function('f1', function(keys, args) return {keys[1], args[1]} end)";
const TWO: &str = "#!lua name=two
redis.register_function{function_name='f2', callback=function(keys) return redis.call('incr', keys[1]) end,
  description='desc', flags={'no-writes'}}";
const MANY: &str = "#!lua name=many
local n = 0
redis.register_function('w', function(k, a) return redis.call('set', k[1], a[1]) end)
redis.register_function('e', function(k, a)
  error('x') end)
redis.register_function('ee', function() return redis.call('incr', 'l') end)
redis.register_function('k', function() return KEYS end)
redis.register_function('g', function() gg = 1 end)
redis.register_function('r', function() redis.register_function('z', function() end) end)
redis.register_function('b', function() return redis.breakpoint() end)
redis.register_function('m', function() return cjson.encode({math.max(1, 2), #_G}) end)
redis.register_function('p', function() return redis.pcall('incr', 'l') end)
redis.register_function('t', function(k, a) local ok, e = pcall(redis.call, 'incr', 'l') return e end)";

/// What stands behind `#!lua name=bad`.
const BAD: &[&str] = &[
    "return ((",
    "return 1",
    "error('x')",
    "x = 1",
    "return x",
    "redis.call('get', 'x')",
    "redis.setresp(3)",
    "return math.random()",
    "redis.register_function('f')",
    "redis.register_function(1, 2)",
    "redis.register_function('a b', function() end)",
    "redis.register_function('a', 'b')",
    "redis.register_function{}",
    "redis.register_function{function_name='x'}",
    "redis.register_function{function_name='x', callback=1}",
    "redis.register_function{function_name='x', callback=function() end, flags=1}",
    "redis.register_function{function_name='x', callback=function() end, flags={'z'}}",
    "redis.register_function{function_name='x', callback=function() end, zz=1}",
    "redis.register_function{function_name='x', callback=function() end, description={}}",
    "redis.register_function('f', function() end) redis.register_function('f', function() end)",
    "redis.register_function('f', function() end, 1)",
    "redis.register_function()",
    "redis.register_function({}, function() end)",
    "redis.register_function{1, 2}",
    "redis.x = 1",
    "while true do end",
];

/// Other first lines.
const CODES: &[&str] = &[
    "return 1",
    "#!lua\nreturn 1",
    "#!lua name=a-b\nx",
    "#!js name=a\nx",
    "#!lua name=a foo=b\nx",
    "#!lua name=a name=b\nx",
    "#!lua name=a",
];

const CALLS: &[&[&str]] = &[
    &["FUNCTION", "LOAD", ONE],
    &["FUNCTION", "LOAD", ONE],
    &["FUNCTION", "LOAD", "REPLACE", ONE],
    &["FUNCTION", "LOAD", "FOO", ONE],
    &[
        "FUNCTION",
        "LOAD",
        "#!lua name=other\nredis.register_function('f1', function() end)",
    ],
    &["FUNCTION", "LIST"],
    &["FUNCTION", "STATS"],
    &["FUNCTION", "DUMP"],
    &["FUNCTION", "LOAD", TWO],
    &["FUNCTION", "LOAD", MANY],
    &["LPUSH", "l", "1"],
    &["FCALL", "f1", "1", "a", "b"],
    &["FCALL", "F1", "1", "a", "b"],
    &["FCALL", "f2", "1", "a"],
    &["FCALL_RO", "f2", "1", "a"],
    &["FCALL_RO", "f1", "1", "a"],
    &["FCALL", "nosuch", "0"],
    &["FCALL", "nosuch", "x"],
    &["FCALL", "f1", "x"],
    &["FCALL", "f1", "-1"],
    &["FCALL", "f1", "3", "a"],
    &["FCALL", "w", "1", "k", "v"],
    &["GET", "k"],
    &["FCALL", "e", "0"],
    &["FCALL", "ee", "0"],
    &["FCALL", "k", "0"],
    &["FCALL", "g", "0"],
    &["FCALL", "r", "0"],
    &["FCALL", "b", "0"],
    &["FCALL", "m", "0"],
    &["FCALL", "p", "0"],
    &["FCALL", "t", "0"],
    &["FUNCTION", "LIST", "LIBRARYNAME", "one"],
    &["FUNCTION", "LIST", "LIBRARYNAME", "TW*", "WITHCODE"],
    &["FUNCTION", "LIST", "LIBRARYNAME"],
    &["FUNCTION", "LIST", "FOO"],
    &["FUNCTION", "LIST", "WITHCODE", "WITHCODE"],
    &["FUNCTION", "STATS"],
    &["FUNCTION", "RESTORE", "xx"],
    &["FUNCTION", "RESTORE", "xx", "FOO"],
    &["MULTI"],
    &["FCALL", "w", "1", "k", "in a block"],
    &["FCALL", "nosuch", "0"],
    &["GET", "k"],
    &["EXEC"],
    &["FUNCTION", "DELETE", "one"],
    &["FUNCTION", "DELETE", "one"],
    &["FUNCTION", "DELETE", "TWO"],
    &["FUNCTION", "KILL"],
    &["FUNCTION", "FLUSH", "x"],
    &["FUNCTION", "FLUSH", "async"],
    &["FUNCTION", "DUMP"],
    &["FUNCTION", "LIST"],
    &["FUNCTION", "STATS"],
    &["FUNCTION", "HELP"],
    &["FUNCTION"],
    &["FUNCTION", "NOSUCH"],
];

#[test]
fn functions_are_answered_as_by_redis() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    for protocol in ["2", "3"] {
        let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
        for client in [&mut ours, &mut theirs] {
            client.ok(&["HELLO", protocol]).unwrap();
            client.ok(&["FLUSHALL"]).unwrap();
        }
        let mut calls: Vec<Vec<String>> = Vec::new();
        let bad = BAD.iter().map(|text| format!("#!lua name=bad\n{text}"));
        for code in bad.chain(CODES.iter().map(|code| (*code).to_owned())) {
            calls.push(vec!["FUNCTION".into(), "LOAD".into(), code]);
        }
        for call in CALLS {
            calls.push(call.iter().map(|word| (*word).to_owned()).collect());
        }
        for call in &calls {
            let our = ours.call_with_bytes(call).unwrap();
            let their = theirs.call_with_bytes(call).unwrap();
            let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
            assert_eq!(show(&our), show(&their), "{call:?}");
        }
    }
}

#[test]
fn what_redis_dumped_is_restored() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
    for code in [ONE, MANY] {
        theirs.ok(&["FUNCTION", "LOAD", code]).unwrap();
    }
    let Value::Bulk(dump) = theirs.ok(&["FUNCTION", "DUMP"]).unwrap() else {
        panic!("no dump");
    };
    let restore = |policy: &'static str| [&b"FUNCTION"[..], b"RESTORE", &dump, policy.as_bytes()];
    ours.ok(&["FUNCTION", "LOAD", TWO]).unwrap();
    ours.ok(&restore("APPEND")).unwrap();
    let libraries = |value: Value| value.items().len();
    assert_eq!(libraries(ours.ok(&["FUNCTION", "LIST"]).unwrap()), 3);
    let again = ours.call(&restore("APPEND")).unwrap();
    assert!(
        again.error().unwrap().ends_with("already exists"),
        "{again:?}"
    );
    ours.ok(&restore("REPLACE")).unwrap();
    ours.ok(&restore("FLUSH")).unwrap();
    assert_eq!(libraries(ours.ok(&["FUNCTION", "LIST"]).unwrap()), 2);
    let Value::Bulk(dump) = ours.ok(&["FUNCTION", "DUMP"]).unwrap() else {
        panic!("no dump");
    };
    let back = [&b"FUNCTION"[..], b"RESTORE", &dump, b"FLUSH"];
    theirs.ok(&back).unwrap();
    assert_eq!(theirs.text(&["FCALL", "w", "1", "k", "v"]).unwrap(), "OK");
}

fn call(program: &Program) -> Option<String> {
    let reply = program.client().unwrap().call(&["FCALL", "v", "0"]);
    reply.unwrap().text()
}

#[test]
fn libraries_are_known_to_all_proxies_and_last() {
    let mut stack = Stack::start().unwrap();
    let other = stack.second_program().unwrap();
    let mut client = stack.client().unwrap();
    let code = |value: &str| {
        format!("#!lua name=lib\nredis.register_function('v', function() return '{value}' end)")
    };
    client.ok(&["FUNCTION", "LOAD", &code("first")]).unwrap();
    assert_eq!(call(&other).unwrap(), "first");
    client
        .ok(&["FUNCTION", "LOAD", "REPLACE", &code("second")])
        .unwrap();
    assert_eq!(call(&stack.program).unwrap(), "second");
    let is_new = || call(&other).as_deref() == Some("second");
    process::await_true("the other proxy has the new one", LIMIT, is_new).unwrap();
    stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    stack.program.kill().unwrap();
    stack.program.start_again().unwrap();
    assert_eq!(call(&stack.program).unwrap(), "second");
    let mut client = stack.client().unwrap();
    client.ok(&["FUNCTION", "FLUSH"]).unwrap();
    assert_eq!(call(&stack.program), None);
    process::await_true("the other has none", LIMIT, || call(&other).is_none()).unwrap();
}

#[test]
fn the_function_that_runs_is_told() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let code = "#!lua name=lib\nredis.register_function('spin', function() while true do end end)";
    client.ok(&["FUNCTION", "LOAD", code]).unwrap();
    let mut caller = stack.client().unwrap();
    caller.send(&["FCALL", "spin", "1", "key"]).unwrap();
    let mut running = || {
        let stats = client.ok(&["FUNCTION", "STATS"]).unwrap();
        stats.items()[1].clone()
    };
    process::await_true("it runs", LIMIT, || running() != Value::Null).unwrap();
    let told = running();
    let words = ["FCALL", "spin", "1", "key"].map(|word| Value::Bulk(word.into()));
    let expected = [
        Value::Bulk("name".into()),
        Value::Bulk("spin".into()),
        Value::Bulk("command".into()),
        Value::Array(words.into()),
        Value::Bulk("duration_ms".into()),
    ];
    assert_eq!(told.items()[..5], expected);
    assert!(matches!(told.items()[5], Value::Integer(_)));
    process::await_true("it was killed", LIMIT, || {
        stack.client().unwrap().ok(&["FUNCTION", "KILL"]).is_ok()
    })
    .unwrap();
    assert!(caller.read().unwrap().error().is_some());
    process::await_true("nothing runs", LIMIT, || running() == Value::Null).unwrap();
}
