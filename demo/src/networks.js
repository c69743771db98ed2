// The two networks, run by onnxruntime-web: WebAssembly in one thread from any static server, and in as many as there are
// cores (four at most) where the server isolates the page, as `python -m experiments.demo` does.
import { SIZE } from "./prepare.js";

/**
 * Loads a network: a function from the pixels of one image to the probabilities of the ten digits.
 *
 * @param {string} name of a file in networks/
 * @returns {Promise<(pixels: Float32Array) => Promise<number[]>>}
 */
export async function load(name) {
  const ort = await import("./ort/ort.wasm.min.mjs"); // here, so that a failure can be shown
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
  const response = await fetch(new URL(`./networks/${name}.onnx`, import.meta.url));
  if (!response.ok) throw new Error(`networks/${name}.onnx: ${response.status}`);
  // Filters are stored as coefficients; the session expands them once, when it is made.
  const session = await ort.InferenceSession.create(new Uint8Array(await response.arrayBuffer()));
  return async (pixels) => {
    const images = new ort.Tensor("float32", pixels, [1, SIZE, SIZE, 1]);
    const { logits } = await session.run({ images });
    return softmax(Array.from(/** @type {Float32Array} */ (logits.data)));
  };
}

/** @param {number[]} logits */
function softmax(logits) {
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
