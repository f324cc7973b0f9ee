//! The same exchange with Freshet and with a plain Redis, compared byte for
//! byte, on several connections at once.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::client::encode;
use crate::support::{Client, Redis, Stack};

/// How long what Redis has sent may take to come from Freshet.
const LIMIT: Duration = Duration::from_secs(3);

/// How long is looked for what has been sent, or must not come.
const MOMENT: Duration = Duration::from_millis(2);

/// A connection whose bytes are not understood, and its client's number.
struct Line {
    stream: TcpStream,
    id: String,
    received: Vec<u8>,
}

impl Line {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut line = Self {
            stream,
            id: String::new(),
            received: Vec::new(),
        };
        line.send(&["CLIENT".into(), "ID".into()]);
        line.receive(Some(4), LIMIT);
        let reply = String::from_utf8(std::mem::take(&mut line.received)).unwrap();
        line.id = reply.trim().trim_start_matches(':').to_owned();
        line
    }

    fn send(&mut self, command: &[String]) {
        self.stream.write_all(&encode(command)).unwrap();
    }

    /// Reads until `length` bytes are there, or nothing came for `limit`.
    fn receive(&mut self, length: Option<usize>, limit: Duration) {
        let mut deadline = Instant::now() + limit;
        let mut chunk = [0; 4096];
        while length.is_none_or(|length| self.received.len() < length) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    deadline = Instant::now() + limit;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Freshet and Redis, with the same connections open to both.
struct Pair {
    stack: Stack,
    judge: Redis,
    ours: Vec<Line>,
    theirs: Vec<Line>,
    /// Tells when the judge has done what it was asked for, and sent all of it.
    barrier: Client,
}

impl Pair {
    fn start(connections: usize) -> Self {
        let stack = Stack::start().unwrap();
        let judge = Redis::start().unwrap();
        let mut pair = Self {
            barrier: judge.client().unwrap(),
            stack,
            judge,
            ours: Vec::new(),
            theirs: Vec::new(),
        };
        pair.reconnect(connections);
        pair
    }

    fn reconnect(&mut self, connections: usize) {
        let (ours, theirs) = (self.stack.program.address(), self.judge.address());
        self.ours = (0..connections).map(|_| Line::open(ours)).collect();
        self.theirs = (0..connections).map(|_| Line::open(theirs)).collect();
        let mut both = [self.stack.client().unwrap(), self.judge.client().unwrap()];
        for client in &mut both {
            client.ok(&["FLUSHALL"]).unwrap();
        }
    }

    /// Plays a script: each line is a connection's number and a command, in
    /// which `{n}` stands for the number of client `n`, and `~` for a line's end.
    fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let (connection, command) = line.split_once(' ').unwrap();
            let connection: usize = connection.parse().unwrap();
            for lines in [&mut self.theirs, &mut self.ours] {
                let command = arguments(command, lines);
                lines[connection].send(&command);
            }
            self.compare(line);
        }
    }

    fn compare(&mut self, step: &str) {
        // Redis writes at the end of a turn what it said in it to anybody.
        for _ in 0..2 {
            self.barrier.ok(&["PING"]).unwrap();
        }
        for (index, (ours, theirs)) in self.ours.iter_mut().zip(&mut self.theirs).enumerate() {
            theirs.receive(None, MOMENT);
            let expected = std::mem::take(&mut theirs.received);
            ours.receive(Some(expected.len()), LIMIT);
            ours.receive(None, MOMENT);
            let got = std::mem::take(&mut ours.received);
            assert_eq!(
                got.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "connection {index} after: {step}"
            );
        }
    }
}

fn arguments(command: &str, lines: &[Line]) -> Vec<String> {
    command
        .split(' ')
        .map(|word| match word.strip_prefix('{') {
            Some(rest) => lines[rest.trim_end_matches('}').parse::<usize>().unwrap()]
                .id
                .clone(),
            None if word == "\"\"" => String::new(),
            None => word.replace('~', "\r\n"),
        })
        .collect()
}

// No message fits two patterns of one client: which of them comes first depends on
// the seed of Redis's hash table.
const SUBSCRIPTIONS: &str = "
    0 SUBSCRIBE a b a
    0 PSUBSCRIBE p* ?x
    0 SSUBSCRIBE s t
    0 PING
    0 PING hello
    0 PING a b
    0 GET x
    0 CLIENT ID
    0 HELLO 3
    0 NOSUCH
    0 GET
    0 MULTI
    0 PUBLISH a x
    1 PUBLISH a one
    1 PUBLISH pa two
    1 PUBLISH p three
    1 PUBLISH nobody four
    1 SPUBLISH s five
    1 SPUBLISH a six
    1 PUBLISH s seven
    2 SUBSCRIBE a
    2 PSUBSCRIBE *
    1 PUBLISH a eight
    1 PUBSUB NUMSUB a b c
    1 PUBSUB NUMSUB
    1 PUBSUB SHARDNUMSUB s a
    1 PUBSUB NUMPAT
    1 PUBSUB CHANNELS b*
    1 PUBSUB CHANNELS zz*
    1 PUBSUB SHARDCHANNELS t
    1 PUBSUB CHANNELS a b
    1 PUBSUB SHARDCHANNELS a b
    1 PUBSUB NUMPAT x
    1 PUBSUB
    1 PUBSUB NOSUCH
    1 PUBSUB HELP
    0 UNSUBSCRIBE a
    1 PUBLISH a nine
    0 UNSUBSCRIBE nosuch
    0 UNSUBSCRIBE
    0 UNSUBSCRIBE
    0 PUNSUBSCRIBE p* p*
    0 PUNSUBSCRIBE
    0 PUNSUBSCRIBE
    0 PING
    0 SUNSUBSCRIBE s
    0 SUNSUBSCRIBE
    0 SUNSUBSCRIBE
    0 PING
    0 GET x
    1 PUBLISH a ten
    2 RESET
    1 PUBLISH a eleven
    2 PING
    1 SUBSCRIBE
    1 PUBLISH a
    1 UNSUBSCRIBE
    1 PUNSUBSCRIBE x y
    1 SUNSUBSCRIBE x
    1 PUBSUB NUMPAT
    2 SUBSCRIBE last
    2 QUIT
    1 PUBLISH last x
";

#[test]
fn subscriptions_and_messages_are_those_of_redis() {
    let mut pair = Pair::start(3);
    pair.play(SUBSCRIPTIONS);
    // In RESP3 a client that is subscribed may do anything.
    pair.reconnect(3);
    for lines in [&mut pair.theirs, &mut pair.ours] {
        for line in lines.iter_mut() {
            line.send(&["HELLO".into(), "3".into()]);
            line.receive(None, Duration::from_millis(100));
            line.received.clear();
        }
    }
    let script = SUBSCRIPTIONS.replace("0 HELLO 3", "0 ECHO x");
    let script = script.replace("0 CLIENT ID", "0 ECHO y");
    let script = script.replace("0 MULTI\n", "");
    pair.play(&script);
    pair.play(
        "
        1 SUBSCRIBE a
        1 PUBLISH a self
        1 CLIENT REPLY OFF
        1 PUBLISH a silent
        1 CLIENT REPLY ON
        1 MULTI
        1 SUBSCRIBE q
        1 PUBLISH q x
        1 SET k v
        1 EXEC
        1 UNSUBSCRIBE a
        1 UNSUBSCRIBE
        ",
    );
}

#[test]
fn binary_and_empty_names_and_messages_go_through() {
    let mut pair = Pair::start(2);
    pair.play(
        "
        0 SUBSCRIBE \"\" a~b
        0 PSUBSCRIBE [a-c]* h\\*
        1 PUBLISH \"\" \"\"
        1 PUBLISH a~b ~
        1 PUBLISH h* star
        1 PUBLISH hx none
        0 UNSUBSCRIBE \"\"
        0 PUNSUBSCRIBE h\\*
        ",
    );
    let large = "x".repeat(3_000_000);
    pair.play(&format!("1 PUBLISH abc {large}"));
}

const EVENTS: &str = "
    0 CONFIG GET notify-keyspace-events
    0 PSUBSCRIBE __key*__:*
    1 SET a 1
    1 SET a 2
    1 SET a 3 EX 100
    1 SET a 3 KEEPTTL
    1 SET a 4 XX GET
    1 SET a 5 NX
    1 SETNX a 6
    1 SETNX b 7
    1 SETEX c 100 x
    1 PSETEX c 100000 x
    1 MSET a 1 b 2 d 3
    1 MSETNX a 1 e 2
    1 MSETNX e 1 f 2
    1 GETSET a 5
    1 GETSET new 5
    1 INCR a
    1 DECRBY a 3
    1 INCRBYFLOAT a 1.5
    1 INCR text
    1 APPEND a x
    1 APPEND g x
    1 INCR a
    1 SETRANGE a 3 yy
    1 SETRANGE a 3 \"\"
    1 SETRANGE h 0 z
    1 SETBIT a 3 1
    1 SETBIT i 3 1
    1 BITFIELD a SET u8 0 7
    1 BITFIELD a GET u8 0
    1 BITOP OR j a b
    1 BITOP AND j nosuch nosuch2
    1 BITOP AND j nosuch nosuch2
    1 EXPIRE a 100
    1 PEXPIREAT a 1
    1 EXPIRE nosuch 100
    1 SET a 1
    1 EXPIRE a 100 NX
    1 EXPIRE a 100 NX
    1 PERSIST a
    1 PERSIST a
    1 GETEX a
    1 GETEX a EX 100
    1 GETEX a PERSIST
    1 GETEX a EXAT 1
    1 GETDEL a
    1 GETDEL b
    1 DEL b c d d
    1 UNLINK e f nosuch
    1 SET a 1
    1 SET b 2
    1 RENAME a b
    1 RENAME b c
    1 RENAMENX c d
    1 RENAME d d
    1 SET x 1
    1 RENAMENX d x
    1 COPY d e
    1 COPY d e
    1 COPY d e REPLACE
    1 COPY d e DB 3
    1 MOVE d 4
    1 MOVE d 4
    1 SELECT 4
    1 SET d 5
    1 SELECT 0
    1 GET nosuch
    1 EXISTS nosuch
    1 TOUCH e
    1 MULTI
    1 SET m 1
    1 INCR m
    1 DEL m
    1 EXEC
    1 FLUSHDB
    1 SET last 1
    0 PUNSUBSCRIBE
    0 SUBSCRIBE __keyevent@0__:set __keyspace@0__:k
    1 SET k 1
    1 SET other 1
    1 DEL k
";

#[test]
fn notifications_of_strings_and_keys_are_those_of_redis() {
    let mut pair = Pair::start(2);
    for lines in [&mut pair.theirs, &mut pair.ours] {
        lines[0].send(&["CONFIG", "SET", "notify-keyspace-events", "KEAn"].map(String::from));
        lines[0].receive(Some(5), LIMIT);
        lines[0].received.clear();
    }
    pair.play(EVENTS);
}

/// Commands on keys that are not there, and on one that is: who reads tells of a miss.
const MISSES: &str = "
    1 SET there 1
    1 SADD set a
    0 PSUBSCRIBE __key*__:*
    1 GET nosuch
    1 GET there
    1 MGET nosuch there other nosuch
    1 MGET there there
    1 STRLEN nosuch
    1 GETRANGE nosuch 0 1
    1 EXISTS nosuch there nosuch
    1 TOUCH nosuch
    1 TYPE nosuch
    1 TTL nosuch
    1 PEXPIRETIME nosuch
    1 TTL there
    1 OBJECT ENCODING nosuch
    1 OBJECT FREQ nosuch
    1 MEMORY USAGE nosuch
    1 DUMP nosuch
    1 HGET nosuch f
    1 HGETALL nosuch
    1 HSCAN nosuch 0
    1 LRANGE nosuch 0 -1
    1 LPOS nosuch a
    1 SMEMBERS nosuch
    1 SISMEMBER nosuch a
    1 SRANDMEMBER nosuch
    1 SINTER set nosuch
    1 SUNION nosuch set other
    1 SDIFF nosuch set
    1 SINTERCARD 2 nosuch set
    1 ZRANGE nosuch 0 -1
    1 ZSCORE nosuch a
    1 ZRANK nosuch a
    1 ZUNION 2 nosuch set
    1 ZRANDMEMBER nosuch
    1 GEOPOS nosuch a
    1 XLEN nosuch
    1 XRANGE nosuch - +
    1 XREAD STREAMS nosuch other 0 0
    1 XINFO STREAM nosuch
    1 XPENDING nosuch g
    1 PFCOUNT nosuch
    1 PFCOUNT nosuch other
    1 BITCOUNT nosuch
    1 GETBIT nosuch 1
    1 LCS nosuch there
    1 SORT_RO nosuch
    1 SUBSTR nosuch 0 1
    1 GETEX nosuch
    1 GETDEL nosuch
    1 GETSET made 1
    1 DEL made
    1 SET made 1 GET
    1 DEL made
    1 SET made GET
    1 COPY nosuch other
    1 SORT nosuch
    1 SORT nosuch STORE other
    1 BITOP OR other nosuch there
    1 BITFIELD nosuch GET u8 0
    1 BITFIELD nosuch2 SET u8 0 1
    1 BITFIELD_RO nosuch GET u8 0
    1 SINTERSTORE other set nosuch
    1 SUNIONSTORE other nosuch set
    1 ZUNIONSTORE other 2 nosuch set
    1 ZRANGESTORE other nosuch 0 -1
    1 XREADGROUP GROUP g c STREAMS nosuch >
    1 XACK nosuch g 1-1
    1 XCLAIM nosuch g c 0 1-1
    1 APPEND nosuch3 x
    1 INCR nosuch4
    1 LPOP nosuch
    1 LPUSHX nosuch a
    1 SPOP nosuch
    1 SMOVE nosuch set a
    1 ZPOPMIN nosuch
    1 HDEL nosuch f
    1 DEL nosuch
    1 EXPIRE nosuch 100
    1 PERSIST nosuch
    1 RENAME nosuch other
    1 GET nosuch x
    1 MULTI
    1 GET nosuch
    1 TTL nosuch
    1 EXEC
    1 MULTI
    1 GET nosuch
    1 SET there 2
    1 LLEN nosuch
    1 EXEC
    1 SET last 1
";

#[test]
fn misses_are_told_as_by_redis() {
    let mut pair = Pair::start(2);
    for lines in [&mut pair.theirs, &mut pair.ours] {
        lines[0].send(&["CONFIG", "SET", "notify-keyspace-events", "KEAm"].map(String::from));
        lines[0].receive(Some(5), LIMIT);
        lines[0].received.clear();
    }
    pair.play(MISSES);
}

#[test]
fn only_the_wanted_classes_are_told() {
    let mut pair = Pair::start(2);
    pair.play(
        "
        1 CONFIG SET notify-keyspace-events KEy
        1 CONFIG SET notify-keyspace-events E$
        1 CONFIG GET notify-keyspace-events
        1 CONFIG SET notify-keyspace-events K notify-keyspace-events E
        1 CONFIG SET notify-keyspace-events
        1 CONFIG SET nosuch 1
        0 PSUBSCRIBE *
        1 SET a 1 EX 100
        1 DEL a
        1 CONFIG SET notify-keyspace-events Kg
        1 SET a 1 EX 100
        1 DEL a
        1 CONFIG SET notify-keyspace-events KE
        1 SET a 1
        1 CONFIG SET notify-keyspace-events gx$
        1 SET a 1
        1 CONFIG SET notify-keyspace-events AKEmn
        1 CONFIG GET notify-keyspace-*
        1 CONFIG SET notify-keyspace-events \"\"
        1 SET a 1
        ",
    );
}

const TRACKING: &str = "
    0 CLIENT TRACKINGINFO
    0 CLIENT GETREDIR
    0 CLIENT CACHING YES
    0 CLIENT TRACKING
    0 CLIENT TRACKING MAYBE
    0 CLIENT TRACKING ON PREFIX a
    0 CLIENT TRACKING ON BCAST PREFIX a PREFIX ab
    0 CLIENT TRACKING ON BCAST OPTIN
    0 CLIENT TRACKING ON OPTIN OPTOUT
    0 CLIENT TRACKING ON REDIRECT 99999999
    0 CLIENT TRACKING ON REDIRECT x
    0 CLIENT TRACKING ON REDIRECT
    0 CLIENT TRACKING ON NOSUCH
    0 CLIENT TRACKING ON
    0 CLIENT TRACKINGINFO
    0 CLIENT GETREDIR
    1 SET a 1
    0 GET a
    1 SET a 2
    1 SET a 3
    0 MGET a b nosuch
    1 MSET a 1 b 2 c 3
    0 GET a
    0 SET a 4
    0 STRLEN a
    1 DEL a
    0 EXISTS a
    1 SET a 5
    0 TTL a
    1 EXPIRE a 100
    0 GET a
    1 RENAME a z
    0 GET a
    0 GET z
    1 FLUSHALL
    0 CLIENT TRACKING ON BCAST
    0 CLIENT TRACKING OFF
    0 GET a
    1 SET a 6
    0 CLIENT TRACKING ON OPTIN
    0 GET a
    1 SET a 7
    0 CLIENT CACHING NO
    0 CLIENT CACHING MAYBE
    0 CLIENT CACHING YES
    0 CLIENT TRACKINGINFO
    0 GET a
    0 GET b
    1 SET a 8
    1 SET b 8
    0 CLIENT CACHING YES
    0 PING
    0 GET a
    1 SET a 9
    0 CLIENT TRACKING ON OPTOUT
    0 CLIENT TRACKING OFF
    0 CLIENT TRACKING ON OPTOUT NOLOOP
    0 CLIENT TRACKINGINFO
    0 CLIENT CACHING YES
    0 GET a
    1 SET a 10
    0 CLIENT CACHING NO
    0 CLIENT TRACKINGINFO
    0 GET a
    1 SET a 11
    0 GET a
    0 SET a 12
    1 SET a 13
    0 GET a
    1 SET a 14
    0 CLIENT TRACKING OFF
    0 CLIENT TRACKING ON BCAST PREFIX u: PREFIX v: NOLOOP
    0 CLIENT TRACKING ON BCAST PREFIX u:x
    0 CLIENT TRACKINGINFO
    1 SET u:1 1
    1 SET w:1 1
    0 SET u:1 2
    1 INCR v:1
    1 DEL nosuch
    1 SET u:1 3 NX
    1 DEL u:1
    1 FLUSHDB
    0 CLIENT TRACKING OFF
    0 CLIENT TRACKING ON BCAST
    1 SET x 1
    0 SET x 2
    0 MULTI
    0 SET x 3
    0 GET x
    0 EXEC
    0 RESET
    1 SET x 3
    0 CLIENT TRACKINGINFO
";

#[test]
fn tracking_is_that_of_redis() {
    let mut pair = Pair::start(2);
    pair.play(TRACKING);
    pair.reconnect(2);
    for lines in [&mut pair.theirs, &mut pair.ours] {
        lines[0].send(&["HELLO".into(), "3".into()]);
        lines[0].receive(None, Duration::from_millis(100));
        lines[0].received.clear();
    }
    pair.play(TRACKING);
}

#[test]
fn invalidations_are_redirected_as_by_redis() {
    let mut pair = Pair::start(3);
    pair.play(
        "
        0 CLIENT TRACKING ON REDIRECT {2}
        0 CLIENT TRACKING ON REDIRECT {2} REDIRECT {1}
        0 GET a
        1 SET a 1
        2 SUBSCRIBE __redis__:invalidate
        0 GET a
        1 SET a 2
        0 MGET a b
        1 MSET b 1
        1 FLUSHALL
        0 GET a
        2 UNSUBSCRIBE
        1 SET a 3
        2 SUBSCRIBE other
        0 GET a
        1 SET a 4
        0 CLIENT TRACKING OFF
        0 CLIENT TRACKING ON BCAST PREFIX k REDIRECT {2}
        1 SET k1 1
        0 SET k2 1
        1 FLUSHALL
        2 QUIT
        ",
    );
    pair.ours.truncate(2);
    pair.theirs.truncate(2);
    pair.play(
        "
        1 SET k3 1
        1 ECHO x
        ",
    );
}

#[test]
fn client_list_shows_what_is_subscribed_and_tracked() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut other = stack.client().unwrap();
    let id = client.integer(&["CLIENT", "ID"]).unwrap().to_string();
    other
        .ok(&["CLIENT", "TRACKING", "ON", "BCAST", "REDIRECT", &id])
        .unwrap();
    client.ok(&["SUBSCRIBE", "a", "b"]).unwrap();
    client.read().unwrap();
    client.ok(&["PSUBSCRIBE", "p*"]).unwrap();
    let mut asks = |kind: &str| other.text(&["CLIENT", "LIST", "TYPE", kind]).unwrap();
    let line = asks("pubsub");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(
        line.contains(" flags=P ") && line.contains(" sub=2 psub=1 ssub=0 "),
        "{line}"
    );
    let line = asks("normal");
    assert!(line.contains(" flags=tB "), "{line}");
    assert!(line.contains(&format!(" redir={id} ")), "{line}");
    let info = other.text(&["INFO"]).unwrap();
    for field in [
        "tracking_clients:1",
        "pubsub_channels:2",
        "pubsub_patterns:1",
    ] {
        assert!(info.contains(field), "{field}");
    }
    assert_eq!(
        other
            .integer(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .unwrap(),
        1
    );
    let mut cut: Client = client;
    assert!(cut.read_to_close().is_ok());
}
