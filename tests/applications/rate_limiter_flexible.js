// rate-limiter-flexible, over ioredis and over node-redis.
const assert = require("node:assert");
const { ports, load, version, works, sleep, run } = require("./application.js");
const Redis = load("ioredis");
const { createClient } = load("redis");
const { RateLimiterRedis, RateLimiterQueue, BurstyRateLimiter, RateLimiterUnion } = load("rate-limiter-flexible");

async function limits(options, prefix) {
  const limiter = (more) => new RateLimiterRedis({ ...options, keyPrefix: prefix, points: 5, duration: 60, ...more });
  const five = limiter();
  const first = await five.consume("user");
  assert.deepStrictEqual([first.consumedPoints, first.remainingPoints, first.isFirstInDuration], [1, 4, true]);
  assert.ok(first.msBeforeNext > 50_000 && first.msBeforeNext <= 60_000);
  await five.consume("user", 4);
  await assert.rejects(five.consume("user"), (refused) => refused.remainingPoints === 0 && refused.msBeforeNext > 0);
  await five.reward("user", 3);
  await five.penalty("user", 1);
  assert.strictEqual((await five.get("user")).consumedPoints, 4);
  await five.block("user", 100);
  await assert.rejects(five.consume("user"));
  assert.strictEqual(await five.delete("user"), true);
  assert.strictEqual(await five.get("user"), null);
  await five.set("user", 5, 10);
  await assert.rejects(five.consume("user"));

  const short = limiter({ keyPrefix: `${prefix}short`, points: 1, duration: 1 });
  await short.consume("user");
  await assert.rejects(short.consume("user"));
  await sleep(1100);
  await short.consume("user");

  const many = limiter({ keyPrefix: `${prefix}many`, points: 50 });
  const answers = await Promise.allSettled(Array.from({ length: 200 }, () => many.consume("all")));
  assert.strictEqual(answers.filter(({ status }) => status === "fulfilled").length, 50);
}

async function combinations(client) {
  const limiter = (keyPrefix, points, duration) =>
    new RateLimiterRedis({ storeClient: client, keyPrefix, points, duration });
  const bursty = new BurstyRateLimiter(limiter("usual", 1, 60), limiter("burst", 2, 60));
  for (let number = 0; number < 3; number += 1) await bursty.consume("user");
  await assert.rejects(bursty.consume("user"));
  const union = new RateLimiterUnion(limiter("minute", 2, 60), limiter("hour", 3, 3600));
  await union.consume("user");
  await union.consume("user");
  await assert.rejects(union.consume("user"), (refused) => refused.minute !== undefined);
  const queue = new RateLimiterQueue(limiter("queue", 2, 1), { maxQueueSize: 10 });
  const start = Date.now();
  for (let number = 0; number < 5; number += 1) await queue.removeTokens(1, "user");
  // Two windows of two have passed.
  assert.ok(Date.now() - start >= 1000, `${Date.now() - start}`);
}

run(async () => {
  version("rate-limiter-flexible");
  const ioredis = new Redis({ port: ports[0] });
  await limits({ storeClient: ioredis }, "io");
  works("with ioredis: consume, block, penalty, reward, get, set, delete, expiry; 200 at once get 50 points");
  const node = await createClient({ socket: { port: ports[0] } }).connect();
  await limits({ storeClient: node, useRedisPackage: true }, "node");
  works("the same with node-redis");
  await combinations(ioredis);
  works("bursts, unions, queues");
});
