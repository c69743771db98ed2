// Images of 28 x 28 on canvases.
import { SIZE } from "./prepare.js";

/** @param {HTMLCanvasElement} canvas @returns {CanvasRenderingContext2D} */
export function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
}

/** Paints white ink of some strength on a clear canvas. @param {HTMLCanvasElement} canvas @param {ArrayLike<number>} pixels */
export function paint(canvas, pixels) {
  canvas.width = canvas.height = SIZE;
  const context = contextOf(canvas);
  const image = context.createImageData(SIZE, SIZE);
  for (let i = 0; i < SIZE * SIZE; i++) image.data.set([255, 255, 255, Math.round(255 * pixels[i])], 4 * i);
  context.putImageData(image, 0, 0);
}
