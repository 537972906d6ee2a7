// Computes beside the core that start_core.mjs started it for: an instance of the core on the same memory that does a helper's work
// until it is terminated.
//   in   { module, memory, number, stackEnd, threadLocals }
//   out  "ready"
import { instantiate } from "./core.mjs";
import { ownPort } from "./start_worker.mjs";

const port = await ownPort();
port.onMessage(({ module, memory, number, stackEnd, threadLocals }) => {
  const { exports } = instantiate(module, memory);
  exports.__stack_pointer.value = stackEnd;
  exports.__wasm_init_tls(threadLocals);
  port.post("ready");
  exports.forerun_help(number);
});
