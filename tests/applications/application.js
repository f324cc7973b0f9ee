// What the scripts here have in common. Arguments of each: folder of modules, ports.
const path = require("node:path");
const [modules, ...ports] = process.argv.slice(2);

exports.ports = ports.map(Number);
exports.load = (name) => require(path.join(modules, name));
exports.version = (name) => console.log(`version: ${exports.load(`${name}/package.json`).version.replace(/^v/, "")}`);

// Says what has been seen to work.
exports.works = (what) => console.log(`works: ${what}`);

exports.sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Waits until `check` says something that is true.
exports.until = async (what, check, limit = 90_000) => {
  const deadline = Date.now() + limit;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`${what}: not in time`);
    await exports.sleep(10);
  }
};

exports.run = (main) =>
  main().then(
    () => {
      console.log("all well");
      process.exit(0);
    },
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
