// What an application does with ioredis. Arguments: port, folder of modules.
const assert = require("node:assert");
const path = require("node:path");
const [port, modules] = process.argv.slice(2);
const Redis = require(path.join(modules, "ioredis"));

async function main() {
  const client = new Redis({ port: Number(port), maxRetriesPerRequest: 1 });
  assert.strictEqual(await client.ping(), "PONG");
  await client.flushall();
  assert.strictEqual(await client.set("key", "value"), "OK");
  assert.strictEqual(await client.get("key"), "value");
  assert.strictEqual(await client.set("key", "x", "EX", 100, "NX"), null);
  assert.strictEqual(await client.get("nothing"), null);
  assert.deepStrictEqual(await client.mget("key", "nothing"), ["value", null]);
  assert.strictEqual(await client.incrby("count", 5), 5);
  assert.strictEqual(await client.incrbyfloat("float", 1.5), "1.5");
  assert.strictEqual(await client.expire("key", 1000), 1);
  assert.ok((await client.ttl("key")) > 990);
  await assert.rejects(client.incr("key"), /not an integer/);
  await assert.rejects(client.call("nosuch", "a"), /unknown command/);

  const replies = await client.pipeline().set("p", 1).incr("p").get("p").exec();
  assert.deepStrictEqual(replies, [[null, "OK"], [null, 2], [null, "2"]]);

  const block = await client.multi().set("m", 1).incr("m").get("m").exec();
  assert.deepStrictEqual(block, [[null, "OK"], [null, 2], [null, "2"]]);
  await client.watch("m");
  await client.incr("m");
  assert.strictEqual(await client.multi().set("m", 9).exec(), null);
  assert.strictEqual(await client.get("m"), "3");
  await client.multi({ pipeline: false });
  assert.strictEqual(await client.set("m", 10), "QUEUED");
  assert.deepStrictEqual(await client.exec(), [[null, "OK"]]);

  const listener = client.duplicate();
  const heard = [];
  listener.on("message", (channel, message) => heard.push([channel, message]));
  listener.on("pmessage", (pattern, channel, message) => heard.push([pattern, channel, message]));
  assert.strictEqual(await listener.subscribe("news", "weather"), 2);
  assert.strictEqual(await listener.psubscribe("n*"), 3);
  assert.strictEqual(await client.publish("news", "hello"), 2);
  assert.strictEqual(await client.publish("weather", "rain"), 1);
  while (heard.length < 3) await new Promise((resolve) => setTimeout(resolve, 5));
  heard.sort((one, other) => one.length - other.length);
  assert.deepStrictEqual(heard, [["news", "hello"], ["weather", "rain"], ["n*", "news", "hello"]]);
  assert.strictEqual(await listener.unsubscribe("news", "weather"), 1);
  assert.strictEqual(await listener.punsubscribe("n*"), 0);
  assert.strictEqual(await listener.get("key"), await client.get("key"));
  listener.disconnect();

  const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
  await client.set("bytes", bytes);
  assert.ok(bytes.equals(await client.getBuffer("bytes")));

  await Promise.all(Array.from({ length: 500 }, () => client.incr("many")));
  assert.strictEqual(await client.get("many"), "500");

  await Promise.all(Array.from({ length: 50 }, (_, n) => client.set(`scan:${n}`, n)));
  const found = new Set();
  for await (const keys of client.scanStream({ match: "scan:*", count: 7 })) {
    keys.forEach((key) => found.add(key));
  }
  assert.strictEqual(found.size, 50);

  const other = new Redis({ port: Number(port), db: 3, connectionName: "node" });
  assert.strictEqual(await other.get("key"), null);
  assert.strictEqual(await other.client("GETNAME"), "node");
  other.disconnect();
  await client.quit();
  console.log("all well");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
