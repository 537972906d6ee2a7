// The core with its threads: an instance here, and one in a worker for each further thread.
import { Core, sharedMemory } from "./core.mjs";
import { startWorker } from "./start_worker.mjs";

/** The module for so many threads. */
export const moduleName = (threads) => (threads > 1 ? "model-threads.wasm" : "model.wasm");

/** Starts the core of the module that moduleName names; `found` is what findGpu returned. Its helpers end with the worker
 * that this runs in. */
export async function startCore(module, threads, found = {}) {
  const memory = threads > 1 ? sharedMemory() : null;
  const core = new Core(module, memory, found);
  const numbers = Array.from({ length: threads - 1 }, (_, number) => number);
  await Promise.all(numbers.map((number) => startHelper({ module, memory, ...core.helperRoom(number) })));
  core.exports.forerun_have_helpers(numbers.length);
  return core;
}

/** Resolves when a helper is about to wait for work. The core cannot let messages in while it computes, so all helpers
 * are there before. */
async function startHelper(start) {
  const helper = await startWorker("./helper.mjs");
  await new Promise((resolve, reject) => {
    helper.onMessage(resolve);
    helper.onError((error) => reject(new Error(`thread ${start.number + 1} failed: ${error.message ?? error}`)));
    helper.post(start);
  });
}
