// What a page that is not isolated can load: returns the threads of a plain load and the error of one with 2.
import { Forerun } from "/forerun.mjs";

export async function runPage() {
  const model = await Forerun.load("/");
  const { threads } = model.facts;
  model.close();
  const error = await Forerun.load("/", { threads: 2 }).then(() => null, ({ message }) => message);
  return { isolated: crossOriginIsolated, threads, error };
}
