//! Each function leaves, and returns, what the command of its name does in Redis.

use tokio_postgres::types::ToSql;

use super::LIMIT;
use crate::support::seed::{self, Random};
use crate::support::{Client, Redis, Sql, Stack, Value, process};

const ROUNDS: usize = 600;
const KEYS: usize = 6;

/// An argument of a function.
#[derive(Debug)]
enum Arg {
    Bytes(Vec<u8>),
    Several(Vec<Vec<u8>>),
    Number(i64),
    Scores(Vec<f64>),
}

impl Arg {
    fn value(&self) -> (&(dyn ToSql + Sync), &'static str) {
        match self {
            Self::Bytes(bytes) => (bytes, "bytea"),
            Self::Several(several) => (several, "bytea[]"),
            Self::Number(number) => (number, "bigint"),
            Self::Scores(scores) => (scores, "float8[]"),
        }
    }
}

/// A call of a function, and the command that does the same.
struct Step {
    query: String,
    args: Vec<Arg>,
    command: Vec<Vec<u8>>,
}

/// The reply of either, as text.
type Said = Result<Option<String>, String>;

impl Step {
    /// `function(args...)` beside `FUNCTION words...`.
    fn new(function: &str, args: Vec<Arg>, words: Vec<Vec<u8>>) -> Self {
        let places = args.iter().enumerate();
        let places: Vec<String> = places
            .map(|(index, arg)| format!("${}::{}", index + 1, arg.value().1))
            .collect();
        let name = function.to_uppercase().into_bytes();
        Self {
            query: format!("SELECT (freshet.{function}({}))::text", places.join(", ")),
            args,
            command: [vec![name], words].concat(),
        }
    }

    /// The same, where both begin with a key.
    fn on(key: &[u8], function: &str, args: Vec<Arg>, words: Vec<Vec<u8>>) -> Self {
        let args = std::iter::once(Arg::Bytes(key.to_vec())).chain(args);
        let words = [vec![key.to_vec()], words].concat();
        Self::new(function, args.collect(), words)
    }

    fn by_sql(&self, sql: &Sql) -> Said {
        let values: Vec<&(dyn ToSql + Sync)> = self.args.iter().map(|arg| arg.value().0).collect();
        match sql.query(&self.query, &values) {
            Ok(rows) => Ok(match rows[0].get::<_, Option<String>>(0).as_deref() {
                Some("true") => Some("1".to_owned()),
                Some("false") => Some("0".to_owned()),
                Some("") if self.query.contains(".set(") => Some("OK".to_owned()),
                other => other.map(str::to_owned),
            }),
            Err(error) => {
                let error = error.downcast::<tokio_postgres::Error>().unwrap();
                Err(error.as_db_error().unwrap().message().to_owned())
            }
        }
    }

    fn by_redis(&self, client: &mut Client) -> Said {
        match client.call(&self.command).unwrap() {
            Value::Error(text) => Err(text),
            Value::Integer(number) => Ok(Some(number.to_string())),
            Value::Bulk(bytes) => Ok(Some(hexadecimal(&bytes))),
            other => Ok(other.text()),
        }
    }
}

/// As PostgreSQL writes bytes.
fn hexadecimal(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{digits}")
}

fn value(random: &mut Random) -> Vec<u8> {
    match random.below(12) {
        0 => Vec::new(),
        1 => vec![0, 255, 10, 13, 92, 39],
        2 => vec![b'x'; 1500 + random.below(3)],
        3 => b"9223372036854775807".to_vec(),
        4 => b"-5".to_vec(),
        5 => b"007".to_vec(),
        _ => random.below(20).to_string().into_bytes(),
    }
}

fn several(random: &mut Random) -> Vec<Vec<u8>> {
    (0..1 + random.below(4)).map(|_| value(random)).collect()
}

fn alternating(one: &[Vec<u8>], other: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let pairs = one.iter().zip(other);
    pairs.flat_map(|(a, b)| [a.clone(), b.clone()]).collect()
}

/// Something that the functions do to a key.
fn step(random: &mut Random) -> Step {
    let key = format!("key:{}", random.below(KEYS)).into_bytes();
    match random.below(16) {
        0 | 1 => {
            let value = value(random);
            Step::on(&key, "set", vec![Arg::Bytes(value.clone())], vec![value])
        }
        2 => Step::on(&key, "get", vec![], vec![]),
        3 => {
            let other = format!("key:{}", random.below(KEYS)).into_bytes();
            let keys = vec![key, other];
            Step::new("del", vec![Arg::Several(keys.clone())], keys)
        }
        4 => {
            let mut step = Step::on(&key, "expire", vec![], vec![b"1000".to_vec()]);
            step.query = "SELECT (freshet.expire($1::bytea, '1000 s'))::text".to_owned();
            step
        }
        5 => Step::on(&key, "persist", vec![], vec![]),
        6 => {
            let by = i64::try_from(random.below(100)).unwrap() - 50;
            let word = by.to_string().into_bytes();
            Step::on(&key, "incrby", vec![Arg::Number(by)], vec![word])
        }
        _ => step_on_elements(&key, random),
    }
}

/// The same to a collection.
fn step_on_elements(key: &[u8], random: &mut Random) -> Step {
    let fields = several(random);
    match random.below(9) {
        0 | 1 => {
            let values: Vec<Vec<u8>> = fields.iter().map(|_| value(random)).collect();
            let words = alternating(&fields, &values);
            let args = vec![Arg::Several(fields), Arg::Several(values)];
            Step::on(key, "hset", args, words)
        }
        2 => {
            let field = value(random);
            Step::on(key, "hget", vec![Arg::Bytes(field.clone())], vec![field])
        }
        3 | 4 => {
            let name = *random.pick(&["hdel", "srem", "zrem"]);
            Step::on(key, name, vec![Arg::Several(fields.clone())], fields)
        }
        5 | 6 => {
            let name = *random.pick(&["rpush", "lpush", "sadd"]);
            Step::on(key, name, vec![Arg::Several(fields.clone())], fields)
        }
        _ => {
            let score = |_: &Vec<u8>| *random.pick(&[0.0, -0.0, 1.5, -2.0, 1e300, f64::INFINITY]);
            let scores: Vec<f64> = fields.iter().map(score).collect();
            let texts: Vec<Vec<u8>> = scores.iter().map(|s| s.to_string().into_bytes()).collect();
            let words = alternating(&texts, &fields);
            let args = vec![Arg::Scores(scores), Arg::Several(fields)];
            Step::on(key, "zadd", args, words)
        }
    }
}

/// A command of a client on the same keys, with what it needs besides.
fn command(random: &mut Random) -> Vec<Vec<u8>> {
    let key = format!("key:{}", random.below(KEYS)).into_bytes();
    let (one, other) = (value(random), value(random));
    let words: Vec<&[u8]> = match random.below(11) {
        0 => vec![b"SET", &key, &one],
        1 => vec![b"DEL", &key],
        2 => vec![b"INCRBY", &key, b"3"],
        3 => vec![b"HSET", &key, &one, &other],
        4 => vec![b"HDEL", &key, &one],
        5 => vec![b"RPUSH", &key, &one, &other],
        6 => vec![b"LPOP", &key],
        7 => vec![b"LINSERT", &key, b"BEFORE", &one, &other],
        8 => vec![b"SADD", &key, &one, &other],
        9 => vec![b"ZADD", &key, b"2.5", &one],
        _ => vec![b"ZPOPMIN", &key],
    };
    words.into_iter().map(<[u8]>::to_vec).collect()
}

/// All that a client sees of a key. Order counts where Redis has one. (Between two of these reads
/// the cache may be told of another type.)
fn seen(client: &mut Client, key: &str) -> Vec<Value> {
    let kind = client.text(&["TYPE", key]).unwrap();
    let content = match kind.as_str() {
        "string" => client.call(&["GET", key]),
        "hash" => client.call(&["HGETALL", key]),
        "list" => client.call(&["LRANGE", key, "0", "-1"]),
        "set" => client.call(&["SMEMBERS", key]),
        "zset" => client.call(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
        _ => Ok(Value::Null),
    };
    let mut content = content.unwrap();
    if let ("set", Value::Array(members)) = (kind.as_str(), &mut content) {
        members.sort_by_key(|member| format!("{member:?}"));
    }
    if let ("hash", Value::Array(items)) = (kind.as_str(), &mut content) {
        let mut pairs: Vec<Vec<Value>> = items.chunks(2).map(<[Value]>::to_vec).collect();
        pairs.sort_by_key(|pair| format!("{pair:?}"));
        *items = pairs.concat();
    }
    let ends = client.integer(&["TTL", key]).unwrap();
    let encoding = match kind.as_str() {
        "zset" => client.call(&["OBJECT", "ENCODING", key]).unwrap(),
        _ => Value::Null,
    };
    // A test may take some seconds.
    let ends = if ends > 0 { 1 } else { ends };
    vec![Value::Simple(kind), content, Value::Integer(ends), encoding]
}

#[test]
fn functions_do_what_commands_do() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
    let sql = stack.sql().unwrap();
    let seed = seed::seed();
    let mut random = Random::new(seed, 1);
    for round in 0..ROUNDS {
        if random.percent(30) {
            let command = command(&mut random);
            let (our, their) = (ours.call(&command).unwrap(), theirs.call(&command).unwrap());
            assert_eq!(our, their, "seed {seed}, round {round}: {command:?}");
        } else {
            let step = step(&mut random);
            let told = (step.by_sql(&sql), step.by_redis(&mut theirs));
            assert_eq!(
                told.0, told.1,
                "seed {seed}, round {round}: {:?}",
                step.command
            );
        }
        if random.percent(20) {
            compare(
                &mut ours,
                &mut theirs,
                &format!("seed {seed}, round {round}"),
            );
        }
    }
    let keys = ours.integer(&["DBSIZE"]).unwrap();
    assert_eq!(theirs.integer(&["DBSIZE"]).unwrap(), keys);
    // What is said to be in the store is there: no element is left over or missing.
    let counted = sql
        .query(
            "SELECT count(*) FROM freshet.keys k WHERE k.kind > 0
                AND k.size <> (SELECT count(*) FROM freshet.element e WHERE e.content = k.content)",
            &[],
        )
        .unwrap();
    assert_eq!(counted[0].get::<_, i64>(0), 0);
}

/// The cache shows soon what Redis holds.
fn compare(ours: &mut Client, theirs: &mut Client, place: &str) {
    for key in (0..KEYS).map(|n| format!("key:{n}")) {
        let expected = seen(theirs, &key);
        let mut shown = Vec::new();
        let same = process::await_true("the same is shown", LIMIT, || {
            shown = seen(ours, &key);
            shown == expected
        });
        assert!(same.is_ok(), "{place}: {key}\n{shown:?}\n{expected:?}");
    }
}

#[test]
fn what_no_command_could_say_is_refused_and_changes_nothing() {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let long = "'".to_owned() + &"k".repeat(2601) + "'";
    for (call, text) in [
        ("set(NULL, 'v')".to_owned(), "ERR the key is NULL"),
        ("set('k', NULL::text)".to_owned(), "ERR the value is NULL"),
        (
            format!("set({long}, 'v')"),
            "ERR the key is longer than 2600 bytes, which PostgreSQL cannot index",
        ),
        (
            "set('k', 'v', db => 16)".to_owned(),
            "ERR DB index is out of range",
        ),
        (
            "set('k', 'v', '-1 s')".to_owned(),
            "ERR invalid expire time in 'set' command",
        ),
        (
            "zadd('k', 'NaN'::float8, 'm')".to_owned(),
            "ERR value is not a valid float",
        ),
        (
            "hset('k', ARRAY['a'], ARRAY['b', 'c'])".to_owned(),
            "ERR wrong number of arguments for 'hset' command",
        ),
        (
            "sadd('k', ARRAY[]::text[])".to_owned(),
            "ERR wrong number of arguments for 'sadd' command",
        ),
        (
            "rpush('k', ARRAY['a', NULL])".to_owned(),
            "ERR a field, member or value is NULL",
        ),
        (
            "expire('k', NULL)".to_owned(),
            "ERR the time to live is NULL",
        ),
    ] {
        let error = sql
            .query(&format!("SELECT freshet.{call}"), &[])
            .unwrap_err();
        let error = error.downcast::<tokio_postgres::Error>().unwrap();
        assert_eq!(error.as_db_error().unwrap().message(), text, "{call}");
    }
    for table in ["keys", "change", "element"] {
        let rows = sql
            .query(&format!("SELECT FROM freshet.{table}"), &[])
            .unwrap();
        assert!(rows.is_empty(), "{table}");
    }
}
