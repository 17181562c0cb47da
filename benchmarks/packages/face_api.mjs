// Scores faces with the expression network of @vladmandic/face-api on its WASM backend.
// node face_api.mjs <node_modules> <faces.u8: n x 48 x 48 bytes> <jobs as JSON>; prints a line of JSON a job.
import { createRequire } from "node:module";
import fs from "node:fs";
import path from "node:path";

const [modules, file, jobs] = process.argv.slice(2);
const require = createRequire(path.resolve(modules, "index.js"));
const tf = require("@tensorflow/tfjs");
require("@tensorflow/tfjs-backend-wasm");
const faceapi = require("@vladmandic/face-api/dist/face-api.node-wasm.js");
const SIDE = 48;
const NAMES = { angry: "angry", disgusted: "disgust", fearful: "fear", happy: "happy", sad: "sad", surprised: "surprise", neutral: "neutral" };

await tf.setBackend("wasm");
await tf.ready();
await faceapi.nets.faceExpressionNet.loadFromDisk(path.join(modules, "@vladmandic/face-api/model"));
const bytes = new Uint8Array(fs.readFileSync(file));

function picture(number) {
  const grey = bytes.subarray(number * SIDE * SIDE, (number + 1) * SIDE * SIDE);
  const colours = new Float32Array(3 * grey.length);
  grey.forEach((value, place) => colours.fill(value, 3 * place, 3 * place + 3));
  return tf.tensor3d(colours, [SIDE, SIDE, 3]);
}

async function predict(first, count) {
  const pictures = Array.from({ length: count }, (_, place) => picture(first + place));
  const found = await faceapi.nets.faceExpressionNet.predictExpressions(count === 1 ? pictures[0] : pictures);
  pictures.forEach((tensor) => tensor.dispose());
  return [found].flat().map((one) => NAMES[one.asSortedArray()[0].expression]);
}

console.log(JSON.stringify({ first: (await predict(0, 1))[0] }));
for (const { batch, count } of JSON.parse(jobs)) {
  await predict(0, Math.min(batch, count));
  const started = performance.now();
  const labels = [];
  for (let first = 0; first < count; first += batch) labels.push(...(await predict(first, Math.min(batch, count - first))));
  console.log(JSON.stringify({ batch, seconds: (performance.now() - started) / 1000, labels }));
}
