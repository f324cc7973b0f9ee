"""Huey with Freshet."""

import datetime
import time

from huey import PriorityRedisExpireHuey, RedisHuey, crontab
from huey.exceptions import TaskException, TaskLockedException
import redis

from application import cache_port, port, until, version, works

version("huey")
LIMIT = 60
cache = redis.Redis(port=cache_port)


def started(huey, workers):
    """Runs a consumer's workers and scheduler in this process."""
    consumer = huey.create_consumer(workers=workers, max_delay=0.1, check_worker_health=False)
    consumer.start()
    return consumer


def exercise(huey):
    attempts = []

    @huey.task()
    def add(one, other):
        return one + other

    @huey.task(retries=3, retry_delay=0)
    def unsteady():
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            raise ValueError("not yet")
        return len(attempts)

    @huey.task()
    def broken():
        raise ValueError("on purpose")

    @huey.periodic_task(crontab(minute="0", hour="3"))
    def nightly():
        return None

    consumer = started(huey, 4)
    results = [add(number, 1) for number in range(100)]
    cache.flushall()  # Behind Freshet's back: nothing may be lost.
    results += [add(number, 1) for number in range(100)]
    assert [result(blocking=True, timeout=LIMIT) for result in results] == [*range(1, 101)] * 2
    assert unsteady()(blocking=True, timeout=LIMIT) == 3
    try:
        broken()(blocking=True, timeout=LIMIT)
        raise AssertionError("no error")
    except TaskException as error:
        assert "on purpose" in str(error)
    soon = add.schedule((2, 2), delay=1)
    late = add.schedule((3, 3), eta=datetime.datetime.now() + datetime.timedelta(hours=1))
    assert soon(blocking=True, timeout=LIMIT) == 4
    assert len(huey.scheduled()) == 1
    late.revoke()
    assert late.is_revoked() and huey.pending_count() == 0
    line = add.s(1, 2).then(add, 4).then(add, 8)
    assert huey.enqueue(line).get(blocking=True, timeout=LIMIT) == [3, 7, 15]
    assert list(add.map([(n, n) for n in range(5)]).get(blocking=True, timeout=LIMIT)) == [0, 2, 4, 6, 8]
    consumer.stop(graceful=True)


huey = RedisHuey("plain", port=port)
exercise(huey)
works("tasks, results, retries, schedule, revoke, pipelines, map; none lost when the cache is emptied")

with huey.lock_task("guard"):
    try:
        with huey.lock_task("guard"):
            raise AssertionError("no error")
    except TaskLockedException:
        pass
assert not huey.is_locked("guard")
works("locks")

priorities = PriorityRedisExpireHuey("ordered", port=port, expire_time=60)
order = []


@priorities.task()
def note(number):
    order.append(number)
    return number


for number in (1, 9, 5):
    note(number, priority=number)
consumer = started(priorities, 1)
until("all three", lambda: len(order) == 3)
consumer.stop(graceful=True)
assert order == [9, 5, 1], order
exercise(PriorityRedisExpireHuey("expiring", port=port, expire_time=60))
works("priorities, results that expire")
print("all well")
