"""What an application does with redis-py and the data types. Arguments: port, protocol."""

import sys
import threading

import redis

port, protocol = int(sys.argv[1]), int(sys.argv[2])
client = redis.Redis(port=port, protocol=protocol, decode_responses=True)
client.flushall()


def refused(call, word):
    try:
        call()
    except redis.ResponseError as error:
        assert word in str(error), error
        return
    raise AssertionError(f"no error: {word}")


# Hashes.
assert client.hset("hash", mapping={"name": "Ada", "born": 1815}) == 2
assert client.hget("hash", "name") == "Ada"
assert client.hincrby("hash", "born", 37) == 1852
assert client.hincrbyfloat("hash", "height", 1.65) == 1.65
assert client.hgetall("hash") == {"name": "Ada", "born": "1852", "height": "1.65"}
assert client.hmget("hash", "name", "none") == ["Ada", None]
assert client.hsetnx("hash", "name", "other") in (0, False)
assert client.hdel("hash", "height", "none") == 1
assert set(client.hrandfield("hash", 5)) == {"name", "born"}

# Lists.
assert client.rpush("list", "b", "c", "d") == 3
assert client.lpush("list", "a") == 4
assert client.linsert("list", "BEFORE", "c", "between") == 5
assert client.lrange("list", 0, -1) == ["a", "b", "between", "c", "d"]
assert client.lrem("list", 0, "between") == 1
assert client.lpos("list", "c") == 2
assert client.lmove("list", "other", "LEFT", "RIGHT") == "a"
assert client.rpop("list", 2) == ["d", "c"]
assert client.ltrim("list", 0, 0) is True
assert client.lmpop(2, "nothing", "list", direction="LEFT") == ["list", ["b"]]

# Sets.
assert client.sadd("set", 1, 2, 3, "x") == 4
assert client.smembers("set") == {"1", "2", "3", "x"}
assert client.smismember("set", ["1", "9"]) == [1, 0]
client.sadd("set2", 2, 3, 4)
assert client.sinter("set", "set2") == {"2", "3"}
assert client.sunionstore("set3", ["set", "set2"]) == 5
assert client.sintercard(2, ["set", "set2"]) == 2
popped = client.spop("set3", 2)
assert len(popped) == 2 and client.scard("set3") == 3

# Sorted sets.
assert client.zadd("zset", {"one": 1, "two": 2, "three": 3}) == 3
assert client.zadd("zset", {"one": 5}, gt=True, ch=True) == 1
assert client.zrange("zset", 0, -1) == ["two", "three", "one"]
shown = client.zrange("zset", 0, 0, withscores=True)
assert list(shown[0]) == ["two", 2.0], shown
assert client.zrangebyscore("zset", "(2", "+inf") == ["three", "one"]
assert client.zincrby("zset", 0.5, "two") == 2.5
assert client.zscore("zset", "two") == 2.5 and client.zrank("zset", "one") == 2
assert client.zunionstore("zset2", {"zset": 2, "set2": 1}) == 6
assert "two" in str(client.zpopmin("zset")) and client.zcard("zset") == 2
assert client.zremrangebyscore("zset", 0, 3) == 1

# Streams, and a group of consumers.
first = client.xadd("stream", {"kind": "first"})
client.xadd("stream", {"kind": "second"}, maxlen=100, approximate=True)
assert [fields["kind"] for _, fields in client.xrange("stream")] == ["first", "second"]
assert client.xgroup_create("stream", "team", id="0") is True
refused(lambda: client.xgroup_create("stream", "team"), "already exists")
read = client.xreadgroup("team", "me", {"stream": ">"}, count=1)
entries = read["stream"][0] if isinstance(read, dict) else read[0][1]
assert entries == [(first, {"kind": "first"})] or entries == [[first, {"kind": "first"}]], read
assert client.xpending("stream", "team")["pending"] == 1
claimed = client.xautoclaim("stream", "team", "you", 0)
assert claimed[1][0][0] == first, claimed
assert client.xack("stream", "team", first) == 1
assert client.xinfo_stream("stream")["length"] == 2
assert client.xinfo_groups("stream")[0]["pending"] == 0

# Places, and how many there are.
assert client.geoadd("geo", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")) == 2
assert round(client.geodist("geo", "Palermo", "Catania", unit="km")) == 166
assert client.geosearch("geo", longitude=15, latitude=37, radius=200, unit="km", sort="ASC") == ["Catania", "Palermo"]
assert client.pfadd("visitors", "a", "b", "a") == 1
assert client.pfcount("visitors") == 2 and client.pfmerge("all", "visitors") is True

# SORT, and errors.
client.rpush("numbers", 3, 1, 2)
assert client.sort("numbers", desc=True) == ["3", "2", "1"]
client.mset({"weight_1": 30, "weight_2": 20, "weight_3": 10})
assert client.sort("numbers", by="weight_*", get=["#", "weight_*"], groups=True) == [
    ("3", "10"), ("2", "20"), ("1", "30")]
refused(lambda: client.lpush("hash", "x"), "WRONGTYPE")
refused(lambda: client.zadd("zset", {"x": "nan"}), "not a valid float")

# A pipeline of many types in one MULTI block.
with client.pipeline() as block:
    block.hset("order:1", mapping={"item": "book", "count": 2})
    block.rpush("orders", "order:1")
    block.zincrby("sold", 2, "book")
    block.sadd("customers", "ada")
    block.xadd("events", {"order": "order:1"})
    block.hgetall("order:1")
    replies = block.execute()
assert replies[:4] == [2, 1, 2.0, 1] and replies[5] == {"item": "book", "count": "2"}, replies

# Scans.
with client.pipeline(transaction=False) as pipeline:
    for number in range(700):
        pipeline.hset("wide", f"field{number}", number)
        pipeline.sadd("many", f"member{number}")
        pipeline.zadd("high", {f"member{number}": number})
    pipeline.execute()
assert len(dict(client.hscan_iter("wide", count=50))) == 700
assert len(set(client.sscan_iter("many", match="member*"))) == 700
assert len(dict(client.zscan_iter("high"))) == 700
assert len(set(client.scan_iter(_type="zset"))) == 5

# Waiting.
def push():
    other = redis.Redis(port=port)
    other.rpush("queue", "job")
    other.zadd("ranked", {"low": 1})
    other.xadd("feed", {"k": "v"}, id="1-1")

thread = threading.Thread(target=push)
thread.start()
assert tuple(client.blpop(["urgent", "queue"], timeout=20)) == ("queue", "job")
assert list(client.bzpopmin("ranked", timeout=20))[1] == "low"
assert client.xread({"feed": "0"}, block=20000)
thread.join()
assert client.blpop("queue", timeout=0.01) is None

# A lock's acquiring half is SET NX PX; its release is a script.
print("all well")
