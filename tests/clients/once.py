"""Retries of redis-py with tokens, while the server is killed. Argument: port."""

import sys
import uuid

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

# Sends a command again by itself when the connection is lost.
client = redis.Redis(
    port=int(sys.argv[1]),
    decode_responses=True,
    socket_timeout=2,
    retry=Retry(ExponentialBackoff(cap=0.2, base=0.01), 100),
    retry_on_error=[redis.ConnectionError, redis.TimeoutError],
)


def once(send):
    """Calls send(token) until it has an answer that says what was done."""
    token = str(uuid.uuid4())
    while True:
        try:
            return send(token)
        except redis.ResponseError as error:
            if not str(error).startswith(("UNKNOWN", "TRYAGAIN")):
                raise


def transfer(token):
    block = client.pipeline()
    block.execute_command("FRESHET.ONCE", token)
    block.decrby("left", 1)
    block.incrby("right", 1)
    return block.execute()


for expected in range(1, 301):
    count = once(lambda token: client.execute_command("FRESHET.ONCE", token, "INCR", "count"))
    assert count == expected, (count, expected)
    replies = once(transfer)
    assert replies[1:] == [-expected, expected], replies

assert client.mget("count", "left", "right") == ["300", "-300", "300"]
token = str(uuid.uuid4())
first = once(lambda _: client.execute_command("FRESHET.ONCE", token, "INCR", "count"))
again = once(lambda _: client.execute_command("FRESHET.ONCE", token, "INCR", "count"))
assert first == again == 301, (first, again)
try:
    once(lambda _: client.execute_command("FRESHET.ONCE", token, "DECR", "count"))
    raise AssertionError("no error")
except redis.ResponseError as error:
    assert "another command" in str(error), error
print("all well")
