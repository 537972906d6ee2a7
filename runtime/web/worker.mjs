// Runs the core beside the page: a Worker in browsers, a worker thread in Node. forerun.mjs starts it and is the
// only one to talk to it.
//   in   { load: { url, capacity, threads, device } }, { answer: { number, prompt, wanted } }, { cancel: number }
//   out  { progress }, { loaded: facts }, { text, ids }, { finished: result }, { failed: { message, status } }
import { CoreFailure } from "./core.mjs";
import { findGpu } from "./gpu.mjs";
import { moduleName, startCore } from "./start_core.mjs";
import { inNode, ownPort } from "./start_worker.mjs";

const port = await ownPort();
const FILE_FAILURE = 20; // FORERUN_FILE
const SIZE_FAILURE = 23; // FORERUN_SIZE
const DEVICE_FAILURE = 34; // FORERUN_DEVICE
const GPU_TARGET = "webgpu-wasm32";
let core = null;
let cancelled = 0; // answers up to this number are not wanted any more

/** The response for a file of the package, by http or, in Node, from the disk. */
async function open(url) {
  if (inNode && url.protocol === "file:") {
    const { openAsBlob } = await import("node:fs");
    try {
      return new Response(await openAsBlob(url));
    } catch (error) {
      throw new CoreFailure(`cannot open ${url.pathname}: ${error.message}`, FILE_FAILURE);
    }
  }
  const response = await fetch(url).catch((error) => {
    throw new CoreFailure(`cannot load ${url}: ${error.message}`, FILE_FAILURE);
  });
  if (response.ok) return response;
  throw new CoreFailure(`cannot load ${url}: HTTP ${response.status}; copy the whole package again`, FILE_FAILURE);
}

/** Reads a response into the core's memory as it comes; nothing is held twice. */
async function readInto(address, response, file, onBytes) {
  let received = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (received + value.length <= file.bytes) core.bytes(address + received, value.length).set(value);
    received += value.length;
    onBytes(value.length);
  }
  if (received === file.bytes) return;
  const fix = "copy the whole package again";
  throw new CoreFailure(`${file.name} has ${received} bytes, the manifest says ${file.bytes}; ${fix}`, SIZE_FAILURE);
}

/** What a manifest lists; nothing if the core is to refuse it. */
function listed(data) {
  try {
    const { files, drafts, targets } = JSON.parse(new TextDecoder().decode(data)).manifest;
    return { files: files ?? {}, drafts: drafts ?? {}, targets: targets ?? {} };
  } catch {
    return { files: {}, drafts: {}, targets: {} };
  }
}

const readManifest = async (root, folder) =>
  new Uint8Array(await (await open(new URL(`${folder}manifest.json`, root))).arrayBuffer());

/** Gives the core a manifest and returns the files that it lists. */
function giveManifest(data, folder) {
  core.bytes(core.giveFile(`${folder}manifest.json`, data.length), data.length).set(data);
  return Object.entries(listed(data).files).map(([file, facts]) => ({ name: folder + file, bytes: facts.bytes }));
}

/** Which of the package's targets is wanted (null: its best for the processor), and what findGpu returned for it. */
async function chooseTarget(device, targets) {
  if (device === "cpu") return { target: Object.keys(targets).find((name) => name !== GPU_TARGET) ?? null, found: {} };
  const reason = `the package has no program for GPUs: compile its bundle with --target ${GPU_TARGET} too`;
  const found = GPU_TARGET in targets ? await findGpu(device === "gpu") : { reason };
  if (found.gpu) return { target: GPU_TARGET, found };
  if (device === "gpu") throw new CoreFailure(`no GPU can be used: ${found.reason}`, DEVICE_FAILURE);
  return { ...(await chooseTarget("cpu", targets)), found };
}

async function load({ url, capacity, threads, device }) {
  const base = new URL(url);
  const root = new URL("model/", base);
  const manifest = await readManifest(root, "");
  const { drafts, targets } = listed(manifest);
  const { target, found } = await chooseTarget(device, targets);
  // What is beside the network's rows is little: one thread has the small module, without shared memory.
  const used = found.gpu ? 1 : threads;
  const code = await (await open(new URL(moduleName(used), base))).arrayBuffer();
  core = await startCore(await WebAssembly.compile(code), used, found);
  const files = giveManifest(manifest, "");
  for (const { path } of Object.values(drafts)) {
    files.push(...giveManifest(await readManifest(root, `${path}/`), `${path}/`));
  }
  const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let receivedBytes = 0;
  for (const file of files) {
    const address = core.giveFile(file.name, file.bytes);
    await readInto(address, await open(new URL(file.name, root)), file, (bytes) => {
      receivedBytes += bytes;
      port.post({ progress: { file: file.name, receivedBytes, totalBytes } });
    });
  }
  const facts = await core.open(used, capacity, target);
  port.post({ loaded: { ...facts, whyNoDevice: facts.device ? null : (found.reason ?? null) } });
}

// Lets messages in between two steps: timers would wait milliseconds.
const channel = new MessageChannel();
const turn = () =>
  new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });

async function answer({ number, prompt, wanted }) {
  const result = { ids: [], text: "", finish: null };
  await core.start(core.promptIds(prompt), wanted);
  while (result.finish === null) {
    const { ids, text, finish } = await core.step();
    result.ids.push(...ids);
    result.text += text;
    result.finish = finish;
    if (ids.length > 0 || text) port.post({ ids, text });
    await turn();
    if (result.finish === null && number <= cancelled) {
      await core.abandon();
      result.finish = "cancelled";
    }
  }
  port.post({ finished: { ...result, statistics: core.statistics() } });
}

async function receive(message) {
  try {
    if (message.cancel !== undefined) cancelled = message.cancel;
    if (message.load) await load(message.load);
    if (message.answer) await answer(message.answer);
  } catch (error) {
    port.post({ failed: { message: error.message, status: error.status ?? null } });
  }
}

port.onMessage(receive);
