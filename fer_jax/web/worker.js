// Runs the engine in a worker, so that the page answers meanwhile.
// Messages are {id, call, args}; answers {id, result}, {id, error} or {id, progress}.

import { Engine } from "./engine.js";

let engine;

const calls = {
  async load() {
    engine = await Engine.open();
    return { name: engine.facts.name, classes: engine.facts.classes };
  },

  async predict({ bitmap, quick }) {
    const size = [bitmap.width, bitmap.height];
    const picture = read(bitmap);
    const scale = size[0] / picture.width;
    const faces = await engine.predict(picture, quick);
    return { size, faces: faces.map((face) => ({ ...face, box: face.box.map((value) => value * scale) })) };
  },

  async explain({ number }, progress) {
    const { width, height, data } = await engine.explain(number, progress);
    const canvas = new OffscreenCanvas(width, height);
    const opaque = data.map((value, place) => (place % 4 === 3 ? 255 : value));
    canvas.getContext("2d").putImageData(new ImageData(opaque, width, height), 0, 0);
    return new FileReaderSync().readAsDataURL(await canvas.convertToBlob());
  },
};

function read(bitmap) {
  const share = Math.min(1, engine.facts.longest_px / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * share)));
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "white"; // under what is transparent
  pen.fillRect(0, 0, width, height);
  pen.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return pen.getImageData(0, 0, width, height);
}

// One call after another: a network runs one batch at a time.
let queue = Promise.resolve();
self.onmessage = ({ data: { id, call, args } }) => {
  queue = queue.then(async () => {
    try {
      const progress = (share) => self.postMessage({ id, progress: share });
      self.postMessage({ id, result: await calls[call](args, progress) });
    } catch (error) {
      self.postMessage({ id, error: error.message });
    }
  });
};
