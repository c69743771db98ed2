// The page: what is drawn or picked, how it is rotated, and what both networks answer.
import { draw as drawCurve, valueAt } from "./curve.js";
import { Drawing } from "./drawing.js";
import { load } from "./networks.js";
import { paint } from "./pixels.js";
import { SIZE, prepare } from "./prepare.js";
import { rotate } from "./rotate.js";

/** @typedef {"plain" | "invariant"} Name */
/** @typedef {Record<Name, number[]>} Answers probabilities of the ten digits */
/** @type {Name[]} */
const NAMES = ["plain", "invariant"];

/** @param {string} id @returns {any} an element of index.html */
const byId = (id) => document.getElementById(id);
/** @type {HTMLInputElement} */
const slider = byId("angle");
const drawing = new Drawing(byId("drawing"), () => take(prepare(drawing.strokes)));

/** The digit before rotation, and what was answered to it. @type {{pixels: Float32Array, answers: Answers | null}} */
const upright = { pixels: new Float32Array(SIZE * SIZE), answers: null };

/** What a test reads: pixels, the answers to them, the time that took, and whether they are those of the last change. */
const shown = { pixels: [0], answers: /** @type {Answers | null} */ (null), milliseconds: 0, settled: false };
Object.assign(globalThis, { demo: shown });

/** @type {Record<Name, (pixels: Float32Array) => Promise<number[]>>} */
let networks;
/** @type {Record<Name, import("./curve.js").Curve>} */
let curves;

/** @param {Float32Array} pixels @returns {Promise<Answers>} */
async function ask(pixels) {
  return { plain: await networks.plain(pixels), invariant: await networks.invariant(pixels) };
}

/** Makes a digit the one that is shown. @param {Float32Array} pixels @param {Element} [sample] its button */
function take(pixels, sample) {
  taken = true;
  upright.pixels = pixels;
  upright.answers = null;
  for (const button of byId("samples").children) button.setAttribute("aria-pressed", String(button === sample));
  update();
}

let busy = false;
let again = false;
let taken = false;

/** Shows the angle at once, the answers when they are there; of changes meanwhile, the last is answered. */
async function update() {
  showAngle();
  shown.settled = false;
  again = true;
  if (busy || !networks) return;
  busy = true;
  try {
    while (again) {
      again = false;
      await answer();
    }
    shown.settled = true;
  } catch (error) {
    byId("status").textContent = `No answer: ${error instanceof Error ? error.message : error}`;
  } finally {
    busy = false;
  }
}

async function answer() {
  const started = performance.now();
  // The slider counts clockwise, as a hand on a dial; `rotate` counter-clockwise, as NumPy.
  const pixels = rotate(upright.pixels, SIZE, 0 - slider.valueAsNumber);
  paint(byId("seen"), pixels);
  if (!pixels.some((value) => value > 0)) {
    Object.assign(shown, { pixels: Array.from(pixels), answers: null });
    for (const name of NAMES) showAnswer(name, null, null);
    return;
  }
  const answers = await ask(pixels);
  Object.assign(shown, { pixels: Array.from(pixels), answers, milliseconds: performance.now() - started });
  byId("status").textContent = `Both answered in ${Math.ceil(shown.milliseconds)} ms.`;
  const before = upright.pixels;
  const whenUpright = upright.answers ?? (slider.valueAsNumber ? await ask(before) : answers);
  if (before === upright.pixels) upright.answers = whenUpright;
  for (const name of NAMES) showAnswer(name, answers[name], whenUpright[name]);
}

/** @param {Name} name @param {number[] | null} answer @param {number[] | null} whenUpright */
function showAnswer(name, answer, whenUpright) {
  const card = byId(name);
  const digit = answer ? best(answer) : null;
  const before = whenUpright ? best(whenUpright) : null;
  card.classList.toggle("changed", digit !== before);
  card.querySelector("output").textContent = digit ?? "–";
  const sure = answer && digit !== null ? `${Math.floor(100 * answer[digit])} % sure` : "";
  card.querySelector(".remark").textContent = digit === before ? sure : `${sure}\nupright: ${before}`;
  [...card.querySelectorAll("li")].forEach((item, i) => {
    item.style.setProperty("--share", answer ? answer[i] : 0);
    item.setAttribute("aria-label", answer ? `${i}: ${Math.floor(100 * answer[i])} %` : String(i));
  });
}

/** @param {number[]} probabilities */
const best = (probabilities) => probabilities.indexOf(Math.max(...probabilities));

function showAngle() {
  const angle = slider.valueAsNumber;
  byId("degrees").textContent = inWords(angle);
  slider.setAttribute("aria-valuetext", inWords(angle));
  if (!curves) return;
  drawCurve(byId("curve"), curves, angle);
  for (const name of NAMES) byId(`${name}-here`).textContent = `${(100 * valueAt(curves[name], angle)).toFixed(0)} %`;
}

/** @param {number} angle */
function inWords(angle) {
  return angle ? `${Math.abs(angle)}° ${angle > 0 ? "clockwise" : "counter-clockwise"}` : "0°";
}

/** @param {{label: number, pixels: number[]}} sample of data.json */
function sampleButton({ label, pixels }) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `digit ${label}`);
  const small = document.createElement("canvas");
  const values = Float32Array.from(pixels, (level) => level / 255);
  paint(small, values);
  button.append(small);
  button.addEventListener("click", () => {
    drawing.clear(values);
    take(values, button);
  });
  return button;
}

async function start() {
  const data = await (await fetch(new URL("./networks/data.json", import.meta.url))).json();
  curves = data.curves;
  for (const name of NAMES) {
    const { angle, accuracy } = curves[name];
    curves[name] = { angle: angle.map((at) => 0 - at).reverse(), accuracy: accuracy.reverse() };
    byId(name).querySelector("ol").append(...[..."0123456789"].map(bar));
  }
  byId("samples").append(...data.samples.map(sampleButton));
  byId("clear").addEventListener("click", () => {
    drawing.clear();
    take(new Float32Array(SIZE * SIZE));
  });
  slider.addEventListener("input", update);
  addEventListener("resize", showAngle);
  showAngle();
  const [plain, invariant] = await Promise.all(NAMES.map(load));
  networks = { plain, invariant };
  byId("status").removeAttribute("role"); // from here on it says milliseconds, which need not be read aloud
  if (taken) update();
  else byId("samples").children[4].click();
}

/** @param {string} digit */
function bar(digit) {
  const item = document.createElement("li");
  item.textContent = digit;
  return item;
}

start().catch((error) => {
  byId("status").textContent = `The networks cannot be loaded: ${error.message}`;
  throw error;
});
