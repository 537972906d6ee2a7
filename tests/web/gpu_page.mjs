// What the browser's GPU computes: a job's answers, and the rows of a text from a core of its own.
//   job  { job, tokens, files, sizes }
import { findGpu } from "/gpu.mjs";
import * as module from "/forerun.mjs";
import { startCore } from "/start_core.mjs";
import { runJob } from "/tests/job.mjs";
import { copyBetweenWrites, forkMoved } from "/tests/moves.mjs";
import { computeRows } from "/tests/rows.mjs";

const load = async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer());

async function openCore(found, files) {
  const core = await startCore(await WebAssembly.compile(await load("/model.wasm")), 1, found);
  for (const name of files) {
    const data = await load(`/model/${name}`);
    core.bytes(core.giveFile(name, data.length), data.length).set(data);
  }
  return core;
}

export async function runPage({ job, tokens, files, sizes }) {
  const answers = await runJob(module, job);
  const found = await findGpu(true);
  const core = await openCore(found, files);
  const { vocabularySize } = await core.open(1, 0, "webgpu-wasm32");
  const rows = await computeRows(core, vocabularySize, tokens);
  const moves = await forkMoved(core, { vocabularySize, ...sizes }, tokens.slice(0, -3), tokens.slice(-3));
  const copied = await copyBetweenWrites(found.gpu);
  found.gpu.device.destroy();
  const lost = await computeRows(core, vocabularySize, tokens).catch(({ message, status }) => ({ message, status }));
  const processor = await openCore({}, files);
  await processor.open(1, 0, "wasm32");
  const { logits } = await computeRows(processor, vocabularySize, tokens);
  return { answers, rows, moves, copied, lost, processor: logits };
}
