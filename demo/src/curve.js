// Accuracy against the angle for both networks, as an SVG of the width that there is, and the place where one stands.

/** @typedef {{angle: number[], accuracy: number[]}} Curve angles count clockwise here, ascending */

const HEIGHT = 220;
const MARGIN = { top: 14, right: 14, bottom: 26, left: 50 };

/**
 * @param {SVGSVGElement} svg
 * @param {Record<string, Curve>} curves by the class that colours them
 * @param {number} angle where one stands
 */
export function draw(svg, curves, angle) {
  const width = svg.clientWidth || 600;
  const x = (/** @type {number} */ at) => MARGIN.left + ((at + 180) / 360) * (width - MARGIN.left - MARGIN.right);
  const y = (/** @type {number} */ at) => HEIGHT - MARGIN.bottom - at * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const parts = [];
  for (const at of [0, 0.25, 0.5, 0.75, 1]) {
    parts.push(element("line", { class: "grid", x1: x(-180), x2: x(180), y1: y(at), y2: y(at) }));
    parts.push(element("text", { class: "tick", x: MARGIN.left - 8, y: y(at) + 4, "text-anchor": "end" }, `${at * 100} %`));
  }
  for (const at of [-180, -90, 0, 90, 180])
    parts.push(element("text", { class: "tick", x: x(at), y: HEIGHT - 6, "text-anchor": anchor(at) }, `${at < 0 ? "−" : ""}${Math.abs(at)}°`));
  parts.push(element("line", { class: "here", x1: x(angle), x2: x(angle), y1: y(0), y2: y(1) }));
  for (const [name, curve] of Object.entries(curves)) {
    const points = curve.angle.map((at, i) => `${x(at)},${y(curve.accuracy[i])}`).join(" ");
    parts.push(element("polyline", { class: `line ${name}`, points }));
    parts.push(element("circle", { class: `dot ${name}`, cx: x(angle), cy: y(valueAt(curve, angle)), r: 6 }));
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(...parts);
}

/** Between two angles of the curve, on the straight line. @param {Curve} curve @param {number} angle */
export function valueAt(curve, angle) {
  const after = Math.max(1, curve.angle.findIndex((at) => at >= angle));
  const [from, to] = [curve.angle[after - 1], curve.angle[after]];
  const share = (angle - from) / (to - from);
  return (1 - share) * curve.accuracy[after - 1] + share * curve.accuracy[after];
}

/** @param {number} at */
const anchor = (at) => (at === -180 ? "start" : at === 180 ? "end" : "middle");

/** @param {string} name @param {Record<string, string | number>} attributes @param {string} [text] */
function element(name, attributes, text) {
  const result = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) result.setAttribute(key, String(value));
  if (text) result.textContent = text;
  return result;
}
