// node logits.mjs PACKAGE THREADS ID…: runs token ids one by one, then in calls of many rows, and prints both hashes of
// every position's logits.
import { readdirSync, readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, threadsGiven, ...given] = process.argv.slice(2);
const threads = Number(threadsGiven);
const { moduleName, startCore } = await import(pathToFileURL(`${folder}/start_core.mjs`));
const core = await startCore(await WebAssembly.compile(readFileSync(`${folder}/${moduleName(threads)}`)), threads);
for (const name of readdirSync(`${folder}/model`, { recursive: true })) {
  if (!/\.(bin|json)$/.test(name)) continue;
  const data = readFileSync(`${folder}/model/${name}`);
  core.bytes(core.giveFile(name, data.length), data.length).set(data);
}
const { vocabularySize } = core.open(threads, 0);
const tokens = given.map(Number);
const { exports, handles } = core;

/** Commits tokens as one call; returns the hash of each row's logits. */
function commit(sequence, ids) {
  const indices = ids.map((_, i) => i);
  return core.withRoom(4 * ids.length, (list) =>
    core.withRoom(8 * ids.length, (rows) =>
      core.withRoom(36, (request) =>
        core.withRoom(24, (result) => {
          core.setInt32s(list, ids);
          core.check(exports.forerun_stage(handles.session, sequence, ids.length, list, 0));
          core.setInt32s(rows, indices.flatMap((i) => [sequence, i]));
          core.setInt32s(request, [rows, ids.length, 0, -1, 0, -1, 0, 0, 0]);
          core.check(exports.forerun_forward(handles.session, request, result));
          const logits = core.uint32(result);
          const bytes = 4 * vocabularySize;
          const hashes = indices.map((i) => BigInt.asUintN(64, exports.forerun_hash64(logits + i * bytes, bytes, 0n)));
          core.setInt32s(list, indices);
          core.check(exports.forerun_commit(handles.session, sequence, ids.length, list));
          return hashes.map((hash) => hash.toString(16).padStart(16, "0"));
        }))));
}

const alone = tokens.flatMap((token) => commit(core.sequence, [token]));
core.check(exports.forerun_rewind(handles.session, core.sequence, 0));
const together = [];
for (let at = 0, rows = 2; at < tokens.length; at += rows, rows += 3) {
  together.push(...commit(core.sequence, tokens.slice(at, at + rows)));
}
console.log(JSON.stringify({ alone, together }));
process.exit(); // helpers would keep it going
