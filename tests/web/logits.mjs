// node logits.mjs PACKAGE THREADS ID…: runs token ids one by one, then in calls of many rows, and prints both hashes of
// every position's logits.
import { readdirSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { computeRows } from "./rows.mjs";

const [folder, threadsGiven, ...given] = process.argv.slice(2);
const threads = Number(threadsGiven);
const { moduleName, startCore } = await import(pathToFileURL(`${folder}/start_core.mjs`));
const core = await startCore(await WebAssembly.compile(readFileSync(`${folder}/${moduleName(threads)}`)), threads);
for (const name of readdirSync(`${folder}/model`, { recursive: true })) {
  if (!/\.(bin|json)$/.test(name)) continue;
  const data = readFileSync(`${folder}/model/${name}`);
  core.bytes(core.giveFile(name, data.length), data.length).set(data);
}
const { vocabularySize } = await core.open(threads, 0);
const { alone, together } = await computeRows(core, vocabularySize, given.map(Number));
console.log(JSON.stringify({ alone, together }));
process.exit(); // helpers would keep it going
