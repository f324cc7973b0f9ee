"""Rates of `limits` kept in Freshet."""

from concurrent.futures import ThreadPoolExecutor
import time

from limits import parse, storage, strategies

from application import port, version, works

version("limits")
store = storage.storage_from_string(f"redis://127.0.0.1:{port}")
assert store.check()
WAYS = {
    "fixed window": strategies.FixedWindowRateLimiter,
    "moving window": strategies.MovingWindowRateLimiter,
    "sliding window": strategies.SlidingWindowCounterRateLimiter,
}
for name, way in WAYS.items():
    limiter = way(store)
    five = parse("5/hour")
    user = name.replace(" ", "-")
    assert limiter.test(five, user)
    assert [limiter.hit(five, user) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not limiter.test(five, user)
    stats = limiter.get_window_stats(five, user)
    assert stats.remaining == 0 and stats.reset_time > time.time(), stats
    assert limiter.hit(five, "other", user, cost=3) and not limiter.hit(five, "other", user, cost=3)
    limiter.clear(five, user)
    assert limiter.hit(five, user)

    # However many ask at once, the limit holds.
    many = parse("40/hour")
    with ThreadPoolExecutor(16) as threads:
        hits = list(threads.map(lambda _: limiter.hit(many, user, "many"), range(160)))
    assert sum(hits) == 40, (name, sum(hits))

    second = parse("1/second")
    assert limiter.hit(second, user, "short")
    while not limiter.hit(second, user, "short"):
        time.sleep(0.05)
    works(f"{name}: hit, test, cost, statistics, clear, expiry; 160 at once get 40")
assert store.reset() > 0 and store.get("none") == 0
works("reset")
print("all well")
