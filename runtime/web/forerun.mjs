// A language model in the browser, or in Node: `forerun package BUNDLE --target wasm32` wrote this folder.
// forerun.d.mts describes everything here.
import { inNode, startWorker } from "./start_worker.mjs";

// Phones have few quick cores, and a page shares the machine with others.
const MOST_DEFAULT_THREADS = 4;
const MOST_THREADS = 256; // kMaxThreads in team.h; layout.cpp holds it to that

/** A failure; `status` is the number of forerun_status in forerun.h, null where it was none of the core's. */
export class ForerunError extends Error {
  constructor(message, status = null) {
    super(message);
    this.name = "ForerunError";
    this.status = status;
  }
}

const DEVICES = ["auto", "cpu", "gpu"];

const DEFAULTS = {
  maxTokens: 256,
  temperature: 0,
  topK: 0,
  topP: 1,
  seed: 0,
  drafter: "none",
  shape: null,
  exit: null,
  ignoreEnd: false,
};

export class Forerun {
  static async load(url, { onProgress = () => {}, threads, capacity = 0, device = "auto", signal } = {}) {
    signal?.throwIfAborted();
    if (!DEVICES.includes(device)) throw new ForerunError(`device is ${device}; it must be ${DEVICES.join(", ")}`);
    const wanted = await chooseThreads(threads);
    const model = new Forerun(await startWorker("./worker.mjs"));
    const stop = () => model.#end(signal.reason);
    signal?.addEventListener("abort", stop);
    try {
      model.#post({ load: { url: await folderUrl(url), threads: wanted, capacity, device } });
      model.facts = await model.#hear(({ progress, loaded }) => {
        if (progress) onProgress(progress);
        return loaded;
      });
      return model;
    } catch (error) {
      model.close();
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  #worker;
  #listener = null; // of the load or answer under way: { heard, failed }
  #ended = null; // why the worker is gone
  #answers = 0;

  constructor(worker) {
    this.#worker = worker;
    worker.onMessage((message) => this.#listener?.heard(message));
    worker.onError((error) => this.#end(new ForerunError(`the model's worker failed: ${error.message ?? error}`)));
  }

  chat(messages, options = {}) {
    return this.#begin(messages.map(({ role, content }) => ({ role, content })), options);
  }

  generate(prompt, options = {}) {
    return this.#begin(typeof prompt === "string" ? prompt : Array.from(prompt), options);
  }

  close() {
    this.#end(new ForerunError("the model was closed"));
  }

  #begin(prompt, { signal, ...options }) {
    const unknown = Object.keys(options).filter((name) => !(name in DEFAULTS));
    if (unknown.length > 0) {
      const known = Object.keys(DEFAULTS).join(", ");
      throw new ForerunError(`unknown option ${unknown.join(", ")}; known options: ${known}, signal`);
    }
    if (this.#ended) throw this.#ended;
    if (this.#listener) throw new ForerunError("an answer is under way; wait for its end or cancel it first");
    signal?.throwIfAborted();
    const number = ++this.#answers;
    const cancel = () => this.#ended || this.#post({ cancel: number });
    signal?.addEventListener("abort", cancel);
    const answer = new Answer(cancel);
    const wanted = { ...DEFAULTS, ...options };
    const over = this.#hear(({ text, ids, finished }) => {
      if (ids) answer.push(text, ids);
      return finished;
    });
    this.#post({ answer: { number, prompt, wanted } });
    answer.settle(over.finally(() => signal?.removeEventListener("abort", cancel)));
    return answer;
  }

  #post(message) {
    this.#worker.post(message);
  }

  /** Resolves with the first thing that `read(message)` returns; rejects when the worker fails or ends. */
  #hear(read) {
    return new Promise((resolve, reject) => {
      const settle = (done, value) => {
        this.#listener = null;
        done(value);
      };
      this.#listener = {
        failed: (error) => settle(reject, error),
        heard: (message) => {
          if (message.failed) settle(reject, new ForerunError(message.failed.message, message.failed.status));
          const value = message.failed ? undefined : read(message);
          if (value !== undefined) settle(resolve, value);
        },
      };
    });
  }

  #end(reason) {
    if (this.#ended) return;
    this.#ended = reason;
    this.#worker.terminate();
    this.#listener?.failed(reason);
  }
}

/** An answer under way: pieces of text by `for await`, and all of it in `result`. */
class Answer {
  #pieces = [];
  #wake = () => {};
  #over = false;
  #cancel;

  constructor(cancel) {
    this.#cancel = cancel;
  }

  push(text) {
    if (text) this.#pieces.push(text);
    this.#wake();
  }

  settle(result) {
    this.result = result;
    const end = () => {
      this.#over = true;
      this.#wake();
    };
    // A failure is for whoever iterates or awaits `result`; nobody has to do both.
    result.then(end, end);
  }

  cancel() {
    this.#cancel();
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#pieces.length > 0) yield this.#pieces.shift();
        if (this.#over) break;
        await new Promise((resolve) => (this.#wake = resolve));
      }
      await this.result;
    } finally {
      if (!this.#over) this.cancel();
    }
  }
}

/** The folder's address, ending with a slash. */
async function folderUrl(url) {
  const text = String(url);
  const folder = text.endsWith("/") ? text : `${text}/`;
  if (!inNode) return new URL(folder, document.baseURI).href;
  if (/^(https?|file):/.test(folder)) return folder;
  return (await import("node:url")).pathToFileURL(folder).href;
}

/** The threads that were asked for, or those that pay here. */
async function chooseThreads(asked) {
  const isolated = inNode || globalThis.crossOriginIsolated;
  if (asked === undefined) {
    if (!isolated) return 1;
    const here = inNode ? (await import("node:os")).availableParallelism() : navigator.hardwareConcurrency;
    return Math.min(MOST_DEFAULT_THREADS, here);
  }
  if (!Number.isInteger(asked) || asked < 1 || asked > MOST_THREADS) {
    throw new ForerunError(`threads is ${asked}; it must be a whole number from 1 to ${MOST_THREADS}`);
  }
  if (asked === 1 || isolated) return asked;
  throw new ForerunError(
    `${asked} threads need memory that workers share, which browsers grant to isolated pages alone; serve the page ` +
      "with the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp, or " +
      "ask for 1 thread",
  );
}
