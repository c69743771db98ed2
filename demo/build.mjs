// Puts the page together in dist/: the sources as they are, the networks, and what onnxruntime-web needs to run them.
import { cpSync, mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "dist");
const runtime = join(here, "node_modules", "onnxruntime-web", "dist");
const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist);
cpSync(join(here, "src"), dist, { recursive: true, filter: (path) => !path.endsWith(".d.mts") });
cpSync(join(here, "networks"), join(dist, "networks"), { recursive: true });
for (const name of RUNTIME) cpSync(join(runtime, name), join(dist, "ort", name));
cpSync(join(here, "onnxruntime-web.LICENSE"), join(dist, "ort", "LICENSE")); // its package has none

/** @param {string} folder @returns {number} */
const weigh = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
const megabytes = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(2)} MB`;
const whole = weigh(dist);
const ort = weigh(join(dist, "ort"));
console.log(`built dist/: ${megabytes(whole - ort)}, and onnxruntime-web ${megabytes(ort)}`);
