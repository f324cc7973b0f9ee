//! Whatever the rows of a key hold (someone may have changed them by SQL), commands on it are
//! answered, or refused, without harm; and so is whatever the row of a kept reply holds.
#![no_main]

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use freshet::command::resolve;
use freshet::engine::{Content, Loaded, Workspace, execute, replay};
use freshet::model::{
    Collection, Db, Effect, Element, Key, Kind, Known, Protocol, Request, UnixMs, Value, Version,
};
use freshet::resp::{encode, pack, unpack};
use libfuzzer_sys::fuzz_target;

const NOW: UnixMs = UnixMs(1_000_000);

/// Commands on the key `k`, the generic ones first.
const GENERIC: &[&str] = &[
    "TYPE k",
    "OBJECT ENCODING k",
    "DUMP k",
    "COPY k l",
    "RENAME k l",
    "EXPIRE k 100",
    "PERSIST k",
    "DEL k",
    "SORT k ALPHA LIMIT 0 5",
    "SORT k DESC STORE l",
];

const OF_KINDS: [&[&str]; 6] = [
    &[
        "GET k",
        "APPEND k x",
        "INCRBY k 5",
        "INCRBYFLOAT k 0.5",
        "SETRANGE k 3 x",
        "BITFIELD k INCRBY i8 4 100 GET u63 #1",
        "BITPOS k 0",
        "LCS k k IDX",
        "PFADD k a b",
        "PFCOUNT k",
        "PFMERGE k k",
        "GETDEL k",
    ],
    &[
        "HGETALL k",
        "HSET k f v g w",
        "HDEL k f",
        "HINCRBY k f 1",
        "HINCRBYFLOAT k f 1.5",
        "HRANDFIELD k -3 WITHVALUES",
        "HSCAN k 0",
        "HLEN k",
    ],
    &[
        "LRANGE k 0 -1",
        "LPUSH k a b",
        "RPUSH k c",
        "LPOP k",
        "RPOP k 2",
        "LINSERT k BEFORE a b",
        "LINSERT k AFTER b c",
        "LSET k 0 x",
        "LREM k -1 a",
        "LTRIM k 1 -2",
        "LMOVE k k LEFT RIGHT",
        "LPOS k a RANK -1 COUNT 0",
        "LINDEX k -1",
    ],
    &[
        "SMEMBERS k",
        "SADD k a 1",
        "SREM k a",
        "SPOP k",
        "SRANDMEMBER k -3",
        "SSCAN k 0",
        "SUNIONSTORE l k k",
        "SINTERCARD 2 k k",
    ],
    &[
        "ZRANGE k 0 -1 WITHSCORES",
        "ZADD k GT 1.5 a -inf b",
        "ZINCRBY k inf a",
        "ZPOPMIN k",
        "ZPOPMAX k 2",
        "ZRANGEBYSCORE k -inf (5",
        "ZREVRANGEBYLEX k + [a",
        "ZRANK k a",
        "ZREMRANGEBYRANK k 0 1",
        "ZREMRANGEBYSCORE k 0 inf",
        "ZUNIONSTORE l 2 k k WEIGHTS 2 -3",
        "ZRANDMEMBER k -2 WITHSCORES",
        "GEOADD k 13.3 38.1 p",
        "GEOSEARCH k FROMLONLAT 13 38 BYRADIUS 500 km ASC",
        "GEOHASH k a p",
    ],
    &[
        "XRANGE k - +",
        "XREVRANGE k + - COUNT 2",
        "XADD k * f v",
        "XADD k MAXLEN 2 * f v g w",
        "XDEL k 1-1",
        "XTRIM k MINID 5",
        "XLEN k",
        "XSETID k 99-1",
        "XGROUP CREATE k g 0",
        "XREADGROUP GROUP g c COUNT 2 STREAMS k >",
        "XREADGROUP GROUP g c STREAMS k 0",
        "XACK k g 1-1",
        "XPENDING k g",
        "XPENDING k g - + 5",
        "XCLAIM k g d 0 1-1 FORCE",
        "XAUTOCLAIM k g d 0 0",
        "XINFO STREAM k FULL",
        "XINFO GROUPS k",
        "XINFO CONSUMERS k g",
        "XGROUP DESTROY k g",
    ],
];

/// What rows are made of.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> Bytes {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Bytes::copy_from_slice(bytes)
    }

    fn rank(&mut self) -> f64 {
        match self.byte() {
            small @ ..200 => f64::from(small) - 100.0,
            _ => {
                let bytes: [u8; 8] = std::array::from_fn(|_| self.byte());
                f64::from_bits(u64::from_be_bytes(bytes))
            }
        }
    }

    fn value(&mut self) -> Value {
        let kind = Kind::ALL[usize::from(self.byte()) % Kind::ALL.len()];
        if kind == Kind::String {
            return Value::String(self.bytes());
        }
        let meta = self.bytes();
        let mut elements = BTreeMap::new();
        for _ in 0..self.byte() % 16 {
            let field = self.bytes();
            let element = Element {
                rank: self.rank(),
                value: self.bytes(),
            };
            elements.insert(field, Some(element));
        }
        // The row says how many there are, and may be wrong.
        let size = match self.byte() {
            0 => u64::from(self.byte()),
            _ => elements.len() as u64,
        };
        let known = Known {
            whole: true,
            ..Known::default()
        };
        Value::Collection(Box::new(Collection::loaded(
            kind, size, meta, known, elements,
        )))
    }
}

fn told(workspace: &Workspace) {
    for effect in workspace.effects().values() {
        if let Effect::Whole(entry) | Effect::Delta(entry) = effect
            && let Value::Collection(collection) = &entry.value
        {
            match effect {
                Effect::Whole(_) => drop(replay::rebuild(collection)),
                _ => drop(replay::repeat(collection)),
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    if let Ok(replies) = unpack(&Bytes::copy_from_slice(input)) {
        let packed = Bytes::from(pack(&replies).expect("what was read can be written"));
        let again = unpack(&packed).expect("what was written can be read");
        assert_eq!(pack(&again).as_deref(), Some(&packed[..]));
    }
    let mut input = Input(input);
    let value = input.value();
    let commands = OF_KINDS[value.kind() as usize];
    let mut workspace = Workspace::default();
    let mut load = |name: &'static str, content| {
        let loaded = Loaded {
            version: Version(1),
            content,
            expires_at: None,
        };
        workspace.load(Key::new(Db::default(), name), loaded);
    };
    load("k", Content::Value(value));
    load("l", Content::Absent);
    for _ in 0..8 {
        let index = usize::from(input.byte()) % (GENERIC.len() + commands.len());
        let line = GENERIC.iter().chain(commands).nth(index).expect("an index");
        let words: Vec<&str> = line.split(' ').collect();
        let call = resolve(Request::from_args(&words)).expect("the command is known");
        let reply = execute(&call, Db::default(), &mut workspace, NOW);
        let mut out = BytesMut::new();
        encode(&reply, Protocol::Resp3, &mut out);
        told(&workspace);
    }
});
