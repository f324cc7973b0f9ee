"""Celery with Freshet as broker and as result backend. Started again by itself as the worker."""

import os
import subprocess
import sys

from celery import Celery, chain, chord, group
import redis

# The worker has other arguments.
port = os.environ.get("FRESHET_PORT") or sys.argv[1]
url = f"redis://127.0.0.1:{port}"
app = Celery("celery_jobs", broker=f"{url}/0", backend=f"{url}/1")
app.conf.update(
    worker_prefetch_multiplier=4,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)
LIMIT = 90


@app.task
def add(one, other):
    return one + other


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=5)
def unsteady(self, failures):
    if self.request.retries < failures:
        raise self.retry(countdown=0.05)
    return self.request.retries


@app.task
def broken():
    raise ValueError("broken on purpose")


def main():
    from application import cache_port, until, version, works

    version("celery")
    cache = redis.Redis(port=cache_port)
    redis.Redis(port=int(port)).flushall()
    command = ["-m", "celery", "-A", "celery_jobs", "worker", "--pool=threads", "--concurrency=4",
               "--loglevel=warning", "--without-gossip", "--without-mingle"]
    folder = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "FRESHET_PORT": port, "PYTHONDONTWRITEBYTECODE": "1"}
    worker = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment)
    try:
        results = [add.delay(number, number) for number in range(100)]
        cache.flushall()  # Behind Freshet's back: nothing may be lost.
        results += [add.apply_async((number, 0), countdown=0.2) for number in range(60)]
        values = [result.get(timeout=LIMIT) for result in results]
        assert values == [2 * n for n in range(100)] + list(range(60)), values
        works("tasks, countdowns, results; none lost when the cache is emptied")

        assert [unsteady.delay(n).get(timeout=LIMIT) for n in (0, 1, 3)] == [0, 1, 3]
        together = group(add.s(n, 1) for n in range(20))()
        assert together.get(timeout=LIMIT) == list(range(1, 21))
        assert chord((add.s(n, n) for n in range(10)), total.s())().get(timeout=LIMIT) == 90
        assert chain(add.s(1, 2), add.s(4), add.s(8))().get(timeout=LIMIT) == 15
        failed = broken.delay()
        try:
            failed.get(timeout=LIMIT)
            raise AssertionError("no error")
        except ValueError as error:
            assert "on purpose" in str(error)
        assert failed.state == "FAILURE"
        works("retries, failures, groups, chords, chains")

        revoked = add.apply_async((1, 1), countdown=3600)
        revoked.revoke()
        assert app.control.ping(timeout=10, limit=1)  # Without a limit it waits for more workers until the end.
        queue = redis.Redis(port=int(port))
        until("the queue is empty", lambda: queue.llen("celery") == 0)
        results[0].forget()
        assert app.AsyncResult(results[0].id).state == "PENDING"
        works("revoke, ping, forget")
    finally:
        worker.terminate()
        worker.wait(timeout=60)
    print("all well")


if __name__ == "__main__":
    main()
