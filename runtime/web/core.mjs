// The core in WebAssembly, one bundle at a time: a thin layer over forerun.h, which says what everything means.
// Offsets of its structures are for 32-bit pointers; runtime/native/wasm/layout.cpp holds them to it.
import { gpuCalls } from "./gpu.mjs";

const FOLDER = "model";
const MOST_DRAWN = 64; // FORERUN_MOST_DRAWN
const FINISHES = [null, "stop", "length", "context_full", "cancelled"]; // forerun_finish
const OUT_OF_MEMORY = 2;
const PAGE_BYTES = 1 << 16;
// As compiler/web_module.py tells the linker.
const FIRST_SHARED_PAGES = (1 << 22) / PAGE_BYTES;
const MOST_PAGES = (1 << 16) - 1;
const STACK_BYTES = 1 << 20;
const ALIGNMENT = 64; // of more than any thread-local variable
// Calls that may wait for a GPU, which suspends the core.
const WAITING = [
  "forerun_open",
  "forerun_session_create",
  "forerun_sequence_fork",
  "forerun_sequence_save",
  "forerun_generate",
  "forerun_generate_start",
  "forerun_generate_next",
  "forerun_generate_keep",
  "forerun_cancel",
  "forerun_forward",
  "forerun_commit",
  "forerun_rewind",
  "forerun_read_kv",
  "forerun_draw",
  "forerun_tune",
  "forerun_measure_device_copy",
];
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A failure of the core: its text, and the number of forerun_status. */
export class CoreFailure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export class Core {
  /** Of model.wasm, or of model-threads.wasm on a memory that sharedMemory made; `found` is what findGpu returned. */
  constructor(module, memory = null, found = {}) {
    this.exports = instantiate(module, memory, found).exports;
    this.exports._initialize();
    this.handles = {};
    const suspended = (call) => (found.gpu ? WebAssembly.promising(call) : call);
    this.waiting = Object.fromEntries(WAITING.map((name) => [name, suspended(this.exports[name])]));
  }

  /** Room for what helper `number` has of its own: its stack and thread-local variables. It is never given back. */
  helperRoom(number) {
    const { malloc, __tls_size } = this.exports;
    const bytes = STACK_BYTES + __tls_size.value + ALIGNMENT;
    const address = malloc(bytes) >>> 0;
    if (address === 0) throw new CoreFailure(`no memory for a helper's stack (${bytes} bytes)`, OUT_OF_MEMORY);
    const stackEnd = Math.ceil(address / ALIGNMENT) * ALIGNMENT + STACK_BYTES;
    return { number, stackEnd, threadLocals: stackEnd };
  }

  /** Room for a file of the bundle in the core's memory, to be filled before `open`. Returns its address. */
  giveFile(name, bytes) {
    const address = this.withTexts([`${FOLDER}/${name}`], (path) => this.exports.forerun_give_file(path, bytes) >>> 0);
    if (address === 0) throw this.failure(OUT_OF_MEMORY);
    return address;
  }

  /** A view of memory that is valid until the core allocates. */
  bytes(address, count) {
    return new Uint8Array(this.exports.memory.buffer, address, count);
  }

  /** Opens the files given as a bundle for a target, or its best one for null, with a session of `capacity` positions.
   * Returns facts about the model. */
  async open(threads, capacity, target = null) {
    const { exports, handles, waiting } = this;
    handles.bundle = await this.make((out) =>
      this.withTexts([FOLDER, target], (path, name) => waiting.forerun_open(path, name, out)));
    const model = this.withRoom(32, (room) => {
      this.check(exports.forerun_bundle_model(handles.bundle, room));
      return { vocabularySize: this.int32(room + 8), contextLength: this.int32(room + 12) };
    });
    handles.session = await this.withRoom(16, (options) => {
      this.setInt32s(options, [1, Math.min(capacity || model.contextLength, model.contextLength), threads, 0]);
      return this.make((out) => waiting.forerun_session_create(handles.bundle, options, out));
    });
    this.sequence = this.make((out) => exports.forerun_sequence_create(handles.session, out));
    handles.generator = this.make((out) => exports.forerun_generator_create(handles.session, out));
    handles.text = this.make((out) => exports.forerun_text_open(handles.bundle, out));
    handles.decoder = this.make((out) => exports.forerun_decoder_create(handles.text, 0, 0, out));
    return { ...model, ...this.readFacts() };
  }

  readFacts() {
    const { exports, handles } = this;
    const capacity = this.withRoom(16, (options) => {
      this.check(exports.forerun_session_describe(handles.session, options));
      return { capacity: this.int32(options + 4), threads: this.int32(options + 8) };
    });
    return this.withRoom(24, (facts) => {
      this.check(exports.forerun_text_describe(handles.text, facts));
      this.bosId = this.int32(facts + 8) ? this.int32(facts + 4) : null;
      this.endIds = this.int32s(this.uint32(facts + 20), this.int32(facts + 16));
      const target = this.readText(exports.forerun_bundle_target(handles.bundle) >>> 0);
      const device = this.readText(exports.forerun_bundle_device(handles.bundle) >>> 0) || null;
      return { ...capacity, target, device, hasChat: this.int32(facts + 12) === 1, endIds: this.endIds };
    });
  }

  /** Ids of a prompt: a text, messages of a role and a content, or the ids themselves. */
  promptIds(prompt) {
    if (typeof prompt === "string") {
      const ids = this.encode(prompt);
      return this.bosId === null ? ids : [this.bosId, ...ids];
    }
    if (prompt.every((part) => Number.isInteger(part))) return [...prompt];
    return this.encode(this.chatPrompt(prompt));
  }

  encode(text) {
    const utf8 = encoder.encode(text);
    return this.withTexts([text], (from) =>
      this.fill(4, utf8.length + 16, (to, room, count) =>
        this.exports.forerun_encode(this.handles.text, from, utf8.length, to, room, count), (at, n) => this.int32s(at, n)));
  }

  chatPrompt(messages) {
    const texts = messages.flatMap(({ role, content }) => [role, content]);
    const contents = messages.map(({ content }) => encoder.encode(content).length);
    const guess = contents.reduce((sum, bytes) => sum + bytes + 64, 256);
    return this.withTexts(texts, (...at) =>
      this.withRoom(12 * messages.length, (list) => {
        this.setInt32s(list, messages.flatMap((_, i) => [at[2 * i], at[2 * i + 1], contents[i]]));
        return this.fill(1, guess, (to, room, count) =>
          this.exports.forerun_chat_prompt(this.handles.text, list, messages.length, to, room, count),
        (start, bytes) => decoder.decode(this.bytes(start, bytes).slice()));
      }));
  }

  /** Begins an answer; `wanted` is as forerun.d.mts says of its options. */
  async start(ids, wanted) {
    this.left = wanted.maxTokens;
    this.ends = wanted.ignoreEnd ? [] : this.endIds;
    const specs = [wanted.drafter, wanted.shape, wanted.exit].map((spec) => spec ?? null);
    await this.withTexts(specs, (...texts) =>
      this.withRoom(4 * ids.length, (prompt) =>
        this.withRoom(4 * this.ends.length, (ends) =>
          this.withRoom(64, (generation) => {
            this.setInt32s(prompt, ids);
            this.setInt32s(ends, this.ends);
            this.setInt32s(generation, texts);
            const view = this.view();
            view.setFloat64(generation + 16, wanted.temperature, true);
            view.setInt32(generation + 24, wanted.topK, true);
            view.setFloat64(generation + 32, wanted.topP, true);
            view.setBigUint64(generation + 40, BigInt(wanted.seed), true);
            this.setInt32s(generation + 48, [wanted.maxTokens, ends, this.ends.length]);
            const { generator } = this.handles;
            return this.settle(
              this.waiting.forerun_generate_start(generator, this.sequence, prompt, ids.length, generation));
          }))));
  }

  /** One step of the answer: ids that were kept, the text that they make certain, and why it ended, or null. */
  step() {
    const { generator } = this.handles;
    const { forerun_generate_next: next, forerun_generate_keep: keep } = this.waiting;
    return this.withRoom(4 * MOST_DRAWN + 8, async (room) => {
      const [count, finish] = [room + 4 * MOST_DRAWN, room + 4 * MOST_DRAWN + 4];
      this.check(await next(generator, this.sequence, room, count, finish));
      const drawn = this.int32s(room, this.int32(count));
      if (this.int32(finish) !== 0) return { ids: [], text: this.flush(), finish: FINISHES[this.int32(finish)] };
      if (drawn.length === 0) return { ids: [], text: "", finish: null };
      const end = drawn.findIndex((id) => this.ends.includes(id));
      const ids = drawn.slice(0, Math.min(end < 0 ? drawn.length : end + 1, this.left));
      this.left -= ids.length;
      this.check(await keep(generator, this.sequence, ids.length));
      const stopped = end >= 0 && end < ids.length;
      const text = this.feed(stopped ? ids.slice(0, -1) : ids);
      const over = stopped ? "stop" : this.left === 0 ? "length" : null;
      return { ids, text: over ? text + this.flush() : text, finish: over };
    });
  }

  /** Ends an answer that was given up; what the decoder held back is dropped. */
  async abandon() {
    await this.waiting.forerun_cancel(this.handles.generator, this.sequence);
    this.flush();
  }

  feed(ids) {
    return ids.map((id) => this.piece((to) => this.exports.forerun_decoder_feed(this.handles.decoder, id, to))).join("");
  }

  flush() {
    return this.piece((to) => this.exports.forerun_decoder_flush(this.handles.decoder, to));
  }

  piece(call) {
    return this.withRoom(12, (piece) => {
      this.check(call(piece));
      return decoder.decode(this.bytes(this.uint32(piece), this.int32(piece + 4)).slice());
    });
  }

  statistics() {
    return this.withRoom(4096, (room) => {
      this.check(this.exports.forerun_generate_statistics(this.handles.generator, this.sequence, room));
      const view = this.view();
      const counts = ["promptTokens", "cachedTokens", "generatedTokens", "verifyCalls", "drafted", "accepted"];
      const times = ["prefillMs", "draftMs", "verifyMs", "commitMs"];
      return Object.fromEntries([
        ...counts.map((name, i) => [name, Number(view.getBigInt64(room + 8 * i, true))]),
        ...times.map((name, i) => [name, view.getFloat64(room + 48 + 8 * i, true)]),
      ]);
    });
  }

  // ---- Memory ---------------------------------------------------------------------------------------------

  view() {
    return new DataView(this.exports.memory.buffer);
  }

  int32(address) {
    return this.view().getInt32(address, true);
  }

  /** An address: above 2 GiB it is no int32. */
  uint32(address) {
    return this.view().getUint32(address, true);
  }

  int32s(address, count) {
    return Array.from(new Int32Array(this.exports.memory.buffer, address, count));
  }

  setInt32s(address, values) {
    new Int32Array(this.exports.memory.buffer, address, values.length).set(values);
  }

  readText(address) {
    const memory = this.bytes(address, this.exports.memory.buffer.byteLength - address);
    return decoder.decode(memory.slice(0, memory.indexOf(0)));
  }

  /** Runs `use(address)` with zeroed memory of so many bytes, which is freed after it, or after its promise. */
  withRoom(bytes, use) {
    const address = this.exports.malloc(Math.max(bytes, 1)) >>> 0;
    if (address === 0) throw new CoreFailure(`no memory for ${bytes} bytes`, OUT_OF_MEMORY);
    const free = () => this.exports.free(address);
    let result;
    try {
      this.bytes(address, bytes).fill(0);
      result = use(address);
    } catch (error) {
      free();
      throw error;
    }
    if (result instanceof Promise) return result.finally(free);
    free();
    return result;
  }

  /** Runs `use` with the addresses of texts that end with NUL; null stays a null pointer. */
  withTexts(texts, use) {
    const all = texts.map((text) => (text === null ? null : encoder.encode(`${text}\0`)));
    const size = all.reduce((sum, utf8) => sum + (utf8?.length ?? 0), 0);
    return this.withRoom(size, (room) => {
      let next = room;
      const addresses = all.map((utf8) => {
        if (utf8 === null) return 0;
        this.bytes(next, utf8.length).set(utf8);
        next += utf8.length;
        return next - utf8.length;
      });
      return use(...addresses);
    });
  }

  /** What `call(array, capacity, count)` writes, read by `read(array, count)`; `guess` elements nearly always do. */
  fill(elementBytes, guess, call, read) {
    return this.withRoom(4, (count) => {
      const attempt = (capacity) =>
        this.withRoom(elementBytes * capacity, (array) => {
          const status = call(array, capacity, count);
          if (this.uint32(count) > capacity) return null;
          this.check(status);
          return read(array, this.uint32(count));
        });
      return attempt(guess) ?? attempt(this.uint32(count));
    });
  }

  /** The handle, or number, that `create(out)` writes, or a promise of it if it returns one. */
  make(create) {
    return this.withRoom(4, (out) => {
      const status = create(out);
      if (status instanceof Promise) return this.settle(status).then(() => this.int32(out));
      this.check(status);
      return this.int32(out);
    });
  }

  /** Checks a status that a call may have waited for. */
  async settle(status) {
    this.check(await status);
  }

  check(status) {
    if (status !== 0) throw this.failure(status);
  }

  failure(status) {
    return new CoreFailure(this.readText(this.exports.forerun_last_error() >>> 0), status);
  }
}

/** Memory for model-threads.wasm. */
export function sharedMemory() {
  return new WebAssembly.Memory({ initial: FIRST_SHARED_PAGES, maximum: MOST_PAGES, shared: true });
}

/** An instance of the core with a memory of its own, or on `memory`; `found` is what findGpu returned. */
export function instantiate(module, memory, found = {}) {
  const own = () => instance.exports.memory;
  const imports = { env: { memory }, forerun_gpu: gpuCalls(found, own), wasi_snapshot_preview1: systemCalls(own) };
  const instance = new WebAssembly.Instance(module, imports);
  return instance;
}

/** What the C library asks of the system (WASI): a clock, and somewhere to write when it aborts. */
function systemCalls(memory) {
  const bad = 8; // EBADF: there are no other files
  return {
    clock_time_get(_clock, _precision, result) {
      const ns = BigInt(Math.round(performance.now() * 1e6));
      new DataView(memory().buffer).setBigUint64(result, ns, true);
      return 0;
    },
    fd_write(_file, vectors, count, written) {
      const view = new DataView(memory().buffer);
      let bytes = 0;
      for (let i = 0; i < count; i += 1) {
        const [at, size] = [view.getUint32(vectors + 8 * i, true), view.getUint32(vectors + 8 * i + 4, true)];
        console.error(decoder.decode(new Uint8Array(memory().buffer, at, size).slice()));
        bytes += size;
      }
      view.setUint32(written, bytes, true);
      return 0;
    },
    fd_close: () => bad,
    fd_seek: () => bad,
  };
}
