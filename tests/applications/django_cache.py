"""A site of Django that keeps its cache and its sessions in Freshet by django-redis."""

from concurrent.futures import ThreadPoolExecutor

import django
from django.conf import settings
import redis

from application import cache_port, port, version, works

settings.configure(
    CACHES={
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{port}/1",
            "KEY_PREFIX": "site",
        }
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SESSION_SERIALIZER="django.contrib.sessions.serializers.JSONSerializer",
    USE_TZ=True,
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import cache  # noqa: E402

version("django-redis")
cache.clear()
cache.set("object", {"a": [1, 2.5, None, "ü"]}, timeout=100)
assert cache.get("object") == {"a": [1, 2.5, None, "ü"]}
assert 90 < cache.ttl("object") <= 100 and cache.touch("object", 1000) and cache.ttl("object") > 900
assert cache.add("object", 1) is False and cache.add("new", 1) is True
assert cache.get("none", "default") == "default"
assert cache.get_or_set("made", lambda: 42) == 42 and cache.get("made") == 42
assert cache.persist("object") and cache.ttl("object") is None
assert cache.delete("object") and "object" not in cache
works("set, get, add, get_or_set, touch, ttl, persist, delete")

cache.set_many({f"many:{number}": number for number in range(200)})
assert cache.get_many([f"many:{number}" for number in range(200)]) == {f"many:{n}": n for n in range(200)}
assert len(cache.keys("many:1*")) == 111 and len(set(cache.iter_keys("many:*"))) == 200
assert cache.delete_pattern("many:1*") == 111 and len(cache.keys("many:*")) == 89
works("set_many, get_many, keys, iter_keys, delete_pattern")

cache.set("count", 0)
with ThreadPoolExecutor(8) as threads:
    list(threads.map(lambda _: cache.incr("count"), range(200)))
assert cache.get("count") == 200 and cache.decr("count", 50) == 150
try:
    cache.incr("nothing")
    raise AssertionError("no error")
except ValueError:
    pass
assert cache.incr_version("count") == 2 and cache.get("count", version=2) == 150
works("incr by a script, decr, versions")

cache.set("shared", 0)


def step(_):
    with cache.lock("guard", timeout=20, sleep=0.005):
        cache.set("shared", cache.get("shared") + 1)


with ThreadPoolExecutor(8) as threads:
    list(threads.map(step, range(50)))
assert cache.get("shared") == 50
works("locks")

session = SessionStore()
session["cart"] = ["book"]
session.create()
redis.Redis(port=cache_port).flushall()  # Behind Freshet's back.
again = SessionStore(session.session_key)
assert again["cart"] == ["book"]
again.cycle_key()
assert not SessionStore(session.session_key).exists(session.session_key)
again.flush()
assert cache.get("shared") == 50
works("sessions, kept when the cache is emptied")
print("all well")
