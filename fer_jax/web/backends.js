// Who answers: the server that sent this page, or this browser itself. Both give the JSON of `fer-jax predict`:
// {size, faces: [{box, score, probs, label, top, uncertain}]}.
//
// A shot is {bitmap: ImageBitmap, blob: the picture's file, or null for a frame}; `predict` closes its bitmap.

import { startWorker } from "./workers.js";

export async function connect() {
  const config = await getJson("config.json");
  return config.backend === "browser" ? InBrowser.open() : Service.open(config);
}

async function getJson(file) {
  const response = await fetch(file).catch(() => null);
  const fix = "serve this folder over HTTP, for example with python -m http.server --bind 127.0.0.1";
  if (!response?.ok) throw new Error(`${file} cannot be read: ${fix}.`);
  return response.json();
}

class InBrowser {
  place = "Pictures and frames stay on this device: this page does all the work, and sends nothing anywhere.";
  needsToken = false;

  static async open() {
    const backend = new InBrowser();
    backend.worker = startWorker("worker.js");
    backend.calls = new Map();
    backend.worker.onmessage = ({ data }) => backend.#answer(data);
    backend.worker.onerror = () => {
      for (const { reject } of backend.calls.values()) {
        reject(new Error("The networks cannot be loaded: export the folder again, or use a newer browser."));
      }
    };
    backend.facts = await backend.#call("load");
    return backend;
  }

  predict({ bitmap }, { quick }) {
    return this.#call("predict", { bitmap, quick }, [bitmap]);
  }

  explain(blob, number, progress) {
    return this.#call("explain", { number }, [], progress);
  }

  #call(call, args = {}, transfer = [], progress = () => {}) {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    return new Promise((resolve, reject) => {
      this.calls.set(id, { resolve, reject, progress });
      this.worker.postMessage({ id, call, args }, transfer);
    });
  }

  #answer({ id, result, error, progress }) {
    const waiting = this.calls.get(id);
    if (progress !== undefined) return waiting.progress(progress);
    this.calls.delete(id);
    return error ? waiting.reject(new Error(error)) : waiting.resolve(result);
  }
}

class Service {
  place = "Pictures and frames go to the server that this page comes from, and nowhere else.";
  facts = {};
  token = "";

  static async open({ token_required }) {
    const backend = new Service();
    backend.needsToken = token_required;
    if (!token_required) await backend.useToken("");
    return backend;
  }

  // Throws unless the server takes the token.
  async useToken(token) {
    this.token = token;
    this.facts = await this.#ask("v1/model");
  }

  async predict({ bitmap, blob }) {
    const body = blob ?? (await toJpeg(bitmap));
    bitmap.close();
    return this.#post(body, false);
  }

  async explain(blob, number) {
    if (this.explained?.blob !== blob) this.explained = { blob, answer: this.#post(blob, true) };
    return (await this.explained.answer).faces[number].explanation;
  }

  #post(body, explain) {
    const headers = { "Content-Type": body.type || "application/octet-stream" };
    return this.#ask(`v1/predict?explain=${explain}`, { method: "POST", body, headers });
  }

  async #ask(url, { headers = {}, ...options } = {}) {
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    const response = await fetch(url, { ...options, headers }).catch(() => null);
    if (!response) throw new Error("The server does not answer: check that it runs.");
    if (response.status === 401) throw new Error("The server refused the token: enter the one that it was started with.");
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(`The server refused: ${answer.error ?? `status ${response.status}`}.`);
    return answer;
  }
}

async function toJpeg(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
}
