//! What applications ask beside their data, in RESP2 and RESP3: the same bytes as a plain Redis.

use crate::support::{Client, Redis, Stack};

/// Whose replies are the same bytes.
const SAME: &[&str] = &[
    "SET text short",
    "SET number 12345",
    "HSET hash a 1 b 2",
    "RPUSH list a b c",
    "SADD ints 1 2 3",
    "SADD words a",
    "ZADD zset 1.5 a 2 b inf c",
    "XADD stream 1-1 f v",
    "OBJECT ENCODING text",
    "OBJECT ENCODING number",
    "OBJECT ENCODING hash",
    "OBJECT ENCODING list",
    "OBJECT ENCODING ints",
    "OBJECT ENCODING words",
    "OBJECT ENCODING zset",
    "OBJECT ENCODING stream",
    "OBJECT ENCODING none",
    "OBJECT REFCOUNT text",
    "OBJECT FREQ text",
    "OBJECT NOSUCH text",
    // Types of replies: maps, sets, doubles, pairs, nulls of both kinds, big numbers.
    "HGETALL hash",
    "HGETALL none",
    "HRANDFIELD hash 0 WITHVALUES",
    "SMEMBERS words",
    "SMEMBERS none",
    "SPOP none 1",
    "SINTER words words",
    "SUNION words none",
    "SDIFF words none",
    "SMISMEMBER words a b",
    "ZSCORE zset a",
    "ZSCORE zset none",
    "ZMSCORE zset a none c",
    "ZRANGE zset 0 -1 WITHSCORES",
    "ZRANGE zset 0 -1",
    "ZPOPMIN none",
    "ZPOPMIN none 1",
    "ZINCRBY zset 0.25 a",
    "ZADD zset INCR 1 a",
    "ZADD zset XX INCR 1 none",
    "ZRANK zset none",
    "ZRANDMEMBER none",
    "ZRANDMEMBER none 1",
    "ZUNION 2 zset words WITHSCORES",
    "ZDIFF 2 zset words WITHSCORES",
    "ZMPOP 1 none MIN",
    "LMPOP 1 none LEFT",
    "LPOP none",
    "LPOP none 1",
    "LPOP list 0",
    "LPOS list none",
    "LPOS list none COUNT 1",
    "BLPOP none 0.01",
    "BZPOPMIN none 0.01",
    "BZMPOP 0.01 1 none MIN",
    "XREAD STREAMS stream 0",
    "XREAD STREAMS none 0",
    "XRANGE stream - +",
    "XINFO STREAM stream",
    "XPENDING stream none",
    "XAUTOCLAIM none g c 0 0",
    "GEOPOS none a",
    "GEODIST none a b",
    "GETEX none",
    "GETDEL none",
    "SET none 1 XX",
    "SET text new GET",
    "INCRBYFLOAT number 0.5",
    "HINCRBYFLOAT hash a 0.5",
    "LCS text number IDX",
    "SORT list ALPHA GET none_*",
    "MGET none text",
    "COPY none text",
    "EXPIRETIME text",
    "EXPIRETIME none",
    "ACL WHOAMI",
    "ACL USERS",
    "CLIENT GETNAME",
    "CLIENT REPLY NOSUCH",
    "CLIENT NO-EVICT NOSUCH",
    "COMMAND GETKEYS LMOVE a b LEFT LEFT",
    "COMMAND GETKEYSANDFLAGS LMOVE a b LEFT LEFT",
    "COMMAND GETKEYSANDFLAGS SORT a BY x STORE b",
    "COMMAND GETKEYSANDFLAGS XREAD STREAMS a b 0 0",
    "COMMAND GETKEYSANDFLAGS PING",
    "COMMAND INFO get nosuch",
    "COMMAND DOCS get",
    "COMMAND DOCS nosuch",
    "CONFIG GET save",
    "CONFIG GET nosuch",
    "CONFIG GET databases",
    "CONFIG RESETSTAT",
    "LATENCY LATEST",
    "LATENCY HISTORY x",
    "LATENCY RESET",
    "LATENCY HISTOGRAM nosuch",
    "MEMORY USAGE none",
    "MEMORY PURGE",
    "MODULE LIST",
    "SLOWLOG RESET",
    "SLOWLOG GET x",
    "CLUSTER INFO",
    "CLUSTER SLOTS",
    "CLUSTER SHARDS",
    "CLUSTER KEYSLOT foo",
    "READONLY",
    "ASKING",
    "ROLE",
    "REPLICAOF NO ONE",
    "SLAVEOF no one",
    "REPLICAOF NO",
    "FAILOVER",
    "FAILOVER ABORT",
    "WAIT 0 0",
    "WAIT 1 1",
    "WAIT x 1",
    "WAIT 0 -1",
    "SELECT 99",
    "SWAPDB 0 99",
    "UNWATCH",
    "DISCARD",
    "EXEC",
    "MULTI",
    "GET text x",
    "INCR number",
    "NOSUCH",
    "EXEC",
    "MULTI",
    "INCR text",
    "ZSCORE zset b",
    "HGETALL hash",
    "SMEMBERS words",
    "EXEC",
    "CLIENT SETNAME me",
    "RESET",
    "CLIENT GETNAME",
    "PING",
    "ACL DRYRUN default GET a",
    "PUBSUB NUMSUB a",
    "PUBSUB CHANNELS",
    "OBJECT HELP",
    "LATENCY HELP",
    "SLOWLOG HELP",
    "MEMORY HELP",
];

/// What a Redis would do and Freshet does not: its own words say why.
const REFUSED: &[(&str, &str)] = &[
    (
        "REPLICAOF 127.0.0.1 6379",
        "ERR Freshet replicates no other server",
    ),
    (
        "SAVE",
        "ERR Freshet does not serve 'save': it writes no dump",
    ),
    ("BGSAVE", "ERR Freshet does not serve 'bgsave'"),
    ("BGREWRITEAOF", "ERR Freshet does not serve 'bgrewriteaof'"),
    ("SHUTDOWN NOSAVE", "ERR Freshet does not serve 'shutdown'"),
    (
        "CONFIG REWRITE",
        "ERR Freshet does not serve 'config|rewrite': it does not rewrite",
    ),
    (
        "CONFIG SET maxmemory 1mb",
        "ERR CONFIG SET failed (possibly related to argument 'maxmemory')",
    ),
    ("DEBUG OBJECT text", "ERR Freshet serves DEBUG SLEEP only"),
    ("DEBUG JMAP", "ERR Freshet serves DEBUG SLEEP only"),
    ("MONITOR", "ERR Freshet does not serve 'monitor'"),
    ("SYNC", "ERR Freshet does not serve 'sync'"),
    ("PSYNC ? -1", "ERR Freshet does not serve 'psync'"),
    ("MODULE LOAD x", "ERR Freshet does not serve 'module|load'"),
];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn bytes(client: &mut Client, line: &str) -> String {
    let reply = client.call_with_bytes(&words(line)).unwrap();
    reply.escape_ascii().to_string()
}

#[test]
fn what_is_asked_beside_the_data_is_answered_as_by_redis() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    for protocol in ["2", "3"] {
        let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
        for client in [&mut ours, &mut theirs] {
            client.ok(&["FLUSHALL"]).unwrap();
            client.ok(&["HELLO", protocol]).unwrap();
        }
        for line in SAME {
            let expected = bytes(&mut theirs, line);
            assert_eq!(bytes(&mut ours, line), expected, "RESP{protocol}: {line}");
        }
    }
}

#[test]
fn what_freshet_does_not_do_is_refused_in_its_own_words() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for (line, words_of_it) in REFUSED {
        let reply = client.call(&words(line)).unwrap();
        let error = reply.error().unwrap_or_default().to_owned();
        assert!(error.starts_with(words_of_it), "{line}: {reply:?}");
    }
    assert_eq!(client.text(&["PING"]).unwrap(), "PONG");
}

/// A pipeline with mistakes in its middle: each has its own reply, in its place.
#[test]
fn mistakes_in_a_long_pipeline_disturb_nothing_around_them() {
    const COMMANDS: usize = 3_000;
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let line = |number: usize| match number % 10 {
        0 => format!("SET k{number} {number}"),
        1 => format!("GET k{}", number - 1),
        2 => format!("LPUSH k{} x", number - 2),
        3 => "INCR n".to_owned(),
        4 => "NOSUCH a".to_owned(),
        5 => format!("RPUSH l {number}"),
        6 => "INCR l".to_owned(),
        7 => "SET".to_owned(),
        8 => "LLEN l".to_owned(),
        _ => "MGET n k0 none".to_owned(),
    };
    let lines: Vec<String> = (0..COMMANDS).map(line).collect();
    let pipeline: Vec<Vec<&str>> = lines.iter().map(|line| words(line)).collect();
    let ours = stack.client().unwrap().pipeline(&pipeline).unwrap();
    let theirs = judge.client().unwrap().pipeline(&pipeline).unwrap();
    for ((ours, theirs), line) in ours.iter().zip(&theirs).zip(&lines) {
        assert_eq!(ours, theirs, "{line}");
    }
    assert_eq!((ours.len(), theirs.len()), (COMMANDS, COMMANDS));
}
