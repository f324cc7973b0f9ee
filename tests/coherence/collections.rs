//! Hashes, lists, sets, sorted sets and streams: the cache repeats each change,
//! and may lose everything at any moment.

use std::time::Duration;

use crate::support::{Client, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

/// For each type: commands that make a key, change it, and show all of it.
const TYPES: &[(&str, &[&str], &str)] = &[
    (
        "hash",
        &[
            "HSET k a 1 b 2 c 3",
            "HSET k b 9 d 4",
            "HDEL k a",
            "HINCRBY k d 6",
        ],
        "HGETALL k",
    ),
    (
        "list",
        &[
            "RPUSH k a b c d",
            "LPUSH k z",
            "LPOP k",
            "RPOP k",
            "LSET k 1 B",
            "LINSERT k BEFORE c x",
            "LREM k 0 a",
        ],
        "LRANGE k 0 -1",
    ),
    (
        "set",
        &["SADD k 1 2 3 4", "SREM k 2 9", "SADD k 7"],
        "SMEMBERS k",
    ),
    (
        "zset",
        &[
            "ZADD k 1 a 2 b 3 c",
            "ZINCRBY k 5 a",
            "ZREM k b",
            "ZADD k 0.1 d",
            "ZPOPMIN k",
        ],
        "ZRANGE k 0 -1 WITHSCORES",
    ),
    (
        "stream",
        &[
            "XADD k 1-1 f v",
            "XADD k 2-1 g w h x",
            "XDEL k 1-1",
            "XADD k 3-0 i y",
            "XGROUP CREATE k team 0",
            "XREADGROUP GROUP team one COUNT 1 STREAMS k >",
        ],
        "XRANGE k - +",
    ),
    // Places are sorted sets.
    (
        "zset",
        &[
            "GEOADD k 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
            "GEOADD k XX CH 13.5 38 Palermo",
            "GEOADD k 2.349 48.853 Paris",
            "ZREM k Catania",
        ],
        "GEOSEARCH k FROMLONLAT 15 37 BYRADIUS 9000 km ASC WITHCOORD WITHDIST",
    ),
    // And what counts visitors is a string.
    (
        "string",
        &[
            "PFADD k a b c",
            "PFADD k d",
            "PFMERGE k k",
            "PFADD k e f g h i j",
        ],
        "PFCOUNT k",
    ),
];

/// Redis writes the count into the string; here a read changes nothing, in the cache neither.
#[test]
fn counting_visitors_leaves_the_same_bytes_in_cache_and_store() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    call(&mut client, "PFADD k a b c");
    let written = call(&mut client, "GET k");
    assert_eq!(call(&mut client, "PFCOUNT k"), Value::Integer(3));
    assert_eq!(call(&mut cache, "GET k"), written);
    // What is looked into is asked in another way.
    cache.ok(&["FLUSHALL"]).unwrap();
    assert_eq!(call(&mut client, "PFCOUNT k"), Value::Integer(3));
    assert_eq!(call(&mut client, "PFCOUNT k"), Value::Integer(3));
    process::await_true("the key is in the cache again", LIMIT, || {
        assert_eq!(call(&mut client, "GET k"), written);
        call(&mut cache, "GET k") == written
    })
    .unwrap();
}

/// No command makes such a stream: `XSETID` takes no higher number, and Redis then only counts.
#[test]
fn a_stream_that_the_cache_cannot_hold_is_read_from_the_store() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    call(&mut client, "XADD k 1-1 f v");
    call(&mut client, "XSETID k 1-1 ENTRIESADDED 9223372036854775807");
    call(&mut client, "XADD k 2-1 f v");
    call(&mut client, "SET other x");
    cache.ok(&["FLUSHALL"]).unwrap();
    let generation = |cache: &mut Client| call(cache, "GET \0f:gen");
    assert_eq!(call(&mut client, "XLEN k"), Value::Integer(2));
    assert_eq!(call(&mut client, "EXISTS k other"), Value::Integer(2));
    process::await_true("the cache is in use again", LIMIT, || {
        generation(&mut cache) != Value::Null
    })
    .unwrap();
    let before = generation(&mut cache);
    for _ in 0..3 {
        assert_eq!(call(&mut client, "XLEN k"), Value::Integer(2));
        assert_eq!(call(&mut client, "EXISTS k other"), Value::Integer(2));
    }
    assert_eq!(
        call(&mut client, "RENAME k moved").text().as_deref(),
        Some("OK")
    );
    assert_eq!(call(&mut client, "XLEN moved"), Value::Integer(2));
    // A refusal by the cache would have taken it out of use.
    assert_eq!(generation(&mut cache), before);
}

/// What a stream has beside its entries.
#[test]
fn groups_of_a_stream_survive_the_loss_of_the_cache() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    for change in [
        "XADD k 1-1 f v",
        "XADD k 2-1 f v",
        "XADD k 3-1 f v",
        "XGROUP CREATE k team 0",
        "XGROUP CREATE k late $ ENTRIESREAD 3",
        "XGROUP CREATECONSUMER k team idle",
        "XREADGROUP GROUP team one COUNT 2 STREAMS k >",
        "XACK k team 1-1",
        "XCLAIM k team two 0 2-1 TIME 1000000 RETRYCOUNT 7",
        "XDEL k 3-1",
        "XGROUP SETID k late 1-1 ENTRIESREAD 1",
        "XGROUP DELCONSUMER k team one",
        "XSETID k 9-9 ENTRIESADDED 12 MAXDELETEDID 3-1",
        "XGROUP DESTROY k late",
    ] {
        call(&mut client, change);
        // Without what tells the time and how Redis keeps it.
        let told = |client: &mut Client| {
            let groups = call(client, "XINFO GROUPS k");
            let pending = call(client, "XPENDING k team IDLE 0 - + 10");
            let ids: Vec<_> = pending
                .items()
                .iter()
                .map(|entry| (entry.items()[..2].to_vec(), entry.items()[3].clone()))
                .collect();
            let info = call(client, "XINFO STREAM k");
            let last = (info.items()[7].clone(), info.items()[9].clone());
            let added = (info.items()[11].clone(), info.items()[1].clone());
            format!("{groups:?} {ids:?} {last:?} {added:?}")
        };
        if !change.starts_with("XADD") {
            let kept = told(&mut client);
            cache.ok(&["FLUSHALL"]).unwrap();
            assert_eq!(told(&mut client), kept, "after a flush: {change}");
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn call(client: &mut Client, line: &str) -> Value {
    client.ok(&words(line)).unwrap()
}

/// The reply in an order that does not depend on Redis's hash seed.
fn shown(client: &mut Client, line: &str) -> String {
    match call(client, line) {
        Value::Array(mut items) if line.starts_with("SMEMBERS") => {
            items.sort_by_key(Value::text);
            format!("{items:?}")
        }
        reply => format!("{reply:?}"),
    }
}

#[test]
fn changes_are_repeated_in_the_cache_and_survive_its_loss() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    for (kind, changes, show) in TYPES {
        for change in *changes {
            call(&mut client, change);
            assert_eq!(
                cache.integer(&["EXISTS", "k"]).unwrap(),
                1,
                "{kind}: {change}"
            );
            let kept = shown(&mut cache, show);
            assert_eq!(shown(&mut client, show), kept, "{kind}: {change}");
            cache.ok(&["FLUSHALL"]).unwrap();
            assert_eq!(
                shown(&mut client, show),
                kept,
                "{kind} after a flush: {change}"
            );
            // The next change needs the key in the cache with its version.
            process::await_true("it is filled", LIMIT, || {
                shown(&mut client, show);
                cache.integer(&["EXISTS", "k"]).unwrap() == 1
            })
            .unwrap();
        }
        assert_eq!(client.text(&["TYPE", "k"]).unwrap(), *kind);
        call(&mut client, "DEL k");
        assert_eq!(client.text(&["TYPE", "k"]).unwrap(), "none");
    }
}

#[test]
fn every_type_is_in_the_views() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    call(&mut client, "HSET h name Ada born 1815");
    call(&mut client, "RPUSH l one two");
    call(&mut client, "LPUSH l zero");
    call(&mut client, "SADD s x");
    call(&mut client, "ZADD z 1.5 m");
    let sql = stack.sql().unwrap();
    let all = |query: &str| -> Vec<String> {
        let rows = sql.query(query, &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(
        all("select field || '=' || value from freshet.hashes where key = 'h' order by field"),
        ["born=1815", "name=Ada"]
    );
    assert_eq!(
        all("select index || ':' || value from freshet.lists where key = 'l' order by index"),
        ["0:zero", "1:one", "2:two"]
    );
    assert_eq!(
        all("select member from freshet.sets where key = 's'"),
        ["x"]
    );
    assert_eq!(
        all("select member || ' ' || score from freshet.sorted_sets where key = 'z'"),
        ["m 1.5"]
    );
    assert_eq!(
        all("select type from freshet.live_keys order by key"),
        ["hash", "list", "set", "zset"]
    );
}

#[test]
fn large_collection_is_filled_in_steps_and_cut_down_cheaply() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let value = "v".repeat(100);
    for chunk in 0..40 {
        let mut command = vec!["HSET".to_owned(), "big".to_owned()];
        for field in 0..500 {
            command.push(format!("field{}", chunk * 500 + field));
            command.push(value.clone());
        }
        client.ok(&command).unwrap();
    }
    let mut cache = stack.cache.client().unwrap();
    cache.ok(&["FLUSHALL"]).unwrap();
    process::await_true("it is resident", LIMIT, || {
        assert_eq!(client.integer(&["HLEN", "big"]).unwrap(), 20_000);
        assert_eq!(client.text(&["HGET", "big", "field7"]).unwrap(), value);
        cache.integer(&["HLEN", "big"]).unwrap() == 20_000
    })
    .unwrap();
    call(&mut client, "HDEL big field7");
    assert_eq!(cache.integer(&["HLEN", "big"]).unwrap(), 19_999);
    assert_eq!(client.integer(&["HLEN", "big"]).unwrap(), 19_999);
}

#[test]
fn collection_above_the_limit_is_read_from_the_store() {
    let stack = Stack::start_with(&[("cache.fill_elements", "10")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    for field in 0..20 {
        call(&mut client, &format!("HSET h f{field} {field}"));
    }
    let mut cache = stack.cache.client().unwrap();
    assert_eq!(client.text(&["HGET", "h", "f3"]).unwrap(), "3");
    assert_eq!(client.integer(&["HLEN", "h"]).unwrap(), 20);
    assert_eq!(call(&mut client, "HGETALL h").items().len(), 40);
    assert_eq!(client.ok(&["HGET", "h", "none"]).unwrap(), Value::Null);
    assert_eq!(cache.integer(&["EXISTS", "h"]).unwrap(), 0);
    // As Redis would keep it.
    for field in 0..200 {
        call(&mut client, &format!("HSET many f{field} x"));
    }
    let form = call(&mut client, "OBJECT ENCODING many");
    assert_eq!(form.text().as_deref(), Some("listpack"));
    for field in 0..15 {
        call(&mut client, &format!("HDEL h f{field}"));
    }
    assert_eq!(client.text(&["HGET", "h", "f17"]).unwrap(), "17");
    assert_eq!(cache.integer(&["EXISTS", "h"]).unwrap(), 1);
}

#[test]
fn nothing_is_left_of_a_collection_that_was_replaced() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    call(&mut client, "HSET h a 1 b 2");
    call(&mut client, "SET h string");
    assert_eq!(client.text(&["GET", "h"]).unwrap(), "string");
    call(&mut client, "DEL h");
    call(&mut client, "HSET h c 3");
    assert_eq!(call(&mut client, "HGETALL h").items().len(), 2);
    call(&mut client, "RENAME h g");
    assert_eq!(call(&mut client, "HGETALL g").items().len(), 2);
    assert_eq!(client.text(&["TYPE", "h"]).unwrap(), "none");
}

/// Redis looks at the type of a key before it looks at the arguments.
#[test]
fn error_is_the_same_if_the_key_is_not_in_the_cache() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    call(&mut client, "SET s text");
    let wrong = words("GEOSEARCH s FROMLONLAT 1 x BYRADIUS 1 km");
    let error = client.call(&wrong).unwrap();
    assert!(error.error().unwrap().starts_with("WRONGTYPE"), "{error:?}");
    stack.cache.client().unwrap().ok(&["DEL", "s"]).unwrap();
    assert_eq!(client.call(&wrong).unwrap(), error);
}

#[test]
fn long_fields_are_whole() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let (one, other) = ("x".repeat(5000) + "1", "x".repeat(5000) + "2");
    client.ok(&["HSET", "h", &one, "1", &other, "2"]).unwrap();
    stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    assert_eq!(client.text(&["HGET", "h", &one]).unwrap(), "1");
    assert_eq!(client.text(&["HGET", "h", &other]).unwrap(), "2");
    assert_eq!(client.integer(&["HDEL", "h", &one]).unwrap(), 1);
    assert_eq!(client.integer(&["HLEN", "h"]).unwrap(), 1);
}

/// Several units on one key in one batch: their effects are one change of the
/// key, whatever was loaded for them.
#[test]
fn many_clients_on_one_key_count_exactly() {
    let stack = Stack::start().unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut client = stack.client().unwrap();
            scope.spawn(move || {
                for round in 0..100 {
                    let field = format!("f{number}:{round}");
                    client.ok(&["HSET", "h", &field, "v"]).unwrap();
                    if round % 3 == 0 {
                        client.ok(&["HDEL", "h", &field]).unwrap();
                    }
                }
            });
        }
    });
    let mut client = stack.client().unwrap();
    assert_eq!(client.integer(&["HLEN", "h"]).unwrap(), 8 * 66);
    stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    assert_eq!(client.integer(&["HLEN", "h"]).unwrap(), 8 * 66);
    let sql = stack.sql().unwrap();
    let rows = sql
        .query("select count(*) from freshet.hashes", &[])
        .unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 8 * 66);
}
