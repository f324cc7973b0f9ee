// Sessions of express-session in connect-redis. Ports: Freshet, and its cache.
const assert = require("node:assert");
const http = require("node:http");
const { ports, load, version, works, run } = require("./application.js");
const { createClient } = load("redis");
const { RedisStore } = load("connect-redis");
const session = load("express-session");

// A server that counts the visits of each session.
function serve(store) {
  const options = { store, secret: "for tests", resave: false, saveUninitialized: false, cookie: { maxAge: 60_000 } };
  const middleware = session(options);
  const server = http.createServer((request, response) => {
    middleware(request, response, (error) => {
      if (error) {
        response.statusCode = 500;
        return response.end(String(error));
      }
      if (request.url === "/leave") return request.session.destroy(() => response.end("left"));
      if (request.url === "/renew") {
        const { visits } = request.session;
        return request.session.regenerate(() => {
          request.session.visits = visits;
          response.end(String(visits));
        });
      }
      request.session.visits = (request.session.visits ?? 0) + 1;
      response.end(String(request.session.visits));
    });
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

// A browser: it keeps its cookie.
function browser(port) {
  let cookie = "";
  return async (path) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { cookie } });
    const [set] = response.headers.getSetCookie();
    if (set) cookie = set.split(";")[0];
    return response.text();
  };
}

run(async () => {
  version("connect-redis");
  const client = await createClient({ socket: { port: ports[0] } }).connect();
  const cache = await createClient({ socket: { port: ports[1] } }).connect();
  const store = new RedisStore({ client, prefix: "sess:" });
  const server = await serve(store);
  const { port } = server.address();
  const browsers = Array.from({ length: 20 }, () => browser(port));
  for (let visit = 1; visit <= 3; visit += 1) {
    const shown = await Promise.all(browsers.map((visitPage) => visitPage("/")));
    assert.deepStrictEqual(new Set(shown), new Set([String(visit)]));
    await cache.flushAll(); // Behind Freshet's back.
  }
  works("sessions over HTTP, kept when the cache is emptied");
  assert.strictEqual(await browsers[0]("/renew"), "3");
  assert.strictEqual(await browsers[0]("/"), "4");
  assert.strictEqual(await browsers[1]("/leave"), "left");
  assert.strictEqual(await browsers[1]("/"), "1");
  works("regenerate, destroy");
  assert.strictEqual(await store.length(), 20);
  assert.strictEqual((await store.all()).length, 20);
  assert.strictEqual((await store.ids()).length, 20);
  const [id] = await store.ids();
  const ttl = await client.pTTL(`sess:${id}`);
  assert.ok(ttl > 0 && ttl <= 60_000);
  await store.clear();
  assert.strictEqual(await store.length(), 0);
  assert.strictEqual(await browsers[2]("/"), "1");
  works("time to live, length, all, clear");
  server.close();
});
