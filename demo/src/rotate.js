// Rotation as in the tests that gave the curve (experiments/data/rotation.py): about the centre, cubic spline, same
// size, zero outside, clipped and rounded to whole grey levels.

/**
 * @param {Float32Array} pixels a square image, row by row, 0 to 1
 * @param {number} size of a side
 * @param {number} angle degrees, positive the way of NumPy's rot90: counter-clockwise
 * @returns {Float32Array}
 */
export function rotate(pixels, size, angle) {
  const coefficients = splineCoefficients(pixels, size);
  const [cosine, sine] = cosineAndSine(angle);
  const centre = (size - 1) / 2;
  const result = new Float32Array(size * size);
  for (let i = 0; i < size; i++)
    for (let j = 0; j < size; j++) {
      const row = cosine * (i - centre) + sine * (j - centre) + centre;
      const column = -sine * (i - centre) + cosine * (j - centre) + centre;
      if (row < 0 || row > size - 1 || column < 0 || column > size - 1) continue;
      const value = splineValue(coefficients, size, row, column);
      result[i * size + j] = Math.round(Math.min(Math.max(value, 0), 1) * 255) / 255;
    }
  return result;
}

/** Exact at quarter turns, which only move pixels. @param {number} angle */
function cosineAndSine(angle) {
  if (angle % 90 === 0) {
    const quarter = (((angle / 90) % 4) + 4) % 4;
    return [[1, 0, -1, 0][quarter], [0, 1, 0, -1][quarter]];
  }
  return [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
}

/** The cubic spline through the pixels, which continues mirrored. @param {Float32Array} pixels @param {number} size */
function splineCoefficients(pixels, size) {
  const result = Float64Array.from(pixels);
  for (let i = 0; i < size; i++) solve(result, i * size, 1, size);
  for (let j = 0; j < size; j++) solve(result, j, size, size);
  return result;
}

/**
 * Solves c[n - 1] + 4 c[n] + c[n + 1] = 6 s[n] in place, with c[-1] = c[1] and c[size] = c[size - 2].
 *
 * @param {Float64Array} values @param {number} first @param {number} step @param {number} size
 */
function solve(values, first, step, size) {
  const upper = new Float64Array(size);
  for (let n = 0; n < size; n++) {
    const at = first + n * step;
    const below = n === size - 1 ? 2 : 1;
    const pivot = n ? 4 - below * upper[n - 1] : 4;
    upper[n] = (n ? 1 : 2) / pivot;
    values[at] = (6 * values[at] - (n ? below * values[at - step] : 0)) / pivot;
  }
  for (let n = size - 2; n >= 0; n--) values[first + n * step] -= upper[n] * values[first + (n + 1) * step];
}

/** @param {Float64Array} coefficients @param {number} size @param {number} row @param {number} column */
function splineValue(coefficients, size, row, column) {
  const [firstRow, firstColumn] = [Math.floor(row), Math.floor(column)];
  const [ofRow, ofColumn] = [weights(row - firstRow), weights(column - firstColumn)];
  let sum = 0;
  for (let a = 0; a < 4; a++)
    for (let b = 0; b < 4; b++) {
      const at = mirrored(firstRow + a - 1, size) * size + mirrored(firstColumn + b - 1, size);
      sum += ofRow[a] * ofColumn[b] * coefficients[at];
    }
  return sum;
}

/** Of the cubic B-spline, at a place after a grid point. @param {number} after 0 to 1 */
function weights(after) {
  const before = 1 - after;
  const middle = (after * after * (after - 2) * 3 + 4) / 6;
  const next = (before * before * (before - 2) * 3 + 4) / 6;
  const first = before ** 3 / 6;
  return [first, middle, next, 1 - first - middle - next];
}

/** @param {number} index @param {number} size */
function mirrored(index, size) {
  const around = Math.abs(index) % (2 * (size - 1));
  return Math.min(around, 2 * (size - 1) - around);
}
