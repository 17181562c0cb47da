// Shows faces: boxes over the picture, and a table of probabilities for each.

const byId = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const nameOf = ({ label, uncertain, top }) => `${label}${uncertain ? "?" : ""} ${Math.round(100 * top[0][1])} %`;

export function summary(faces) {
  if (!faces.length) return "No face found.";
  const names = faces.slice(0, 3).map(({ label, uncertain }) => (uncertain ? `perhaps ${label}` : label));
  const more = faces.length > 3 ? ` and ${faces.length - 3} more` : "";
  return `${faces.length === 1 ? "1 face" : `${faces.length} faces`}: ${names.join(", ")}${more}.`;
}

// Draws a box around each face; size: of the picture that the boxes are in, in px.
export function drawBoxes(faces, [width, height]) {
  const boxes = faces.map((face, place) => {
    const [x, y, wide, high] = within(face.box, width, height);
    const box = document.createElement("div");
    box.className = "box";
    box.classList.toggle("high", y / height < 0.1);
    box.classList.toggle("right", (x + wide / 2) / width > 0.6);
    const sides = { left: x / width, top: y / height, width: wide / width, height: high / height };
    for (const [side, share] of Object.entries(sides)) box.style[side] = `${100 * share}%`;
    const tag = document.createElement("span");
    tag.className = "tag";
    tag.textContent = `${place + 1}: ${nameOf(face)}`;
    box.append(tag);
    return box;
  });
  byId("boxes").replaceChildren(...boxes);
}

// The part of a box that is within the picture; a face without a box is all of it.
function within(box, width, height) {
  const [x, y, wide, high] = box ?? [0, 0, width, height];
  const [left, top] = [Math.max(x, 0), Math.max(y, 0)];
  return [left, top, Math.min(x + wide, width) - left, Math.min(y + high, height) - top];
}

// Lists faces. What stands there is updated in place, so that focus and the reading position stay.
// explain(number, progress) -> URL of a heat map; null: without that button.
export function listFaces(faces, explain) {
  const list = byId("faces");
  while (list.children.length > faces.length || list.querySelector(":scope > p")) list.lastElementChild.remove();
  faces.forEach((face, number) => {
    const card = list.children[number] ?? list.appendChild(make("face"));
    card.querySelector("h3").textContent = `Face ${number + 1}: ${nameOf(face)}`;
    card.querySelector("caption").textContent = `Probabilities of face ${number + 1}`;
    fill(card.querySelector("tbody"), face);
    card.querySelector(".why").hidden = !explain;
    card.querySelector(".heat").hidden = true;
    const button = card.querySelector(".explain");
    button.hidden = false;
    button.setAttribute("aria-label", `Show why face ${number + 1} is ${face.label}`);
    button.onclick = () => showHeat(card, face, number, explain);
  });
  if (!faces.length) {
    const none = document.createElement("p");
    none.className = "soft";
    none.textContent = "None found.";
    list.append(none);
  }
}

const make = (template) => byId(template).content.firstElementChild.cloneNode(true);

function fill(body, { probs, label }) {
  Object.entries(probs).forEach(([name, share], number) => {
    const row = body.children[number] ?? body.appendChild(make("row"));
    row.className = `class-${number % 8}`;
    row.classList.toggle("first", name === label);
    row.querySelector("span").textContent = name;
    row.querySelector(".share").textContent = percent(share);
    row.querySelector(".bar").style.transform = `scaleX(${share})`;
  });
}

async function showHeat(card, face, number, explain) {
  const [button, bar, heat] = [".explain", "progress", ".heat"].map((part) => card.querySelector(part));
  button.disabled = true;
  bar.hidden = false;
  bar.value = 0;
  try {
    const url = await explain(number, (share) => (bar.value = share));
    if (!url) return;
    const image = heat.querySelector("img");
    image.src = url;
    image.alt = `Face ${number + 1} with its heat map`;
    heat.querySelector("figcaption").textContent = `Bright where the network sees “${face.label}”`;
    heat.hidden = false;
    button.hidden = true;
  } finally {
    bar.hidden = true;
    button.disabled = false;
  }
}
