// A browser's GPU for the core: what runtime/native/wasm/device/gpu.h imports. The core calls these as it computes; only
// `finish` waits, and suspends the core meanwhile.
const UNIFORM_STEP = 256; // every device lets uniforms begin at multiples of it
const MOST_LAUNCHES = 1024; // of one submission
const WORD = 4;
const OUT_OF_MEMORY = 2; // FORERUN_OUT_OF_MEMORY
const DEVICE = 34; // FORERUN_DEVICE
const MOST_PIECE = 2 ** 32 - WORD; // that the core can name
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The page's GPU, or why there is none; software that stands for one is taken only where `anything` is. */
export async function findGpu(anything) {
  if (!("Suspending" in WebAssembly)) return { reason: "this browser does not suspend WebAssembly (JSPI); update it" };
  if (!globalThis.navigator?.gpu) return { reason: "there is no WebGPU here" };
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (adapter === null) return { reason: "WebGPU finds no GPU here" };
  const { info } = adapter;
  const name = [info.vendor, info.architecture, info.description].filter(Boolean).join(" ") || "GPU";
  if (info.isFallbackAdapter && !anything) return { reason: `WebGPU has only the processor here (${name})` };
  const wanted = ["maxBufferSize", "maxStorageBufferBindingSize", "maxComputeWorkgroupStorageSize"];
  const requiredLimits = Object.fromEntries(wanted.map((limit) => [limit, adapter.limits[limit]]));
  try {
    return { gpu: new Gpu(await adapter.requestDevice({ requiredLimits }), name) };
  } catch (error) {
    return { reason: `${name} cannot be opened: ${error.message}` };
  }
}

/** Things by number, from 1 on. */
class Numbered {
  #things = new Map();
  #last = 0;

  add(thing) {
    this.#last += 1;
    this.#things.set(this.#last, thing);
    return this.#last;
  }

  get(number) {
    return this.#things.get(number);
  }

  take(number) {
    const thing = this.#things.get(number);
    this.#things.delete(number);
    return thing;
  }
}

class Gpu {
  failure = null; // the first: { status, message }
  #checks = []; // promises of what error scopes have found

  constructor(device, name) {
    this.device = device;
    this.name = name;
    const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
    this.mostBytes = Math.min(maxBufferSize, maxStorageBufferBindingSize, MOST_PIECE);
    device.lost.then(({ message }) => this.fail(DEVICE, `it was lost: ${message || "the browser does not say why"}`));
    device.addEventListener("uncapturederror", ({ error }) => this.fail(DEVICE, error.message));
  }

  fail(status, message) {
    this.failure ??= { status, message };
  }

  /** Runs `make`; what is wrong with what it made is known after `settle`. */
  checked(make) {
    const kinds = { "out-of-memory": OUT_OF_MEMORY, validation: DEVICE, internal: DEVICE };
    for (const kind of Object.keys(kinds)) this.device.pushErrorScope(kind);
    const made = make();
    for (const status of Object.values(kinds).reverse()) {
      this.#checks.push(this.device.popErrorScope().then((error) => error && this.fail(status, error.message)));
    }
    return made;
  }

  async settle() {
    const checks = this.#checks;
    this.#checks = [];
    await Promise.all(checks);
  }

  makeBuffer(size, usage) {
    return this.checked(() => this.device.createBuffer({ size, usage }));
  }

  /** A kernel that is whole after `settle`: the browser compiles several at a time. */
  makeKernel(entryPoint, code) {
    const kernel = { pipeline: null, layout: null };
    const module = this.device.createShaderModule({ code });
    const made = this.device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint } });
    const take = (pipeline) => Object.assign(kernel, { pipeline, layout: pipeline.getBindGroupLayout(0) });
    this.#checks.push(made.then(take).catch((error) => this.fail(DEVICE, `${entryPoint}: ${error.message}`)));
    return kernel;
  }
}

/** Collects commands and submits them when the core writes or waits. The numbers of a launch are uniforms; its bind
 * group is kept for the launch of the same number in the next submission, which nearly always binds the same. */
export class Queue {
  #gpu;
  #device;
  #encoder = null;
  #pass = null;
  #uniforms;
  #numbers = new Int32Array((MOST_LAUNCHES * UNIFORM_STEP) / WORD);
  #launches = 0;
  #bound = [];
  #staging = []; // { buffer, size, used, reads: [{ address, bytes, offset }] }
  #bounce = null;

  constructor(gpu) {
    this.#gpu = gpu;
    this.#device = gpu.device;
    this.#uniforms = gpu.makeBuffer(this.#numbers.byteLength, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  }

  close() {
    for (const buffer of [this.#uniforms, this.#bounce, ...this.#staging.map((one) => one.buffer)]) buffer?.destroy();
  }

  #commands() {
    this.#encoder ??= this.#device.createCommandEncoder();
    return this.#encoder;
  }

  #endPass() {
    this.#pass?.end();
    this.#pass = null;
  }

  #submit() {
    if (this.#encoder === null) return;
    this.#endPass();
    const numbers = (this.#launches * UNIFORM_STEP) / WORD;
    if (numbers > 0) this.#device.queue.writeBuffer(this.#uniforms, 0, this.#numbers, 0, numbers);
    this.#device.queue.submit([this.#encoder.finish()]);
    this.#encoder = null;
    this.#launches = 0;
  }

  write(buffer, offset, data) {
    if (data.length === 0) return;
    this.#submit(); // what was told before comes before
    const whole = data.length - (data.length % WORD);
    if (whole > 0) this.#device.queue.writeBuffer(buffer, offset, data, 0, whole);
    if (whole === data.length) return;
    const last = new Uint8Array(WORD);
    last.set(data.subarray(whole));
    this.#device.queue.writeBuffer(buffer, offset + whole, last);
  }

  read(buffer, offset, address, bytes) {
    if (bytes === 0) return;
    let last = this.#staging.at(-1);
    if (last === undefined || last.used + bytes > last.size) {
      const size = Math.max(bytes, 2 * (last?.size ?? 0));
      const memory = this.#gpu.makeBuffer(size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
      last = { buffer: memory, size, used: 0, reads: [] };
      this.#staging.push(last);
    }
    this.#endPass();
    this.#commands().copyBufferToBuffer(buffer, offset, last.buffer, last.used, bytes);
    last.reads.push({ address, bytes, offset: last.used });
    last.used += bytes;
  }

  copy(from, source, to, sink, bytes) {
    if (bytes === 0) return;
    this.#endPass();
    if (from !== to) {
      this.#commands().copyBufferToBuffer(from, source, to, sink, bytes);
      return;
    }
    // Within one buffer nothing can be copied.
    if ((this.#bounce?.size ?? 0) < bytes) {
      this.#submit();
      this.#bounce?.destroy();
      this.#bounce = this.#gpu.makeBuffer(bytes, GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
    }
    this.#commands().copyBufferToBuffer(from, source, this.#bounce, 0, bytes);
    this.#commands().copyBufferToBuffer(this.#bounce, 0, to, sink, bytes);
  }

  launch(kernel, buffers, numbers, columns, rows) {
    if (this.#launches === MOST_LAUNCHES) this.#submit();
    const first = (this.#launches * UNIFORM_STEP) / WORD;
    this.#numbers.set(numbers, first);
    this.#numbers[first + numbers.length] = columns - 1; // the last workgroup along x, as the sources want it
    const group = this.#bind(kernel, buffers);
    this.#pass ??= this.#commands().beginComputePass();
    this.#pass.setPipeline(kernel.pipeline);
    this.#pass.setBindGroup(0, group);
    this.#pass.dispatchWorkgroups(columns, rows);
    this.#launches += 1;
  }

  #bind(kernel, buffers) {
    const number = this.#launches;
    const kept = this.#bound[number];
    if (kept?.kernel === kernel && buffers.every((buffer, i) => buffer === kept.buffers[i])) return kept.group;
    const uniform = { buffer: this.#uniforms, offset: number * UNIFORM_STEP, size: UNIFORM_STEP };
    const resources = [...buffers.map((buffer) => ({ buffer })), uniform];
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    const group = this.#device.createBindGroup({ layout: kernel.layout, entries });
    this.#bound[number] = { kernel, buffers, group };
    return group;
  }

  /** Waits for all of it; `deliver(address, bytes)` takes what was read. */
  async finish(deliver) {
    this.#submit();
    const read = this.#staging.filter(({ used }) => used > 0);
    try {
      const mapped = read.map(({ buffer, used }) => buffer.mapAsync(GPUMapMode.READ, 0, used));
      await Promise.all(mapped.length > 0 ? mapped : [this.#device.queue.onSubmittedWorkDone()]);
    } catch (error) {
      this.#gpu.fail(DEVICE, error.message);
    }
    await this.#gpu.settle();
    for (const one of this.#gpu.failure === null ? read : []) {
      const data = new Uint8Array(one.buffer.getMappedRange(0, one.used));
      for (const { address, bytes, offset } of one.reads) deliver(address, data.subarray(offset, offset + bytes));
      one.buffer.unmap();
      one.reads = [];
      one.used = 0;
    }
    // The last one is the largest.
    while (this.#staging.length > 1) this.#staging.shift().buffer.destroy();
  }
}

/** What the core imports, for a GPU or for the reason why there is none; `memory()` is the core's. */
export function gpuCalls({ gpu = null, reason = "the page asked for none" }, memory) {
  const buffers = new Numbered();
  const kernels = new Numbered();
  const queues = new Numbered();
  const bytes = (address, count) => new Uint8Array(memory().buffer, address >>> 0, count >>> 0);
  const give = (text, address, capacity) => {
    const utf8 = encoder.encode(text).subarray(0, capacity - 1);
    bytes(address, utf8.length).set(utf8);
    bytes(address, capacity)[utf8.length] = 0;
  };
  const take = (address) => {
    const rest = new Uint8Array(memory().buffer, address >>> 0);
    return decoder.decode(rest.slice(0, rest.indexOf(0)));
  };
  const usage = gpu && GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

  async function finish(queue, text, capacity) {
    await queues.get(queue).finish((address, data) => bytes(address, data.length).set(data));
    if (gpu.failure === null) return 0;
    give(gpu.failure.message, text, capacity);
    return gpu.failure.status;
  }

  return {
    describe(text, capacity, mostBytes) {
      give(gpu ? gpu.name : `no GPU can be used: ${reason}`, text, capacity);
      new DataView(memory().buffer).setUint32(mostBytes, gpu?.mostBytes ?? 0, true);
      return gpu ? 1 : 0;
    },
    make_kernel: (name, source) => kernels.add(gpu.makeKernel(take(name), take(source))),
    release_kernel: (kernel) => kernels.take(kernel),
    reserve: (size) => buffers.add(gpu.makeBuffer(Math.ceil((size >>> 0) / WORD) * WORD, usage)),
    release: (buffer) => buffers.take(buffer).destroy(),
    open_queue: () => queues.add(new Queue(gpu)),
    close_queue: (queue) => queues.take(queue).close(),
    write: (queue, buffer, offset, data, count) =>
      queues.get(queue).write(buffers.get(buffer), offset >>> 0, bytes(data, count)),
    read: (queue, buffer, offset, address, count) =>
      queues.get(queue).read(buffers.get(buffer), offset >>> 0, address, count >>> 0),
    copy: (queue, from, source, to, sink, count) =>
      queues.get(queue).copy(buffers.get(from), source >>> 0, buffers.get(to), sink >>> 0, count >>> 0),
    launch(queue, kernel, given, count, columns, rows) {
      const fields = new Int32Array(memory().buffer, given, 2 * count); // an argument's memory, then its number
      const [bound, numbers] = [[], []];
      for (let i = 0; i < 2 * count; i += 2) {
        if (fields[i] === 0) numbers.push(fields[i + 1]);
        else bound.push(buffers.get(fields[i]));
      }
      queues.get(queue).launch(kernels.get(kernel), bound, numbers, columns, rows);
    },
    finish: gpu ? new WebAssembly.Suspending(finish) : () => DEVICE,
  };
}
