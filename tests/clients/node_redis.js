// What an application does with node-redis. Arguments: port, folder of modules.
const assert = require("node:assert");
const path = require("node:path");
const [port, modules] = process.argv.slice(2);
const { createClient, commandOptions, WatchError } = require(path.join(modules, "redis"));

const connect = () => createClient({ socket: { port: Number(port) } }).connect();

async function types(client) {
  assert.strictEqual(await client.set("key", "value", { EX: 100 }), "OK");
  assert.strictEqual(await client.get("key"), "value");
  assert.deepStrictEqual(await client.mGet(["key", "nothing"]), ["value", null]);

  assert.strictEqual(await client.hSet("hash", { name: "Ada", born: 1815 }), 2);
  assert.strictEqual(await client.hIncrBy("hash", "born", 37), 1852);
  assert.deepStrictEqual({ ...(await client.hGetAll("hash")) }, { name: "Ada", born: "1852" });

  assert.strictEqual(await client.rPush("list", ["b", "c"]), 2);
  assert.strictEqual(await client.lPush("list", "a"), 3);
  assert.strictEqual(await client.lMove("list", "other", "LEFT", "RIGHT"), "a");
  assert.deepStrictEqual(await client.lRange("list", 0, -1), ["b", "c"]);

  assert.strictEqual(await client.sAdd("set", ["x", "y", "z"]), 3);
  assert.deepStrictEqual((await client.sMembers("set")).sort(), ["x", "y", "z"]);
  assert.deepStrictEqual(await client.smIsMember("set", ["x", "no"]), [true, false]);

  const members = [{ score: 1, value: "one" }, { score: 2.5, value: "two" }];
  assert.strictEqual(await client.zAdd("zset", members), 2);
  assert.deepStrictEqual(await client.zRangeWithScores("zset", 0, -1), members);
  assert.strictEqual(await client.zScore("zset", "two"), 2.5);

  const place = { longitude: 13.361389, latitude: 38.115556, member: "Palermo" };
  assert.strictEqual(await client.geoAdd("geo", place), 1);
  const near = await client.geoSearch("geo", { longitude: 15, latitude: 37 }, { radius: 200, unit: "km" });
  assert.deepStrictEqual(near, ["Palermo"]);

  assert.strictEqual(await client.pfAdd("visitors", ["a", "b", "a"]), true);
  assert.strictEqual(await client.pfCount("visitors"), 2);
  await assert.rejects(client.incr("hash"), /WRONGTYPE/);
}

async function streams(client) {
  const id = await client.xAdd("stream", "*", { kind: "first" });
  await client.xAdd("stream", "*", { kind: "second" });
  await client.xGroupCreate("stream", "team", "0");
  const read = await client.xReadGroup("team", "me", { key: "stream", id: ">" }, { COUNT: 1 });
  assert.strictEqual(read[0].messages[0].id, id);
  assert.strictEqual(read[0].messages[0].message.kind, "first");
  assert.strictEqual((await client.xPending("stream", "team")).pending, 1);
  assert.strictEqual(await client.xAck("stream", "team", id), 1);
  assert.strictEqual((await client.xInfoGroups("stream"))[0].pending, 0);
  assert.strictEqual(await client.xLen("stream"), 2);
}

async function blocks(client) {
  const replies = await client.multi().set("m", 1).incr("m").get("m").exec();
  assert.deepStrictEqual(replies, ["OK", 2, "2"]);
  await client.executeIsolated(async (isolated) => {
    await isolated.watch("m");
    await client.incr("m");
    await assert.rejects(isolated.multi().set("m", 9).exec(), WatchError);
  });
  assert.strictEqual(await client.get("m"), "3");
  const counted = await Promise.all(Array.from({ length: 200 }, () => client.incr("many")));
  assert.strictEqual(Math.max(...counted), 200);
}

async function waiting(client) {
  const popped = client.blPop(commandOptions({ isolated: true }), "queue", 20);
  const lowest = client.bzPopMin(commandOptions({ isolated: true }), "ranked", 20);
  await client.rPush("queue", "job");
  await client.zAdd("ranked", { score: 1, value: "job" });
  assert.deepStrictEqual({ ...(await popped) }, { key: "queue", element: "job" });
  assert.strictEqual((await lowest).value, "job");
}

async function channels(client) {
  const listener = await connect();
  const heard = [];
  let enough;
  const all = new Promise((resolve) => (enough = resolve));
  const hear = (message, channel) => heard.push([channel, message]) === 2 && enough();
  await listener.subscribe("news", hear);
  await listener.pSubscribe("n*", hear);
  assert.strictEqual(await client.publish("news", "hello"), 2);
  await all;
  assert.deepStrictEqual(heard, [["news", "hello"], ["news", "hello"]]);
  await listener.unsubscribe("news");
  await listener.pUnsubscribe("n*");
  assert.strictEqual(await client.publish("news", "nobody"), 0);
  await listener.disconnect();
}

async function scans(client) {
  await client.mSet(Array.from({ length: 50 }, (_, n) => [`scan:${n}`, String(n)]));
  const keys = new Set();
  for await (const key of client.scanIterator({ MATCH: "scan:*", COUNT: 7 })) keys.add(key);
  assert.strictEqual(keys.size, 50);
  await client.hSet("wide", Array.from({ length: 600 }, (_, n) => [`f${n}`, String(n)]));
  const fields = new Set();
  for await (const { field } of client.hScanIterator("wide", { COUNT: 20 })) fields.add(field);
  assert.strictEqual(fields.size, 600);
  await client.zAdd("high", Array.from({ length: 600 }, (_, n) => ({ score: n, value: `m${n}` })));
  const members = new Set();
  for await (const { value } of client.zScanIterator("high")) members.add(value);
  assert.strictEqual(members.size, 600);
}

async function main() {
  const client = await connect();
  assert.strictEqual(await client.ping(), "PONG");
  await client.flushAll();
  for (const part of [types, streams, blocks, waiting, channels, scans]) await part(client);
  await client.quit();
  console.log("all well");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
