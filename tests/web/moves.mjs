// Rows that wait to be moved on the GPU when their sequence is forked, and the order that its queue keeps.
import { Queue } from "/gpu.mjs";
import { commit, hashes } from "/tests/rows.mjs";

/** What a fork holds, made while rows of the sequence wait to be moved, beside one that read the text in one go: the
 * hashes of a probe's logits and of every layer's keys and values. */
export async function forkMoved(core, { vocabularySize, layers, kvFloats }, text, probe) {
  const { exports, handles, waiting } = core;
  const session = await core.withRoom(16, (options) => {
    core.setInt32s(options, [2, 0, 1, 0]);
    return core.make((out) => waiting.forerun_session_create(handles.bundle, options, out));
  });
  const run = (sequence, ids, more) => commit(core, vocabularySize, ids, { session, sequence, ...more });
  const cache = (sequence) =>
    core.withRoom(8 * kvFloats * text.length, async (values) => {
      const found = [];
      for (let layer = 0; layer < layers; layer += 1) {
        const second = values + 4 * kvFloats * text.length;
        core.check(await waiting.forerun_read_kv(session, sequence, layer, 0, text.length, values, second));
        found.push(exports.forerun_hash64(values, 8 * kvFloats * text.length, 0n).toString(16));
      }
      return found;
    });
  const describe = async (sequence) => ({
    cache: await cache(sequence),
    probe: hashes(await run(sequence, probe)),
  });
  const fresh = core.make((out) => exports.forerun_sequence_create(session, out));
  await run(fresh, text);
  const straight = await describe(fresh);
  core.check(exports.forerun_sequence_release(session, fresh));
  const moved = core.make((out) => exports.forerun_sequence_create(session, out));
  await run(moved, text.slice(0, -2));
  // Of two branches the second: its rows lie behind the first one's.
  await run(moved, [7, 8, ...text.slice(-2)], { parents: [-1, 0, -1, 2], path: [2, 3] });
  const fork = await core.make((out) => waiting.forerun_sequence_fork(session, moved, out));
  const answers = { straight, fork: await describe(fork), moved: await describe(moved) };
  answers.saved = await core.withTexts(["file"], (path) => waiting.forerun_sequence_save(session, fork, path));
  exports.forerun_session_release(session);
  return answers;
}

/** What a copy of memory finds that is written before it and after it. */
export async function copyBetweenWrites(gpu) {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const queue = new Queue(gpu);
  const [from, to] = [8, 8].map((size) => gpu.makeBuffer(size, usage));
  const copied = [];
  queue.write(from, 0, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  queue.copy(from, 0, to, 0, 8);
  queue.write(from, 4, Uint8Array.of(9, 9, 9, 9));
  queue.copy(from, 4, from, 0, 4); // within one buffer
  queue.read(to, 0, 0, 8);
  queue.read(from, 0, 8, 8);
  await queue.finish((address, data) => copied.push([address, ...data]));
  queue.close();
  for (const buffer of [from, to]) buffer.destroy();
  return copied;
}
