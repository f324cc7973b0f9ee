// Redlock over as many servers as there are ports.
const assert = require("node:assert");
const { ports, load, version, works, sleep, run } = require("./application.js");
const Redis = load("ioredis");
const { default: Redlock } = load("redlock");

const connect = (port) => {
  const client = new Redis({ port, maxRetriesPerRequest: 0, enableOfflineQueue: port !== 1 });
  client.on("error", () => {});
  return client;
};
const clients = ports.map(connect);
const patient = { retryCount: 500, retryDelay: 10, retryJitter: 20 };

async function holds() {
  const redlock = new Redlock(clients, { retryCount: 0 });
  let lock = await redlock.acquire(["a", "b"], 10_000);
  for (const taken of [["a"], ["b", "c"]]) await assert.rejects(redlock.acquire(taken, 1000));
  lock = await lock.extend(20_000);
  // It does not wait for a minority that is slower.
  const ends = await Promise.all(clients.map((client) => client.pttl("a")));
  assert.ok(ends.filter((ms) => ms > 10_000).length > clients.length / 2, `${ends}`);
  await lock.release();
  await (await redlock.acquire(["c", "b"], 1000)).release();
  const short = await redlock.acquire(["d"], 150);
  await sleep(250);
  await (await redlock.acquire(["d"], 1000)).release();
  await assert.rejects(short.release());
}

// What is read and written under the lock, in two steps, loses nothing.
async function excludes() {
  const redlock = new Redlock(clients, patient);
  await clients[0].del("counter");
  const step = () =>
    redlock.using(["counter:lock"], 5000, async (signal) => {
      const count = Number(await clients[0].get("counter"));
      await sleep(1);
      assert.ok(!signal.aborted);
      await clients[0].set("counter", count + 1);
    });
  await Promise.all(Array.from({ length: 30 }, step));
  assert.strictEqual(await clients[0].get("counter"), "30");
}

// A minority that is away does no harm; without a majority there is no lock.
async function survives() {
  const dead = [1, 1].map(connect);
  const most = new Redlock([clients[0], clients[1], dead[0]], { retryCount: 2 });
  await (await most.acquire(["e"], 2000)).release();
  const few = new Redlock([clients[0], ...dead], { retryCount: 0 });
  await assert.rejects(few.acquire(["f"], 2000));
  dead.forEach((client) => client.disconnect());
}

run(async () => {
  version("redlock");
  const servers = ports.length === 1 ? "one server" : `${ports.length} servers`;
  await holds();
  works(`over ${servers}: acquire, refuse, extend, release, expire`);
  await excludes();
  works(`over ${servers}: one holder at a time`);
  if (ports.length === 3) {
    await survives();
    works("a majority decides");
  }
});
