// node close.mjs PACKAGE: loads a package on 3 threads and closes it, ten times, and prints how many threads the process
// has after each load and when they have ended, in the end.
import { readdirSync } from "node:fs";
import { pathToFileURL } from "node:url";

const threads = () => readdirSync("/proc/self/task").length;
const pause = () => new Promise((resolve) => setTimeout(resolve, 20));
const folder = process.argv[2];
const { Forerun } = await import(pathToFileURL(`${folder}/forerun.mjs`));
const load = async () => {
  const model = await Forerun.load(folder, { threads: 3 });
  const running = threads();
  model.close();
  return running;
};
const before = threads();
const loaded = [];
for (let i = 0; i < 10; i += 1) loaded.push(await load());
for (let i = 0; i < 250 && threads() > before; i += 1) await pause();
console.log(JSON.stringify({ before, loaded, after: threads() }));
