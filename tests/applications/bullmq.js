// BullMQ as applications use it.
const assert = require("node:assert");
const { ports, load, version, works, sleep, until, run } = require("./application.js");
const { Queue, Worker, QueueEvents, FlowProducer, UnrecoverableError } = load("bullmq");

const connection = { host: "127.0.0.1", port: ports[0] };
const LIMIT = 60_000;

// A queue of its own, with a worker and its events; all closed at the end.
async function withQueue(name, processor, options, use) {
  const queue = new Queue(name, { connection });
  const events = new QueueEvents(name, { connection });
  await events.waitUntilReady();
  const worker = processor && new Worker(name, processor, { connection, ...options });
  worker?.on("error", (error) => console.error(name, error));
  await worker?.waitUntilReady();
  try {
    await use({ queue, events, worker });
  } finally {
    await worker?.close();
    await events.close();
    await queue.close();
  }
}

async function processing() {
  const process = async (job) => {
    await job.updateProgress({ half: true });
    await job.log(`squared ${job.data.number}`);
    return job.data.number ** 2;
  };
  await withQueue("processing", process, { concurrency: 5 }, async ({ queue, events }) => {
    const progress = new Set();
    events.on("progress", ({ jobId }) => progress.add(jobId));
    const first = await queue.add("square", { number: 7 });
    assert.strictEqual(await first.waitUntilFinished(events, LIMIT), 49);
    const bulk = Array.from({ length: 100 }, (_, number) => ({ name: "square", data: { number } }));
    const jobs = await queue.addBulk(bulk);
    const values = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, LIMIT)));
    assert.deepStrictEqual(values, bulk.map(({ data }) => data.number ** 2));
    assert.strictEqual(await queue.getCompletedCount(), 101);
    assert.strictEqual(progress.size, 101);
    const { logs } = await queue.getJobLogs(first.id);
    assert.deepStrictEqual(logs, ["squared 7"]);
    const [twin, again] = await Promise.all([1, 2].map(() => queue.add("square", { number: 1 }, { jobId: "one" })));
    assert.strictEqual(twin.id, again.id);
    await until("one job", async () => (await queue.getCompletedCount()) === 102);
  });
  works("add, add in bulk, process, results, events, progress, logs, ids given once");
}

async function delays() {
  await withQueue("delays", async () => Date.now(), {}, async ({ queue, events }) => {
    const start = Date.now();
    const job = await queue.add("later", {}, { delay: 400 });
    assert.strictEqual(await job.getState(), "delayed");
    const ran = await job.waitUntilFinished(events, LIMIT);
    assert.ok(ran - start >= 390, `${ran - start}`);
    const far = await queue.add("far", {}, { delay: 3_600_000 });
    await far.promote();
    await far.waitUntilFinished(events, LIMIT);
  });
  works("delay, promote");
}

async function retries() {
  let isRepaired = false;
  const process = async (job) => {
    if (job.name === "unsteady" && job.attemptsMade < 2) throw new Error("not yet");
    if (job.name === "hopeless") throw new UnrecoverableError("never");
    if (job.name === "broken" && !isRepaired) throw new Error("broken");
    return job.attemptsMade;
  };
  await withQueue("retries", process, {}, async ({ queue, events }) => {
    const backoff = { type: "exponential", delay: 30 };
    const unsteady = await queue.add("unsteady", {}, { attempts: 5, backoff });
    assert.strictEqual(await unsteady.waitUntilFinished(events, LIMIT), 2);
    const hopeless = await queue.add("hopeless", {}, { attempts: 5 });
    await assert.rejects(hopeless.waitUntilFinished(events, LIMIT), /never/);
    const broken = await queue.add("broken", {}, { attempts: 2, backoff: { type: "fixed", delay: 10 } });
    await assert.rejects(broken.waitUntilFinished(events, LIMIT), /broken/);
    assert.deepStrictEqual((await queue.getFailed()).map((job) => job.id).sort(), [hopeless.id, broken.id].sort());
    isRepaired = true;
    await (await queue.getJob(broken.id)).retry();
    await until("it is repaired", async () => (await (await queue.getJob(broken.id)).getState()) === "completed");
  });
  works("retry with backoff, failures, retry of what failed");
}

async function order() {
  const seen = [];
  await withQueue("order", async (job) => seen.push(job.name), { concurrency: 1 }, async ({ queue }) => {
    await queue.pause();
    assert.strictEqual(await queue.isPaused(), true);
    for (const [name, priority] of [["third", 3], ["first", 1], ["second", 2]]) {
      await queue.add(name, {}, { priority });
    }
    await queue.add("zero", {});
    await queue.add("before", {}, { lifo: true });
    await sleep(200);
    assert.deepStrictEqual(seen, []);
    await queue.resume();
    await until("all five", () => seen.length === 5);
    assert.deepStrictEqual(seen, ["before", "zero", "first", "second", "third"]);
  });
  works("pause, resume, priorities, last in first out");
}

async function repeats() {
  let runs = 0;
  await withQueue("repeats", async () => (runs += 1), {}, async ({ queue }) => {
    await queue.upsertJobScheduler("tick", { every: 60, limit: 4 }, { name: "tick", data: { kind: "often" } });
    await until("four runs", () => runs === 4);
    await queue.upsertJobScheduler("cron", { pattern: "0 3 * * *", tz: "Europe/Zurich" }, { name: "nightly" });
    const [cron] = (await queue.getJobSchedulers()).filter((it) => it.key === "cron");
    assert.strictEqual(cron.pattern, "0 3 * * *");
    assert.strictEqual((await queue.getDelayed()).length, 1);
    assert.strictEqual(await queue.removeJobScheduler("cron"), true);
    assert.strictEqual((await queue.getDelayed()).length, 0);
    assert.strictEqual(runs, 4);
  });
  works("repeat every so often, by cron");
}

async function rates() {
  const times = [];
  const limiter = { max: 3, duration: 400 };
  await withQueue("rates", async () => times.push(Date.now()), { limiter, concurrency: 9 }, async ({ queue }) => {
    await queue.addBulk(Array.from({ length: 9 }, () => ({ name: "call", data: {} })));
    await until("nine calls", () => times.length === 9);
    // Three windows, of which the first begins with the first call.
    assert.ok(times[8] - times[0] >= 700, `${times}`);
  });
  works("rate limit");
}

async function flows() {
  const process = async (job) => {
    if (job.name === "bad") throw new Error("bad child");
    if (job.name === "page") return job.data.page * 10;
    const values = Object.values(await job.getChildrenValues());
    return values.reduce((sum, value) => sum + value, 0);
  };
  const flow = new FlowProducer({ connection });
  await withQueue("parents", process, {}, async ({ queue, events }) => {
    await withQueue("children", process, { concurrency: 4 }, async ({ queue: children }) => {
      const pages = [1, 2, 3, 4].map((page) => ({ name: "page", queueName: "children", data: { page } }));
      const { job } = await flow.add({ name: "book", queueName: "parents", children: pages });
      assert.strictEqual(await job.waitUntilFinished(events, LIMIT), 100);
      const deep = await flow.add({
        name: "shelf",
        queueName: "parents",
        children: [{ name: "book", queueName: "parents", children: pages.slice(0, 2) }, pages[3]],
      });
      assert.strictEqual(await deep.job.waitUntilFinished(events, LIMIT), 70);
      const bad = { name: "bad", queueName: "children", data: {}, opts: { failParentOnFailure: true } };
      const failing = await flow.add({ name: "book", queueName: "parents", children: [pages[0], bad] });
      await until("its parent fails too", async () => (await queue.getJobState(failing.job.id)) === "failed");
      assert.strictEqual(await children.getFailedCount(), 1);
    });
  });
  await flow.close();
  works("flows of parents and children");
}

async function stalls() {
  await withQueue("stalls", null, {}, async ({ queue, events }) => {
    const job = await queue.add("lost", {});
    // A worker that takes a job, and is never heard of again.
    const gone = new Worker("stalls", null, { connection, lockDuration: 300, skipLockRenewal: true });
    assert.strictEqual((await gone.getNextJob("gone")).id, job.id);
    const other = new Worker("stalls", async () => "found", { connection, lockDuration: 5000, stalledInterval: 200 });
    assert.strictEqual(await job.waitUntilFinished(events, LIMIT), "found");
    await gone.close(true);
    await other.close();
  });
  works("jobs of a worker that died");
}

async function upkeep() {
  await withQueue("upkeep", null, {}, async ({ queue }) => {
    const deduplication = { id: "once" };
    const one = await queue.add("a", {}, { deduplication });
    assert.strictEqual((await queue.add("a", {}, { deduplication })).id, one.id);
    for (let number = 0; number < 10; number += 1) await queue.add("b", { number });
    const [waiting] = await queue.getWaiting(0, 0);
    await waiting.remove();
    assert.strictEqual(await queue.getWaitingCount(), 10);
    assert.strictEqual((await queue.clean(0, 4, "wait")).length, 4);
    await queue.drain();
    assert.strictEqual(await queue.count(), 0);
    await queue.add("c", {});
    await queue.obliterate({ force: true });
    assert.strictEqual(await queue.count(), 0);
  });
  works("deduplication, remove, clean, drain, obliterate");
}

run(async () => {
  version("bullmq");
  for (const part of [processing, delays, retries, order, repeats, rates, flows, stalls, upkeep]) await part();
});
