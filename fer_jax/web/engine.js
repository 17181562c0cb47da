// Finds, classifies and explains the faces of pictures with the networks of an exported folder.

import { Detector } from "./detector.js";
import { crop } from "./geometry.js";
import { coverings, occlusion, overlay } from "./heat.js";
import { open } from "./networks.js";
import { pack } from "./pixels.js";

export class Engine {
  // facts: model.json, which fer_jax/exports/web.py writes.
  static async open() {
    const facts = await (await fetch(new URL("model.json", import.meta.url))).json();
    const { size_px } = facts.detector;
    const detect = await open("detector.onnx", "pictures", [size_px, size_px, 3]);
    const run = async (pictures) => {
      const found = [];
      await detect(pack(pictures, 3), (outputs) => found.push(outputs));
      return found;
    };
    return new Engine(facts, new Detector(run, facts.detector), await open("model.onnx", "faces", facts.image_shape));
  }

  constructor(facts, detector, classify) {
    Object.assign(this, { facts, detector, classify, last: null });
  }

  // The faces of a picture {width, height, data}, best first, in its px. quick: for a camera; looks for smaller faces
  // only where there are no large ones.
  async predict(picture, quick = false) {
    const { detector, image_shape: shape, threshold, classes } = this.facts;
    let found = [];
    for (const levels of quick ? detector.quick_levels : [detector.levels]) {
      if (!found.length) found = await this.detector.detect(picture, levels);
    }
    const crops = found.map((face) => this.#crop(picture, face, shape[0]));
    const faces = [];
    await this.classify(pack(crops, shape[2]), ({ probs }, place) => {
      const named = classes.map((name, number) => [name, probs[number]]);
      const top = [...named].sort((one, other) => other[1] - one[1]).slice(0, 2);
      const { box, score } = found[place];
      const [label, highest] = top[0];
      faces.push({ box, score, probs: Object.fromEntries(named), label, top, uncertain: highest < threshold });
    });
    this.last = { picture, found, crops, labels: faces.map((face) => classes.indexOf(face.label)) };
    return faces;
  }

  // A face of the last picture, overlaid with the heat of where its label is seen. progress: called with shares of 1.
  async explain(number, progress) {
    const { explain, image_shape: shape } = this.facts;
    const { picture, found, crops, labels } = this.last;
    const face = pack([crops[number]], shape[2]);
    const heatFn = explain.method === "grad_cam" ? this.#gradCam : this.#occlude;
    const heat = await heatFn.call(this, face, labels[number], progress);
    const large = this.#crop(picture, found[number], explain.side_px);
    overlay(large, heat, shape, explain);
    return large;
  }

  #crop(picture, face, size) {
    return crop(picture, face, this.facts.detector.framing, size);
  }

  async #gradCam(face, label, progress) {
    const { explain, image_shape } = this.facts;
    this.heat ??= await open(explain.network, "faces", image_shape);
    let found;
    await this.heat(face, ({ heat }) => (found = heat), { labels: Int32Array.of(label) }, progress);
    return found;
  }

  async #occlude(face, label, progress) {
    const { explain, image_shape: shape } = this.facts;
    this.oneView ??= await open(explain.network, "faces", shape);
    const { corners, faces } = coverings(face, shape, explain);
    const all = new Uint8Array(faces.length * face.length);
    faces.forEach((copy, place) => all.set(copy, place * face.length));
    const found = [];
    await this.oneView(all, ({ probs }) => found.push(probs[label]), {}, progress);
    return occlusion(found, corners, shape, explain);
  }
}
