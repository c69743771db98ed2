// The canvas that one draws on: strokes as lines of points, which are kept and painted.
import { contextOf, paint } from "./pixels.js";

/** Width of a stroke, of the canvas's side. */
const PEN = 0.07;

/** @typedef {import("./prepare.js").Point} Point */

export class Drawing {
  /** @type {Point[][]} */
  strokes = [];

  /** @param {HTMLCanvasElement} canvas @param {() => void} changed called after each new point */
  constructor(canvas, changed) {
    this.canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button !== 0) return;
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId); // a stroke may leave the canvas and come back
      this.strokes.push([this.#place(event)]);
      this.#paint();
      changed();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!canvas.hasPointerCapture(event.pointerId)) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) this.strokes.at(-1)?.push(this.#place(one));
      this.#paint();
      changed();
    });
  }

  /** Forgets the strokes; shows an image in their place, if there is one. @param {Float32Array} [pixels] */
  clear(pixels) {
    this.strokes = [];
    this.#paint();
    if (!pixels) return;
    const small = document.createElement("canvas");
    paint(small, pixels);
    contextOf(this.canvas).drawImage(small, 0, 0, this.canvas.width, this.canvas.height);
  }

  /** @param {PointerEvent} event @returns {Point} */
  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    const within = (/** @type {number} */ share) => Math.min(Math.max(share, 0), 1);
    return { x: within((event.clientX - box.left) / box.width), y: within((event.clientY - box.top) / box.height) };
  }

  #paint() {
    const [context, side] = [contextOf(this.canvas), this.canvas.width];
    context.clearRect(0, 0, side, side);
    context.strokeStyle = "#fff";
    context.lineWidth = PEN * side;
    context.lineCap = context.lineJoin = "round";
    for (const line of this.strokes) {
      context.beginPath();
      for (const { x, y } of [line[0], ...line]) context.lineTo(x * side, y * side);
      context.stroke();
    }
  }
}
