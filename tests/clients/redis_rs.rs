//! The `redis` crate.

use std::collections::{BTreeMap, HashSet};
use std::thread;

use redis::geo::{Coord, RadiusOptions, Unit};
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{Commands, Connection, RedisResult};

use crate::support::Stack;

fn data_types(client: &mut Connection) -> RedisResult<()> {
    let () = client.hset_multiple("hash", &[("name", "Ada"), ("born", "1815")])?;
    let hash: BTreeMap<String, String> = client.hgetall("hash")?;
    assert_eq!(hash["name"], "Ada");
    assert_eq!(client.rpush("list", &["a", "b", "c"]), Ok(3));
    assert_eq!(client.lpop("list", None), Ok("a".to_owned()));
    assert_eq!(client.sadd("set", &[1, 2, 3]), Ok(3));
    let members: HashSet<i64> = client.smembers("set")?;
    assert_eq!(members, HashSet::from([1, 2, 3]));
    assert_eq!(
        client.zadd_multiple("zset", &[(1, "one"), (2, "two")]),
        Ok(2)
    );
    let ranked: Vec<(String, f64)> = client.zrange_withscores("zset", 0, -1)?;
    assert_eq!(ranked[1], ("two".to_owned(), 2.0));
    let palermo = (Coord::lon_lat(13.361_389, 38.115_556), "Palermo");
    assert_eq!(client.geo_add("geo", palermo), Ok(1));
    let near: Vec<String> = client.geo_radius(
        "geo",
        15.0,
        37.0,
        200.0,
        Unit::Kilometers,
        RadiusOptions::default(),
    )?;
    assert_eq!(near, ["Palermo"]);
    assert_eq!(client.pfadd("visitors", &["a", "b"]), Ok(true));
    assert_eq!(client.pfcount("visitors"), Ok(2));
    let wrong: RedisResult<i64> = client.incr("hash", 1);
    assert!(wrong.unwrap_err().to_string().contains("WRONGTYPE"));
    Ok(())
}

fn streams(client: &mut Connection) -> RedisResult<()> {
    let id: String = client.xadd("stream", "*", &[("kind", "first")])?;
    let () = client.xgroup_create("stream", "team", "0")?;
    let options = StreamReadOptions::default().group("team", "me").count(1);
    let read: StreamReadReply = client.xread_options(&["stream"], &[">"], &options)?;
    assert_eq!(read.keys[0].ids[0].id, id);
    assert_eq!(client.xack("stream", "team", &[&id]), Ok(1));
    Ok(())
}

fn blocks(client: &mut Connection, other: &mut Connection) -> RedisResult<()> {
    let (count, members): (i64, i64) = redis::pipe()
        .atomic()
        .incr("count", 5)
        .sadd("set", 9)
        .query(client)?;
    assert_eq!((count, members), (5, 1));
    // The first try is disturbed by another client.
    let mut tries = 0;
    let (after,): (i64,) = redis::transaction(client, &["count"], |client, block| {
        tries += 1;
        let count: i64 = client.get("count")?;
        if tries == 1 {
            let () = other.incr("count", 1)?;
        }
        block
            .set("count", count * 2)
            .ignore()
            .get("count")
            .query(client)
    })?;
    assert_eq!((tries, after), (2, 12));
    Ok(())
}

fn channels(listener: &mut Connection, other: &mut Connection) -> RedisResult<()> {
    let mut channels = listener.as_pubsub();
    channels.subscribe("news")?;
    assert_eq!(other.publish("news", "hello"), Ok(1));
    assert_eq!(
        channels.get_message()?.get_payload(),
        Ok("hello".to_owned())
    );
    Ok(())
}

fn scans(client: &mut Connection) -> RedisResult<()> {
    let mut pipeline = redis::pipe();
    for number in 0..600 {
        pipeline.hset("wide", number, number).ignore();
    }
    let () = pipeline.query(client)?;
    let fields: HashSet<(i64, i64)> = client.hscan("wide")?.collect();
    assert_eq!(fields.len(), 600);
    let keys: HashSet<String> = client.scan_match("*e*")?.collect();
    assert!(keys.contains("wide") && keys.contains("zset"));
    Ok(())
}

#[test]
fn redis_rs_works_with_both_protocols() {
    for protocol in ["", "?protocol=resp3"] {
        let mut stack = Stack::start().unwrap();
        let address = stack.program.address();
        let server = redis::Client::open(format!("redis://{address}/{protocol}")).unwrap();
        let mut client = server.get_connection().unwrap();
        let mut other = server.get_connection().unwrap();
        data_types(&mut client).unwrap();
        streams(&mut client).unwrap();
        blocks(&mut client, &mut other).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| other.blpop("queue", 20.0));
            assert_eq!(client.rpush("queue", "job"), Ok(1));
            let popped: RedisResult<(String, String)> = waiting.join().unwrap();
            assert_eq!(popped, Ok(("queue".to_owned(), "job".to_owned())));
        });
        scans(&mut client).unwrap();
        if protocol.is_empty() {
            // With RESP3 this library takes messages from elsewhere.
            channels(&mut client, &mut other).unwrap();
        }
        drop((client, other));
        stack.program.stop_quietly().unwrap();
    }
}
