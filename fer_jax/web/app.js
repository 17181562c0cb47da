// The page: takes pictures and frames from the user, has a backend predict them, and shows the answers.

import { connect } from "./backends.js";
import { Camera } from "./camera.js";
import { Chart } from "./chart.js";
import { drawBoxes, listFaces, summary } from "./view.js";

const SAY_EVERY_MS = 5000; // of the camera, to screen readers
const RATE_FRAMES = 20; // frames per second are the mean over so many

const byId = (id) => document.getElementById(id);
const [stage, picture, video] = [byId("stage"), byId("picture"), byId("video")];
const camera = new Camera(video);
const chart = new Chart(document.querySelector("#timeline svg"));
let backend;
let shown = 0; // the number of the latest picture or camera start; answers for earlier ones are dropped

const say = (text) => (byId("status").textContent = text);
const complain = (error) => (byId("problem").textContent = error ? error.message : "");

function show(element) {
  shown += 1;
  complain(null);
  drawBoxes([], [1, 1]);
  byId("hint").hidden = true;
  byId("shot").hidden = false;
  stage.classList.add("full");
  for (const other of [picture, video]) other.hidden = other !== element;
  byId("timeline").hidden = byId("rate").hidden = element !== video;
  return shown;
}

async function usePicture(blob) {
  if (!blob || !backend) return;
  stopCamera();
  const number = show(picture);
  const url = URL.createObjectURL(blob);
  picture.onload = picture.onerror = () => URL.revokeObjectURL(url);
  picture.src = url;
  say("Looking for faces…");
  listFaces([], null);
  try {
    const bitmap = await open(blob);
    const { faces, size } = await backend.predict({ bitmap, blob }, { quick: false });
    if (number !== shown) return;
    drawBoxes(faces, size);
    listFaces(faces, (face, progress) => explain(blob, number, face, progress));
    say(summary(faces));
  } catch (error) {
    if (number !== shown) return;
    byId("shot").hidden = true;
    say("");
    complain(error);
  }
}

async function explain(blob, number, face, progress) {
  try {
    const url = await backend.explain(blob, face, progress);
    return number === shown ? url : null;
  } catch (error) {
    complain(error);
    return null;
  }
}

async function open(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    const head = new TextDecoder("latin1").decode(await blob.slice(4, 12).arrayBuffer());
    if (/^ftyp(hei|hev|mif)/.test(head)) throw new Error("This browser cannot read HEIC: save the picture as JPEG.");
    throw new Error(`${blob.name || "This"} is not a picture that the browser can read: choose a JPEG, PNG or WebP.`);
  }
}

async function startCamera(device) {
  try {
    if (!(await camera.start(device))) return;
  } catch (error) {
    stopCamera();
    say("");
    return complain(error);
  }
  const number = show(video);
  chart.clear();
  listFaces([], null);
  say("The camera is on.");
  showButtons(true);
  const options = (await camera.devices()).map(({ id, label, chosen }) => new Option(label, id, chosen, chosen));
  if (number !== shown) return;
  byId("device").replaceChildren(...options);
  byId("device-label").hidden = options.length < 2;
  await watch(number).catch((error) => {
    if (!camera.isOn || number !== shown) return; // another camera is being opened, or something else is shown
    stopCamera();
    complain(error);
  });
}

// Predicts the latest frame, again and again, while this start of the camera is the latest.
async function watch(number) {
  const times = [];
  let [saidAt, said] = [0, ""];
  while (camera.isOn && number === shown) {
    await new Promise(requestAnimationFrame); // waits while the page is not visible
    if (!camera.isOn || number !== shown) return;
    const bitmap = await createImageBitmap(video);
    const { faces, size } = await backend.predict({ bitmap, blob: null }, { quick: true });
    if (!camera.isOn || number !== shown) return;
    const now = performance.now();
    drawBoxes(faces, size);
    listFaces(faces, null);
    const largest = faces.reduce((most, face) => (most && most.box[2] >= face.box[2] ? most : face), null);
    chart.add(now / 1000, largest?.probs ?? null);
    times.push(now);
    if (times.length > RATE_FRAMES) times.shift();
    if (times.length > 1) byId("fps").textContent = ((1000 * (times.length - 1)) / (now - times[0])).toFixed(1);
    if (summary(faces) !== said && now - saidAt > SAY_EVERY_MS) {
      [saidAt, said] = [now, summary(faces)];
      say(said);
    }
  }
}

function stopCamera() {
  camera.stop(); // and a start that waits for the user's leave
  if (byId("stop").hidden) return;
  shown += 1;
  showButtons(false);
  say("The camera is off.");
}

function showButtons(isOn) {
  const focused = document.activeElement;
  for (const id of ["stop", "take"]) byId(id).hidden = !isOn;
  byId("start").hidden = isOn;
  byId("device-label").hidden = true;
  if (focused?.hidden) byId(isOn ? "stop" : "start").focus();
}

async function takeFrame() {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  await usePicture(await canvas.convertToBlob());
}

function listen() {
  byId("choose").onclick = () => byId("file").click();
  byId("file").onchange = ({ target }) => {
    usePicture(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  };
  byId("start").onclick = () => startCamera();
  byId("stop").onclick = stopCamera;
  byId("take").onclick = takeFrame;
  byId("device").onchange = ({ target }) => startCamera(target.value);
  document.onpaste = ({ clipboardData }) => usePicture(clipboardData.files[0]);
  document.ondragover = (event) => {
    event.preventDefault();
    stage.classList.add("over");
  };
  document.ondragleave = () => stage.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    usePicture(event.dataTransfer.files[0]);
  };
  byId("token-form").onsubmit = async (event) => {
    event.preventDefault();
    complain(null);
    await backend.useToken(byId("token").value.trim()).then(() => welcome("The token is right."), complain);
  };
}

function welcome(text) {
  byId("model").textContent = backend.facts.name ?? "of the server";
  for (const id of ["choose", "start"]) byId(id).disabled = !backend.facts.name;
  say(text);
}

listen();
try {
  backend = await connect();
  byId("place").textContent = backend.place;
  byId("token-form").hidden = !backend.needsToken;
  welcome(backend.needsToken ? "Enter the token of the server." : "Ready.");
} catch (error) {
  byId("model").textContent = "none";
  say("");
  complain(error);
}
