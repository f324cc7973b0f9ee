//! `write-behind`: acknowledged by the journal's server, written to PostgreSQL in the background.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{LIMIT, assert_same_replies, call, error, text};
use crate::support::stack::FRESHET;
use crate::support::{Client, Fsync, Postgres, Program, Redis, Value, process};

const ROUTE: &str = "\n[[route]]\nmatch = \"w:*\"\nstrategy = \"write-behind\"\n";

const LOG: &str = "\x01f:log";

/// The servers, and a proxy with a write-behind route.
struct Setting {
    program: Program,
    journal: Redis,
    cache: Redis,
    database: String,
}

fn journal() -> Redis {
    Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).unwrap()
}

impl Setting {
    fn start() -> Self {
        Self::start_with(&[], None)
    }

    fn start_with(settings: &[(&str, &str)], faults: Option<&str>) -> Self {
        let database = Postgres::shared().create_database().unwrap();
        Self::start_on(database, settings, faults)
    }

    fn start_on(database: String, settings: &[(&str, &str)], faults: Option<&str>) -> Self {
        let (journal, cache) = (journal(), Redis::start().unwrap());
        let mut program = proxy(&database, &cache, &journal, settings);
        if let Some(faults) = faults {
            program.arm(faults);
        }
        program.start_again().unwrap();
        in_use(&program);
        Self {
            program,
            journal,
            cache,
            database,
        }
    }

    fn client(&self) -> Client {
        self.program.client().unwrap()
    }

    /// A further proxy, with the same route.
    fn second(&self) -> Program {
        let mut program = proxy(&self.database, &self.cache, &self.journal, &[]);
        program.start_again().unwrap();
        in_use(&program);
        program
    }

    /// A further proxy without the route: it sees what PostgreSQL has.
    fn plain(&self) -> Program {
        Program::start(FRESHET, &self.database, &self.cache.url(), &[]).unwrap()
    }

    /// Waits until nothing is left in the journal.
    fn drained(&self) {
        process::await_true("the journal is written", LIMIT, || {
            waiting(&self.journal) == 0
        })
        .unwrap();
    }
}

fn proxy(database: &str, cache: &Redis, journal: &Redis, settings: &[(&str, &str)]) -> Program {
    let url = journal.url();
    let mut all = vec![("write_behind.url", url.as_str())];
    all.extend_from_slice(settings);
    let mut program = Program::stopped(FRESHET, database, &cache.url(), &all).unwrap();
    program.configure(ROUTE);
    program
}

fn in_use(program: &Program) {
    program
        .await_log("the journal of write-behind keys is in use", LIMIT)
        .unwrap();
}

/// Entries of the journal.
fn waiting(journal: &Redis) -> i64 {
    let mut client = journal.client().unwrap();
    client.integer(&["XLEN", LOG]).unwrap_or(-1)
}

/// On keys `w:*` only, and with a reply that does not depend on chance or time.
const COMMANDS: &[&str] = &[
    "SET w:1 v",
    "GET w:1",
    "APPEND w:1 w",
    "INCR w:1",
    "INCR w:n",
    "SET w:n 9223372036854775806",
    "INCR w:n",
    "INCR w:n",
    "GET w:n",
    "INCRBYFLOAT w:f 10.5",
    "SET w:1 v EX 0",
    "GET w:1",
    "SET w:new v EX 0",
    "EXISTS w:new",
    "SET w:1 x NX",
    "SET w:1 x GET",
    "MSET w:2 a w:3 b",
    "MSET w:2 a w:3",
    "MSETNX w:2 a w:4 b",
    "MGET w:2 w:3 w:none w:1",
    "EXISTS w:1 w:2 w:none",
    "EXPIRE w:2 100",
    "TTL w:2",
    "PERSIST w:2",
    "TTL w:none",
    "RENAME w:none w:3",
    "RENAME w:3 w:4",
    "RENAMENX w:4 w:2",
    "COPY w:4 w:copied",
    "TYPE w:4",
    "HSET w:h f v g w",
    "HGETALL w:h",
    "HINCRBYFLOAT w:h x 1.5",
    "HRANDFIELD w:none",
    "HMGET w:h f none",
    "HSET w:4 f v",
    "RPUSH w:l a b c",
    "LRANGE w:l 0 -1",
    "LPOP w:none 2",
    "LPOP w:none",
    "LMPOP 2 w:none w:l LEFT",
    "LMPOP 1 w:none LEFT",
    "LMOVE w:l w:l2 LEFT RIGHT",
    "LPUSH w:1 x",
    "ZADD w:z 1 a 2.5 b inf c",
    "ZADD w:z INCR 1 a",
    "ZADD w:z NX INCR 1 a",
    "ZSCORE w:z a",
    "ZRANGE w:z 0 -1 WITHSCORES",
    "ZMPOP 1 w:z MIN",
    "ZPOPMAX w:z",
    "ZUNIONSTORE w:zz 2 w:z w:none",
    "ZRANGESTORE w:zs w:zz 0 -1",
    "ZUNION 2 w:z w:zz WITHSCORES",
    "SADD w:s c",
    "SMEMBERS w:s",
    "SMISMEMBER w:s c d",
    "SISMEMBER w:s c",
    "SPOP w:none 2",
    "SORT w:l2 ALPHA STORE w:sorted",
    "XADD w:x 1-1 f v",
    "XREAD COUNT 1 STREAMS w:x w:none 0 0",
    "XREAD STREAMS w:none 0",
    "XREADGROUP GROUP g me STREAMS w:x >",
    "XGROUP CREATE w:x g 0",
    "XGROUP CREATE w:none g 0",
    "XREADGROUP GROUP g me STREAMS w:x >",
    "XREADGROUP GROUP g me STREAMS w:x >",
    "XACK w:x g 1-1",
    "XINFO GROUPS w:x",
    "PFADD w:p a b",
    "PFCOUNT w:p",
    "PFMERGE w:q w:p",
    "SETBIT w:b 7 1",
    "BITCOUNT w:b",
    "BITOP NOT w:nb w:b",
    "BITFIELD w:b GET u8 0 OVERFLOW FAIL INCRBY u2 0 3",
    "GEOADD w:g 13.361389 38.115556 Palermo",
    "GEOPOS w:g Palermo none",
    "GETDEL w:4",
    "GETEX w:4",
    "OBJECT ENCODING w:h",
    "STRLEN w:h",
    "SET w:1",
    "GET w:h",
    "UNLINK w:q",
    "DEL w:1 w:2 w:none",
];

#[test]
fn replies_are_those_of_redis() {
    let setting = Setting::start();
    let plain = Redis::start().unwrap();
    for (protocol, db) in [("2", "0"), ("3", "11")] {
        let (mut ours, mut theirs) = (setting.client(), plain.client().unwrap());
        for client in [&mut ours, &mut theirs] {
            client.ok(&["HELLO", protocol]).unwrap();
            client.ok(&["SELECT", db]).unwrap();
        }
        assert_same_replies(&mut ours, &mut theirs, COMMANDS, protocol);
        for block in [
            &["SET w:1 1", "INCR w:1", "LPUSH w:1 x", "LMPOP 1 w:l2 LEFT"][..],
            &["GET w:1", "HGETALL w:h", "GET w:h"][..],
        ] {
            for client in [&mut ours, &mut theirs] {
                assert_eq!(text(client, "MULTI"), "OK");
                for line in block {
                    assert_eq!(text(client, line), "QUEUED");
                }
            }
            let expected = theirs.call_with_bytes(&["EXEC"]).unwrap();
            let found = ours.call_with_bytes(&["EXEC"]).unwrap();
            let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
            assert_eq!(shown(&found), shown(&expected));
        }
    }
}

/// What tells all of each type.
const LOOKS: &[&str] = &[
    "GET w:string",
    "HGETALL w:hash",
    "LRANGE w:list 0 -1",
    "SMEMBERS w:set",
    "ZRANGE w:zset 0 -1 WITHSCORES",
    "XINFO STREAM w:stream FULL",
    "GET w:gone",
    "PEXPIRETIME w:string",
];

#[test]
fn every_type_reaches_the_store_and_comes_from_there() {
    let mut setting = Setting::start();
    let plain = setting.plain();
    let mut client = setting.client();
    for line in [
        "SET w:string v PXAT 99999999999999",
        "HSET w:hash f v g w",
        "RPUSH w:list a b c",
        "SADD w:set one",
        "ZADD w:zset 1.5 a -inf b",
        "XADD w:stream 1-1 f v",
        "XGROUP CREATE w:stream g 0",
        "XREADGROUP GROUP g me STREAMS w:stream >",
        "SET w:gone v",
    ] {
        let reply = call(&mut client, line);
        assert!(reply.error().is_none(), "{line}: {reply:?}");
    }
    setting.drained();
    assert_eq!(call(&mut client, "DEL w:gone"), Value::Integer(1));
    setting.drained();
    let expected: Vec<Value> = LOOKS.iter().map(|line| call(&mut client, line)).collect();
    let mut other = plain.client().unwrap();
    for (line, expected) in LOOKS.iter().zip(&expected) {
        // Times since a consumer was last seen differ.
        if !line.starts_with("XINFO") {
            assert_eq!(call(&mut other, line), *expected, "{line}");
        }
    }
    assert_eq!(call(&mut other, "XLEN w:stream"), Value::Integer(1));
    let pending = call(&mut client, "XPENDING w:stream g");
    assert_eq!(call(&mut other, "XPENDING w:stream g"), pending);
    let live = "SELECT key FROM freshet.live_keys WHERE key LIKE 'w:%'";
    assert_eq!(rows(&setting, live), 6);
    // The cache does not show them; and a journal that knows nothing brings them in.
    setting.program.stop().unwrap();
    setting.journal.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    setting.program.start_again().unwrap();
    in_use(&setting.program);
    let mut client = setting.client();
    for (line, expected) in LOOKS.iter().zip(&expected) {
        if !line.starts_with("XINFO") {
            assert_eq!(call(&mut client, line), *expected, "{line}");
        }
    }
    assert_eq!(call(&mut client, "RPUSH w:list d"), Value::Integer(4));
    assert_eq!(call(&mut client, "XACK w:stream g 1-1"), Value::Integer(1));
    assert_eq!(call(&mut client, "APPEND w:string w"), Value::Integer(2));
    setting.drained();
    assert_eq!(text(&mut other, "GET w:string"), "vw");
    assert_eq!(call(&mut other, "LLEN w:list"), Value::Integer(4));
}

fn rows(setting: &Setting, query: &str) -> usize {
    let sql = crate::support::Sql::connect(&setting.database).unwrap();
    sql.query(query, &[]).unwrap().len()
}

#[test]
fn values_of_before_the_route_are_brought_in_and_the_cache_never_shows_older_ones() {
    let database = Postgres::shared().create_database().unwrap();
    let (journal, cache) = (journal(), Redis::start().unwrap());
    let before = Program::start(FRESHET, &database, &cache.url(), &[]).unwrap();
    let mut old = before.client().unwrap();
    assert_eq!(text(&mut old, "SET w:n 41"), "OK");
    assert_eq!(text(&mut old, "GET w:n"), "41");
    let mut program = proxy(&database, &cache, &journal, &[]);
    program.start_again().unwrap();
    in_use(&program);
    let mut client = program.client().unwrap();
    assert_eq!(call(&mut client, "INCR w:n"), Value::Integer(42));
    process::await_true("it is written", LIMIT, || waiting(&journal) == 0).unwrap();
    assert_eq!(text(&mut old, "GET w:n"), "42");
    // Under the old routes once more: what the journal had must not come back.
    program.stop().unwrap();
    program.configure("");
    program.start_again().unwrap();
    in_use(&program);
    let mut client = program.client().unwrap();
    assert_eq!(call(&mut client, "INCR w:n"), Value::Integer(43));
    program.stop().unwrap();
    program.configure(ROUTE);
    program.start_again().unwrap();
    in_use(&program);
    let mut client = program.client().unwrap();
    assert_eq!(text(&mut client, "GET w:n"), "43");
}

#[test]
fn a_change_of_routes_takes_a_restart_which_writes_what_was_left() {
    let mut setting = Setting::start_with(&[], Some("before-drain=stall:600000"));
    let mut client = setting.client();
    assert_eq!(text(&mut client, "SET w:1 v"), "OK");
    setting
        .program
        .append_to_configuration("\n[[route]]\nmatch = \"v:*\"\nstrategy = \"write-behind\"\n")
        .unwrap();
    setting.program.signal("HUP").unwrap();
    setting
        .program
        .await_log("routes not reloaded", LIMIT)
        .unwrap();
    setting.program.kill().unwrap();
    setting.program.disarm();
    setting.program.configure("");
    setting.program.start_again().unwrap();
    in_use(&setting.program);
    assert_eq!(text(&mut setting.client(), "GET w:1"), "v");
    assert_eq!(waiting(&setting.journal), 0);
}

#[test]
fn what_a_killed_proxy_left_is_written_once_by_another() {
    for fault in ["before-drain=exit@1", "after-drain=exit@1"] {
        let mut setting = Setting::start_with(&[], Some(fault));
        let mut client = setting.client();
        let first = call(&mut client, "INCR w:n");
        assert_eq!(first, Value::Integer(1), "{fault}");
        process::await_true("it is dead", LIMIT, || setting.program.try_exit().is_some()).unwrap();
        let second = setting.second();
        let mut client = second.client().unwrap();
        for n in 2..100 {
            assert_eq!(call(&mut client, "INCR w:n"), Value::Integer(n), "{fault}");
        }
        setting.drained();
        let plain = setting.plain();
        assert_eq!(
            text(&mut plain.client().unwrap(), "GET w:n"),
            "99",
            "{fault}"
        );
    }
}

#[test]
fn a_proxy_that_stood_still_writes_nothing_old() {
    let setting = Setting::start_with(&[], Some("before-drain=stall:9000@1"));
    let plain = setting.plain();
    let second = setting.second();
    assert_eq!(call(&mut setting.client(), "INCR w:n"), Value::Integer(1));
    setting
        .program
        .await_log("fault point: stall", LIMIT)
        .unwrap();
    assert_eq!(
        call(&mut second.client().unwrap(), "INCR w:n"),
        Value::Integer(2)
    );
    second
        .await_log(
            "the proxy that writes the journal to PostgreSQL stands still",
            LIMIT,
        )
        .unwrap();
    setting.drained();
    assert_eq!(text(&mut plain.client().unwrap(), "GET w:n"), "2");
    setting
        .program
        .await_log("the journal was written further by another", LIMIT)
        .unwrap();
    assert_eq!(text(&mut plain.client().unwrap(), "GET w:n"), "2");
    // And it goes on.
    assert_eq!(call(&mut setting.client(), "INCR w:n"), Value::Integer(3));
    setting.drained();
    assert_eq!(text(&mut plain.client().unwrap(), "GET w:n"), "3");
}

#[test]
fn a_journal_that_was_killed_has_lost_nothing() {
    let mut setting = Setting::start_with(&[], Some("before-drain=stall:600000"));
    let mut client = setting.client();
    for n in 1..=50 {
        assert_eq!(call(&mut client, "INCR w:n"), Value::Integer(n));
    }
    setting.journal.kill().unwrap();
    let found = error(&mut client, "INCR w:n");
    assert!(
        found.starts_with("UNKNOWN the journal's server") || found.starts_with("TRYAGAIN "),
        "{found}"
    );
    setting.journal.start_again().unwrap();
    process::await_true("it is used again", LIMIT, || {
        call(&mut client, "GET w:n").error().is_none()
    })
    .unwrap();
    let n = text(&mut client, "GET w:n");
    // The one that was not answered may have been done.
    assert!(n == "50" || n == "51", "{n}");
    setting.program.kill().unwrap();
    let second = setting.second();
    setting.drained();
    assert_eq!(text(&mut second.client().unwrap(), "GET w:n"), n);
    let plain = setting.plain();
    assert_eq!(text(&mut plain.client().unwrap(), "GET w:n"), n);
}

#[test]
fn a_journal_that_is_gone_or_older_is_noticed() {
    let mut setting = Setting::start();
    let mut client = setting.client();
    assert_eq!(text(&mut client, "SET w:1 one"), "OK");
    setting.drained();
    // Emptied by somebody.
    setting.journal.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    assert_eq!(text(&mut client, "GET w:1"), "one");
    setting
        .program
        .await_log("the journal of write-behind keys is gone", LIMIT)
        .unwrap();
    // Back with an older state, as after a crash without appendfsync always.
    assert_eq!(text(&mut client, "SET w:1 two"), "OK");
    setting.drained();
    setting.program.kill().unwrap();
    let mut journal = setting.journal.client().unwrap();
    let id = "1-1";
    journal.ok(&["DEL", LOG]).unwrap();
    journal
        .ok(&["XADD", LOG, id, "n", "1", "", "0w:1"])
        .unwrap();
    journal.ok(&["SET", "\x01f~0w:1", "older"]).unwrap();
    let second = setting.second();
    second.await_log("has lost its latest past", LIMIT).unwrap();
    assert_eq!(text(&mut second.client().unwrap(), "GET w:1"), "two");
}

#[test]
fn writes_go_on_without_postgres() {
    let mut postgres = Postgres::start(Fsync::On).unwrap();
    let database = postgres.create_database().unwrap();
    let setting = Setting::start_on(database, &[], None);
    let mut client = setting.client();
    assert_eq!(call(&mut client, "INCR w:n"), Value::Integer(1));
    setting.drained();
    postgres.kill().unwrap();
    assert_eq!(call(&mut client, "INCR w:n"), Value::Integer(2));
    assert_eq!(text(&mut client, "SET w:new v"), "OK");
    assert_eq!(text(&mut client, "GET w:new"), "v");
    // Of a key that the journal does not know, nobody can tell.
    let found = error(&mut client, "GET w:unknown");
    assert!(
        found.starts_with("TRYAGAIN PostgreSQL is out of reach"),
        "{found}"
    );
    postgres.start_again().unwrap();
    setting.drained();
    let plain = setting.plain();
    let mut other = plain.client().unwrap();
    assert_eq!(text(&mut other, "GET w:n"), "2");
    assert_eq!(text(&mut other, "GET w:new"), "v");
}

#[test]
fn an_unfit_journal_is_refused() {
    let database = Postgres::shared().create_database().unwrap();
    let cache = Redis::start().unwrap();
    let unfit = |options: &[&str], part: &str| {
        let journal = Redis::start_with(options).unwrap();
        let mut program = proxy(
            &database,
            &cache,
            &journal,
            &[("write_behind.wait", "200ms")],
        );
        program.start_again().unwrap();
        program.await_log(part, LIMIT).unwrap();
        let found = error(&mut program.client().unwrap(), "SET w:1 v");
        assert!(found.starts_with("TRYAGAIN the journal"), "{found}");
        assert!(found.contains(part), "{found}");
        assert_eq!(text(&mut program.client().unwrap(), "SET other v"), "OK");
    };
    unfit(&[], "set appendonly yes");
    unfit(
        &[
            "--appendonly",
            "yes",
            "--maxmemory",
            "100mb",
            "--maxmemory-policy",
            "allkeys-lru",
        ],
        "set maxmemory-policy noeviction",
    );
    // Another name of the cache.
    let url = format!("redis://localhost:{}", cache.port());
    let settings = [
        ("write_behind.url", url.as_str()),
        ("write_behind.wait", "200ms"),
    ];
    let mut program = Program::stopped(FRESHET, &database, &cache.url(), &settings).unwrap();
    program.configure(ROUTE);
    program.start_again().unwrap();
    program.await_log("its server is the cache", LIMIT).unwrap();
    assert!(error(&mut program.client().unwrap(), "GET w:1").starts_with("TRYAGAIN "));
    // One that is told to be good enough.
    let journal = Redis::start().unwrap();
    let allow = [("write_behind.on_unsafe_journal", "allow")];
    let mut program = proxy(&database, &cache, &journal, &allow);
    program.start_again().unwrap();
    in_use(&program);
    assert_eq!(text(&mut program.client().unwrap(), "SET w:1 v"), "OK");
    // Not Freshet's.
    let foreign = Redis::start_with(&["--appendonly", "yes"]).unwrap();
    foreign
        .client()
        .unwrap()
        .ok(&["SET", "theirs", "v"])
        .unwrap();
    let mut program = proxy(&database, &cache, &foreign, &[]);
    program.start_again().unwrap();
    program
        .await_log("holds what is not Freshet's", LIMIT)
        .unwrap();
}

#[test]
fn a_full_journal_makes_writers_wait() {
    let settings = [
        ("write_behind.max_entries", "10"),
        ("write_behind.wait", "300ms"),
    ];
    let setting = Setting::start_with(&settings, Some("before-drain=stall:600000@1"));
    let mut client = setting.client();
    let mut refused = None;
    for n in 1..=20 {
        let reply = call(&mut client, "INCR w:n");
        if reply != Value::Integer(n) {
            refused = reply.error().map(str::to_owned);
            break;
        }
    }
    let refused = refused.unwrap();
    assert!(
        refused.starts_with("TRYAGAIN the journal of write-behind keys is full"),
        "{refused}"
    );
    assert_eq!(text(&mut client, "GET w:n"), "10");
    // Another proxy relieves the one that stands still, and there is room.
    let second = setting.second();
    process::await_true("there is room", LIMIT, || {
        call(&mut second.client().unwrap(), "INCR w:n")
            .error()
            .is_none()
    })
    .unwrap();
    assert_eq!(text(&mut client, "GET w:n"), "11");
}

#[test]
fn a_stop_writes_what_is_left() {
    let mut setting = Setting::start();
    let mut client = setting.client();
    let commands: Vec<Vec<String>> = (0..2000)
        .map(|n| vec!["SET".to_owned(), format!("w:{n}"), n.to_string()])
        .collect();
    let replies = client.pipeline(&commands).unwrap();
    assert!(replies.iter().all(|reply| reply.error().is_none()));
    setting.program.stop().unwrap();
    assert_eq!(waiting(&setting.journal), 0);
    let written = rows(
        &setting,
        "SELECT key FROM freshet.strings WHERE key LIKE 'w:%'",
    );
    assert_eq!(written, 2000);
}

#[test]
fn values_that_rest_are_dropped_and_brought_in_again() {
    let setting = Setting::start_with(&[("write_behind.keep", "1s")], None);
    let mut client = setting.client();
    assert_eq!(text(&mut client, "SET w:1 v"), "OK");
    let mut journal = setting.journal.client().unwrap();
    process::await_true("it is dropped", LIMIT, || {
        journal.integer(&["EXISTS", "\x01f~0w:1"]).unwrap() == 0
    })
    .unwrap();
    assert_eq!(text(&mut client, "GET w:1"), "v");
    assert_eq!(call(&mut client, "APPEND w:1 w"), Value::Integer(2));
    assert_eq!(
        setting
            .program
            .metric("freshet_journal_loads_total")
            .unwrap(),
        1.0
    );
}

#[test]
fn clients_of_two_proxies_count_to_the_same_number() {
    const EACH: i64 = 300;
    let setting = Setting::start();
    let second = setting.second();
    let count = |program: &Program| {
        let mut client = program.client().unwrap();
        client.set_reply_limit(Duration::from_secs(30)).unwrap();
        for n in 0..EACH {
            let key = format!("w:{}", n % 3);
            assert!(
                client
                    .call(&["INCR", key.as_str()])
                    .unwrap()
                    .error()
                    .is_none()
            );
        }
    };
    std::thread::scope(|scope| {
        for program in [&setting.program, &second, &setting.program, &second] {
            scope.spawn(move || count(program));
        }
    });
    setting.drained();
    let plain = setting.plain();
    for client in [&mut setting.client(), &mut plain.client().unwrap()] {
        for n in 0..3 {
            let found = text(client, &format!("GET w:{n}"));
            assert_eq!(found, (4 * EACH / 3).to_string());
        }
    }
}

#[test]
fn a_journal_without_memory_refuses_and_loses_nothing() {
    let setting = Setting::start();
    let mut client = setting.client();
    assert_eq!(text(&mut client, "SET w:1 v"), "OK");
    let mut journal = setting.journal.client().unwrap();
    journal.ok(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    // Within MULTI, as all is sent, Redis then takes no command at all.
    for line in ["SET w:2 v", "GET w:1", "DEL w:1"] {
        let found = error(&mut client, line);
        assert!(found.starts_with("OOM "), "{line}: {found}");
    }
    setting.drained();
    journal.ok(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert_eq!(text(&mut client, "GET w:1"), "v");
    assert_eq!(call(&mut client, "GET w:2"), Value::Null);
}

/// What one client did until it was told to stop.
#[derive(Default)]
struct Counted {
    acknowledged: i64,
    unknown: i64,
}

/// Counts up, through whichever of the proxies answers.
fn count(proxies: &[SocketAddr], key: &str, stop: &AtomicBool) -> Counted {
    let mut counted = Counted::default();
    let mut clients: Vec<Option<Client>> = proxies.iter().map(|_| None).collect();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let place = turn % proxies.len();
        if clients[place].is_none() {
            clients[place] = Client::connect(proxies[place]).ok();
        }
        let Some(client) = &mut clients[place] else {
            continue;
        };
        match client.call(&["INCR", key]) {
            Ok(Value::Integer(_)) => counted.acknowledged += 1,
            Ok(reply)
                if reply
                    .error()
                    .is_some_and(|text| text.starts_with("TRYAGAIN")) => {}
            Ok(_) => counted.unknown += 1,
            Err(_) => {
                counted.unknown += 1;
                clients[place] = None;
            }
        }
    }
    counted
}

#[test]
fn nothing_is_lost_or_doubled_while_proxies_and_servers_die() {
    let mut postgres = Postgres::start(Fsync::On).unwrap();
    let database = postgres.create_database().unwrap();
    let mut setting = Setting::start_on(database, &[], None);
    let mut second = setting.second();
    let proxies = [setting.program.address(), second.address()];
    let stop = AtomicBool::new(false);
    let keys = ["w:0", "w:1", "w:2", "w:3"];
    let counts: Vec<Counted> = std::thread::scope(|scope| {
        let clients = keys.map(|key| scope.spawn(|| count(&proxies, key, &stop)));
        for round in 0..3 {
            let pause = || std::thread::sleep(Duration::from_millis(300));
            pause();
            setting.program.kill().unwrap();
            pause();
            setting.program.start_again().unwrap();
            setting.journal.kill().unwrap();
            pause();
            setting.journal.start_again().unwrap();
            second.signal("STOP").unwrap();
            pause();
            second.signal("CONT").unwrap();
            if round == 1 {
                postgres.kill().unwrap();
                pause();
                postgres.start_again().unwrap();
            }
            second.kill().unwrap();
            second.start_again().unwrap();
        }
        in_use(&second);
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap()).into()
    });
    in_use(&setting.program);
    setting.drained();
    let plain = setting.plain();
    let (mut ours, mut stored) = (setting.client(), plain.client().unwrap());
    for (key, counted) in keys.iter().zip(counts) {
        let found = text(&mut ours, &format!("GET {key}"));
        assert_eq!(text(&mut stored, &format!("GET {key}")), found, "{key}");
        let number: i64 = found.parse().unwrap();
        let range = counted.acknowledged..=counted.acknowledged + counted.unknown;
        assert!(
            range.contains(&number),
            "{key}: {number} is not in {range:?}"
        );
        assert!(counted.acknowledged > 0, "{key}");
    }
}
