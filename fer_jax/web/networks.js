// The networks of an exported folder, run by onnxruntime-web.

import * as ort from "./ort/ort.wasm.min.mjs";
import { startWorker } from "./workers.js";

const BATCH = 32;

self.Worker = function (url, options) { // onnxruntime-web's, of its threads
  return startWorker(url, options);
};

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

// Opens a network. Its `run` takes uint8 [N, ...shape] and further inputs [N], and calls `each(outputs, row)` for
// each of the N, outputs being float32 arrays of that row by name.
export async function open(file, input, shape) {
  const url = new URL(file, import.meta.url);
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) throw new Error(`The model file ${file} is missing: export the folder again.`);
  const session = await ort.InferenceSession.create(new Uint8Array(await response.arrayBuffer()));
  const cells = shape.reduce((product, side) => product * side, 1);

  async function run(data, each, others = {}, progress = () => {}) {
    const count = data.length / cells;
    for (let done = 0; done < count; done += BATCH) {
      const size = Math.min(BATCH, count - done);
      const feeds = { [input]: new ort.Tensor("uint8", data.subarray(done * cells, (done + size) * cells), [size, ...shape]) };
      for (const [name, values] of Object.entries(others)) {
        feeds[name] = new ort.Tensor("int32", values.slice(done, done + size), [size]);
      }
      const outputs = Object.entries(await session.run(feeds));
      for (let row = 0; row < size; row++) {
        const part = ([name, { data: all }]) => [name, all.subarray((row * all.length) / size, ((row + 1) * all.length) / size)];
        each(Object.fromEntries(outputs.map(part)), done + row);
      }
      progress((done + size) / count);
    }
  }
  return run;
}
