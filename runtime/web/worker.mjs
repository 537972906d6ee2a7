// Runs the core beside the page: a Worker in browsers, a worker thread in Node. forerun.mjs starts it and is the
// only one to talk to it.
//   in   { load: { url, capacity, threads } }, { answer: { number, prompt, wanted } }, { cancel: number }
//   out  { progress }, { loaded: facts }, { text, ids }, { finished: result }, { failed: { message, status } }
import { CoreFailure } from "./core.mjs";
import { moduleName, startCore } from "./start_core.mjs";
import { inNode, ownPort } from "./start_worker.mjs";

const port = await ownPort();
const FILE_FAILURE = 20; // FORERUN_FILE
const SIZE_FAILURE = 23; // FORERUN_SIZE
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

/** Gives the core a manifest and returns the files and drafts that it lists; none if the core is to refuse it. */
async function giveManifest(root, folder) {
  const name = `${folder}manifest.json`;
  const data = new Uint8Array(await (await open(new URL(name, root))).arrayBuffer());
  core.bytes(core.giveFile(name, data.length), data.length).set(data);
  try {
    const { files, drafts } = JSON.parse(new TextDecoder().decode(data)).manifest;
    const listed = Object.entries(files).map(([file, facts]) => ({ name: folder + file, bytes: facts.bytes }));
    return { files: listed, drafts: Object.values(drafts ?? {}).map(({ path }) => `${folder}${path}/`) };
  } catch {
    return { files: [], drafts: [] };
  }
}

async function load({ url, capacity, threads }) {
  const base = new URL(url);
  const root = new URL("model/", base);
  const code = await (await open(new URL(moduleName(threads), base))).arrayBuffer();
  core = await startCore(await WebAssembly.compile(code), threads);
  const { files, drafts } = await giveManifest(root, "");
  for (const draft of drafts) files.push(...(await giveManifest(root, draft)).files);
  const totalBytes = files.reduce((sum, { bytes }) => sum + bytes, 0);
  let receivedBytes = 0;
  for (const file of files) {
    const address = core.giveFile(file.name, file.bytes);
    await readInto(address, await open(new URL(file.name, root)), file, (bytes) => {
      receivedBytes += bytes;
      port.post({ progress: { file: file.name, receivedBytes, totalBytes } });
    });
  }
  port.post({ loaded: core.open(threads, capacity) });
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
  core.start(core.promptIds(prompt), wanted);
  while (result.finish === null) {
    const { ids, text, finish } = core.step();
    result.ids.push(...ids);
    result.text += text;
    result.finish = finish;
    if (ids.length > 0 || text) port.post({ ids, text });
    await turn();
    if (result.finish === null && number <= cancelled) {
      core.abandon();
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
