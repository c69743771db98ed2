// From strokes to a digit as MNIST has it (experiments/data/digits.py states the rule and its source): the digit, its
// aspect ratio kept, fits a box of 20 x 20 pixels, which lies in 28 x 28 with the centre of mass in the middle.

export const SIZE = 28;
const BOX = 20;
/** Width of a stroke in pixels, whatever the drawing's size. */
const PEN = 2.4;
/** A dot stays a dot: a drawing (1 = the canvas) becomes so many pixels wide at most. */
const MOST = 200;

/** @typedef {{x: number, y: number}} Point */

/**
 * Grey levels 0 to 1 in steps of 1/255, row by row; zeros if there are no strokes.
 *
 * @param {Point[][]} strokes lines of points, 0 to 1 from the canvas's upper left corner
 * @returns {Float32Array}
 */
export function prepare(strokes) {
  const result = new Float32Array(SIZE * SIZE);
  const points = strokes.flat();
  if (!points.length) return result;
  const xs = points.map((point) => point.x);
  const ys = points.map((point) => point.y);
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [across, down] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const scale = Math.min((BOX - PEN) / Math.max(across, down), MOST);
  const lines = strokes.map((line) =>
    line.map(({ x, y }) => ({ x: (x - left) * scale + PEN / 2, y: (y - top) * scale + PEN / 2 })),
  );
  const [width, height] = [across, down].map((size) => Math.ceil(size * scale + PEN - 1e-9));
  const small = new Float32Array(width * height);
  let [sum, sumX, sumY] = [0, 0, 0];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const distance = Math.min(...lines.map((line) => distanceTo(line, x + 0.5, y + 0.5)));
      const ink = Math.min(Math.max(PEN / 2 + 0.5 - distance, 0), 1);
      small[y * width + x] = ink;
      sum += ink;
      sumX += ink * x;
      sumY += ink * y;
    }
  const startX = start(sumX / sum, width);
  const startY = start(sumY / sum, height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      result[(startY + y) * SIZE + startX + x] = Math.round(small[y * width + x] * 255) / 255;
  return result;
}

/** Where the box begins along an axis. @param {number} centre @param {number} size */
const start = (centre, size) => Math.min(Math.max(Math.round(SIZE / 2 - centre), 0), SIZE - size);

/** From a place to the nearest point of a line. @param {Point[]} line @param {number} x @param {number} y */
function distanceTo(line, x, y) {
  let least = Math.hypot(line[0].x - x, line[0].y - y);
  for (let i = 1; i < line.length; i++) {
    const { x: fromX, y: fromY } = line[i - 1];
    const [alongX, alongY] = [line[i].x - fromX, line[i].y - fromY];
    const length = alongX * alongX + alongY * alongY;
    const share = length ? Math.min(Math.max(((x - fromX) * alongX + (y - fromY) * alongY) / length, 0), 1) : 0;
    least = Math.min(least, Math.hypot(fromX + share * alongX - x, fromY + share * alongY - y));
  }
  return least;
}
