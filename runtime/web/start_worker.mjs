// Workers of browsers and of Node behind one face.

export const inNode = typeof process === "object" && Boolean(process.versions?.node);

/** Starts a script of this folder as a worker. */
export async function startWorker(script) {
  const url = new URL(script, import.meta.url);
  if (inNode) {
    const { Worker: Thread } = await import("node:worker_threads");
    // Node's own options are the program's: --input-type, which comes with code on the command line, fails for a file.
    const thread = new Thread(url, { execArgv: [] });
    return {
      post: (message) => thread.postMessage(message),
      onMessage: (listen) => thread.on("message", listen),
      onError: (listen) => thread.on("error", listen),
      terminate: () => thread.terminate(),
    };
  }
  const worker = new Worker(url, { type: "module" });
  return {
    post: (message) => worker.postMessage(message),
    onMessage: (listen) => worker.addEventListener("message", ({ data }) => listen(data)),
    onError: (listen) => worker.addEventListener("error", listen),
    terminate: () => worker.terminate(),
  };
}

/** What a worker talks to whoever started it by. */
export async function ownPort() {
  if (!inNode) {
    return {
      post: (message) => globalThis.postMessage(message),
      onMessage: (listen) => (globalThis.onmessage = ({ data }) => listen(data)),
    };
  }
  const { parentPort } = await import("node:worker_threads");
  return {
    post: (message) => parentPort.postMessage(message),
    onMessage: (listen) => parentPort.on("message", listen),
  };
}
