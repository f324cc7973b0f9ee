"""What an application does with redis-py. Arguments: port, protocol version."""

import sys
import threading
import time

import redis

port, protocol = int(sys.argv[1]), int(sys.argv[2])
client = redis.Redis(port=port, protocol=protocol, decode_responses=True)
client.flushall()

assert client.ping() is True
assert client.set("key", "value") is True
assert client.get("key") == "value"
assert client.set("key", "other", nx=True) is None
assert client.set("key", "new", xx=True, get=True) == "value"
assert client.get("nothing") is None
assert client.mset({"a": 1, "b": 2}) is True
assert client.mget("a", "b", "c") == ["1", "2", None]
assert client.msetnx({"a": 1, "z": 2}) is False
assert client.append("key", "er") == 5
assert client.strlen("key") == 5
assert client.getrange("key", 0, 2) == "new"
assert client.setrange("key", 3, "est") == 6
assert client.incr("count") == 1
assert client.incrby("count", 41) == 42
assert client.decr("count") == 41
assert client.incrbyfloat("float", 0.1) == 0.1
assert client.setbit("bits", 7, 1) == 0
assert client.getbit("bits", 7) == 1
assert client.bitcount("bits") == 1
assert client.bitfield("bits").get("u8", 0).set("u8", 8, 255).execute() == [1, 0]
assert client.lcs("key", "key", len=True) == 6

assert client.setex("short", 1000, "x") is True
assert 990 < client.ttl("short") <= 1000
assert client.persist("short") is True
assert client.ttl("short") == -1
assert client.expire("short", 2000, gt=True) is False
assert client.pexpireat("short", 4000000000000) is True
assert client.pexpiretime("short") == 4000000000000
assert client.getex("short", persist=True) == "x"
assert client.getdel("short") == "x"
assert client.exists("short", "a", "b") == 2
assert client.type("a") == "string"
assert client.rename("a", "c") is True
assert client.copy("c", "d") is True
assert client.delete("c", "d", "nothing") == 2
assert sorted(client.scan_iter(match="*", count=2)) == sorted(client.keys("*"))
assert client.dbsize() == len(client.keys())
assert client.restore("restored", 0, redis.Redis(port=port).dump("b")) in (b"OK", "OK", True)
assert client.get("restored") == "2"

# A pipeline without MULTI, with one wrong command in the middle.
pipeline = client.pipeline(transaction=False)
pipeline.set("p", "text").incr("p").get("p")
replies = pipeline.execute(raise_on_error=False)
assert replies[0] is True and replies[2] == "text", replies
assert isinstance(replies[1], redis.ResponseError), replies
assert str(replies[1]) == "value is not an integer or out of range", replies

# Binary keys and values.
binary = redis.Redis(port=port, protocol=protocol)
raw = bytes(range(256))
assert binary.set(raw, raw) is True
assert binary.get(raw) == raw

# Another database.
other = redis.Redis(port=port, protocol=protocol, db=5)
assert other.get("key") is None
other.set("key", "elsewhere")
assert client.get("key") == "newest"[:6]
assert client.move("p", 5) is True
assert other.get("p") == b"text"

# A lock, the recipe that everybody uses, with SET NX PX only.
assert client.set("lock", "me", nx=True, px=60000) is True
assert client.set("lock", "you", nx=True, px=60000) is None

# Its own lock, which is given back and prolonged by scripts.
lock = client.lock("own lock", timeout=60)
assert lock.acquire(blocking=False)
assert not client.lock("own lock").acquire(blocking=False)
assert lock.extend(30) and lock.reacquire() and lock.owned()
lock.release()
assert not client.exists("own lock")

# Scripts by name, also in a pipeline.
twice = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1] * 2)")
assert twice(keys=["scripted"], args=[21]) == 42
with client.pipeline() as block:
    twice(keys=["scripted"], args=[1], client=block)
    block.get("scripted")
    assert block.execute() == [44, "44"]

# Its pipelines are MULTI blocks unless told otherwise.
replies = client.pipeline().set("t", "1").incr("t").get("t").execute()
assert replies == [True, 2, "2"], replies
try:
    client.pipeline().set("t", "x").incr("t").set("u", "1").execute()
    raise AssertionError("no error")
except redis.ResponseError as error:
    assert "not an integer" in str(error), error
assert client.mget("t", "u") == ["x", "1"]

# Optimistic locking.
client.set("balance", 100)
with client.pipeline() as block:
    block.watch("balance")
    balance = int(block.get("balance"))
    client.incr("balance")
    block.multi()
    block.set("balance", balance - 10)
    try:
        block.execute()
        raise AssertionError("the other's write went unnoticed")
    except redis.WatchError:
        pass
assert client.get("balance") == "101"

def transfer(block):
    balance = int(block.get("balance"))
    block.multi()
    block.set("balance", balance + 1)

def transfers():
    for _ in range(20):
        client.transaction(transfer, "balance")

threads = [threading.Thread(target=transfers) for _ in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert client.get("balance") == "201"

# Channels and patterns.
listener = client.pubsub()
listener.subscribe("news")
listener.psubscribe("n*")
kinds = [listener.get_message(timeout=5)["type"] for _ in range(2)]
assert kinds == ["subscribe", "psubscribe"], kinds
assert client.publish("news", "hello") == 2
heard = [listener.get_message(timeout=5) for _ in range(2)]
assert sorted(m["type"] for m in heard) == ["message", "pmessage"], heard
assert all(m["data"] == "hello" and m["channel"] == "news" for m in heard), heard
assert client.pubsub_channels() == ["news"] and client.pubsub_numpat() == 1
assert client.pubsub_numsub("news") == [("news", 1)]
if protocol == 2:
    # With RESP3 this version takes the reply apart wrongly, whoever sends it.
    listener.ping()
    assert listener.get_message(timeout=5)["type"] == "pong"
listener.unsubscribe()
listener.punsubscribe()
kinds = [listener.get_message(timeout=5)["type"] for _ in range(2)]
assert kinds == ["unsubscribe", "punsubscribe"], kinds
listener.close()

# Notifications of keys.
client.config_set("notify-keyspace-events", "KEA")
listener = client.pubsub()
listener.subscribe("__keyspace@0__:noted")
assert listener.get_message(timeout=5)["type"] == "subscribe"
client.set("noted", 1, ex=100)
client.delete("noted")
told = [listener.get_message(timeout=5)["data"] for _ in range(3)]
assert told == ["set", "expire", "del"], told
client.config_set("notify-keyspace-events", "")
listener.close()

# Many threads on a connection pool.
def work():
    for _ in range(50):
        client.incr("threads")

threads = [threading.Thread(target=work) for _ in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert client.get("threads") == "500"

# A key that ends.
client.set("ends", "x", px=50)
deadline = time.monotonic() + 5
while client.get("ends") is not None:
    assert time.monotonic() < deadline
assert client.info()["redis_version"].startswith("7.")
assert client.client_setname("python") is True
assert any(entry["name"] == "python" for entry in client.client_list())
print("all well")
