"""RQ with Freshet."""

import datetime
import operator

import redis
from rq import Queue, Retry, SimpleWorker
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry
from rq.scheduler import RQScheduler

from application import cache_port, port, version, works

version("rq")
client = redis.Redis(port=port)
cache = redis.Redis(port=cache_port)
client.flushall()
queue = Queue(connection=client)


def work():
    worker = SimpleWorker([queue], connection=client)
    worker.work(burst=True, logging_level="WARNING")


jobs = [queue.enqueue(pow, number, 2) for number in range(100)]
cache.flushall()  # Behind Freshet's back: nothing may be lost.
after = queue.enqueue(len, "four", depends_on=jobs[-1])
failing = queue.enqueue(operator.truediv, 1, 0)
retried = queue.enqueue(operator.truediv, 2, 0, retry=Retry(max=2))
assert after.get_status() == JobStatus.DEFERRED
assert len(queue) == 102
work()
assert [job.return_value() for job in jobs] == [number**2 for number in range(100)]
assert after.return_value() == 4
assert len(queue) == 0
failed = FailedJobRegistry(queue=queue)
assert set(failed.get_job_ids()) == {failing.id, retried.id}
assert "ZeroDivisionError" in failing.latest_result().exc_string
assert len(FinishedJobRegistry(queue=queue)) == 101
assert retried.latest_result().type.name == "FAILED"
works("jobs, dependencies, retries, failures; none lost when the cache is emptied")

# A failed job is put back into its queue.
failed.requeue(failing.id)
assert queue.job_ids == [failing.id]
work()
assert failing.id in failed.get_job_ids()

# Scheduled: the time has come for one of two.
late = queue.enqueue_in(datetime.timedelta(hours=1), pow, 2, 10)
now = queue.enqueue_at(datetime.datetime.now(datetime.timezone.utc), pow, 2, 3)
scheduled = ScheduledJobRegistry(queue=queue)
assert len(scheduled) == 2
scheduler = RQScheduler([queue], connection=client)
assert scheduler.acquire_locks()
scheduler.enqueue_scheduled_jobs()
scheduler.release_locks()
assert scheduled.get_job_ids() == [late.id]
work()
assert now.return_value() == 8
works("requeue, schedule")

# Cancelled, deleted, found again by its id.
late.cancel()
assert Job.fetch(late.id, connection=client).get_status() == JobStatus.CANCELED
late.delete()
assert not Job.exists(late.id, connection=client)

# Emptied by a script.
for number in range(3):
    queue.enqueue(pow, number, 2)
assert len(queue) == 3 and queue.empty() == 3 and len(queue) == 0
works("cancel, delete, empty")
print("all well")
