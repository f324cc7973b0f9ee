// Many jobs of BullMQ, while servers are killed. Ports: two proxies. Behind them: the number of jobs.
// Started again by itself, as each of three workers.
const assert = require("node:assert");
const { fork } = require("node:child_process");
const { ports, load, version, works, until, run } = require("./application.js");
const { Queue, Worker } = load("bullmq");
const Redis = load("ioredis");

const [first, second, count] = ports;
const role = process.env.ROLE ?? "producer";

// How to go on after a lost connection, which comes soon.
const retryStrategy = (times) => Math.min(times * 50, 500);
const connection = (port) => ({ host: "127.0.0.1", port, retryStrategy, maxRetriesPerRequest: null });

// What a job does is done once, also if BullMQ lets it run again because its worker was cut off.
async function record(client, number) {
  for (;;) {
    try {
      return await client.call("FRESHET.ONCE", `job-${number}`, "HINCRBY", "done", String(number), "1");
    } catch (error) {
      if (!/^(TRYAGAIN|UNKNOWN)/.test(error.message)) throw error;
    }
  }
}

function work(port) {
  process.on("disconnect", () => process.exit());
  const client = new Redis(connection(port));
  client.on("error", () => {});
  const options = {
    connection: connection(port),
    concurrency: 20,
    lockDuration: 5000,
    stalledInterval: 1000,
    maxStalledCount: 10,
  };
  const done = async (job) => {
    await record(client, job.data.number);
    return job.data.number;
  };
  // Errors are what this is about: BullMQ tries again by itself.
  new Worker("jobs", done, options).on("error", () => {});
}

async function addAll(queue) {
  for (let from = 0; from < count; from += 500) {
    const numbers = Array.from({ length: Math.min(500, count - from) }, (_, index) => from + index);
    const opts = (number) => ({ jobId: `job-${number}`, attempts: 20, backoff: { type: "fixed", delay: 100 } });
    const bulk = numbers.map((number) => ({ name: "count", data: { number }, opts: opts(number) }));
    // Under ids of their own: a second time changes nothing.
    await until("they are added", () => queue.addBulk(bulk).catch(() => null));
  }
}

async function produce() {
  version("bullmq");
  const started = Date.now();
  const queue = new Queue("jobs", { connection: connection(second) });
  queue.on("error", () => {});
  const workers = [first, second, first].map((port) => {
    const env = { ...process.env, ROLE: String(port) };
    return fork(__filename, process.argv.slice(2), { env, stdio: "inherit" });
  });
  try {
    await addAll(queue);
    await until("every job is completed", async () => {
      const counts = await queue.getJobCounts("completed", "failed").catch(() => ({}));
      return counts.completed + counts.failed >= count;
    }, 900_000);
  } finally {
    workers.forEach((worker) => worker.kill());
  }
  const counts = await queue.getJobCounts();
  const others = Object.entries(counts).filter(([state, number]) => state !== "completed" && number !== 0);
  assert.deepStrictEqual([counts.completed, others], [count, []]);
  const client = new Redis(connection(second));
  const done = await client.hgetall("done");
  assert.strictEqual(Object.keys(done).length, count);
  assert.ok(Object.values(done).every((times) => times === "1"));
  works("three workers at two proxies; the cache killed, then a proxy killed: each job completed, its work done once");
  console.log(`${count} jobs in ${(Date.now() - started) / 1000} s`);
}

if (role === "producer") run(produce);
else work(Number(role));
