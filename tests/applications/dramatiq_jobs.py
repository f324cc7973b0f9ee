"""Dramatiq with Freshet as broker, for results and for limits of rates."""

import collections
import threading
import time

import dramatiq
from dramatiq import group, pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend as RateLimits
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
import redis

from application import cache_port, port, until, version, works

version("dramatiq")
LIMIT = 60_000
# Maintenance finds the messages of workers that are gone.
broker = RedisBroker(host="127.0.0.1", port=port, maintenance_chance=1_000_000, heartbeat_timeout=1000)
broker.add_middleware(Results(backend=RedisBackend(host="127.0.0.1", port=port)))
dramatiq.set_broker(broker)
cache = redis.Redis(port=cache_port)
seen = collections.Counter()
lock = threading.Lock()


@dramatiq.actor(store_results=True)
def add(one, other):
    return one + other


@dramatiq.actor(max_retries=5, min_backoff=10, max_backoff=50)
def unsteady(failures):
    with lock:
        seen["unsteady"] += 1
        is_bad = seen["unsteady"] <= failures
    if is_bad:
        raise ValueError("on purpose")


@dramatiq.actor(max_retries=0)
def hopeless():
    raise ValueError("on purpose")


@dramatiq.actor(queue_name="abandoned")
def abandoned():
    with lock:
        seen["abandoned"] += 1


worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=50, queues={"default"})
worker.start()
messages = [add.send(number, 1) for number in range(150)]
cache.flushall()  # Behind Freshet's back: nothing may be lost.
messages += [add.send(number, 1) for number in range(150)]
assert [message.get_result(block=True, timeout=LIMIT) for message in messages] == [*range(1, 151)] * 2
broker.join("default", timeout=LIMIT)
works("messages and results, none lost when the cache is emptied")

unsteady.send(3)
until("it works at last", lambda: seen["unsteady"] == 4)
hopeless.send()
raw = redis.Redis(port=port)
until("it is dead", lambda: raw.zcard("dramatiq:default.XQ") == 1)
start = time.monotonic()
assert add.send_with_options(args=(2, 2), delay=300).get_result(block=True, timeout=LIMIT) == 4
assert time.monotonic() - start >= 0.29
works("retries, dead letters, delays")

together = group([add.message(number, 1) for number in range(20)]).run()
assert sorted(together.get_results(block=True, timeout=LIMIT)) == list(range(1, 21))
line = pipeline([add.message(1, 2), add.message(4), add.message(8)]).run()
assert line.get_result(block=True, timeout=LIMIT) == 15
works("groups, pipelines")

limits = RateLimits(host="127.0.0.1", port=port)
two = ConcurrentRateLimiter(limits, "two", limit=2)
with two.acquire(), two.acquire(), two.acquire(raise_on_failure=False) as acquired:
    assert not acquired
window = WindowRateLimiter(limits, "window", limit=3, window=60)
taken = []
for _ in range(5):
    with window.acquire(raise_on_failure=False) as acquired:
        taken.append(acquired)
assert taken == [True] * 3 + [False] * 2, taken
works("limits of rates")

# A consumer takes a message and is never heard of again.
broker.declare_queue("abandoned")
abandoned.send()
lost = RedisBroker(host="127.0.0.1", port=port)
assert next(lost.consume("abandoned", prefetch=1, timeout=5000)) is not None
other = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50, queues={"abandoned"})
other.start()
until("another has it", lambda: seen["abandoned"] == 1)
works("messages of a worker that died")
other.stop()
worker.stop()
broker.close()
print("all well")
