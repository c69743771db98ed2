// Uses the page in a real Chromium as a person would, and prints as JSON what it showed.
//
//   node drive.mjs URL [FOLDER]     screenshots go to the folder; CHROMIUM names the browser (/usr/bin/chromium)
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, folder] = process.argv.slice(2);
const PHONE = { width: 360, height: 780 };
const DESKTOP = { width: 1200, height: 960 };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
FLAGS.push("--disable-component-update", "--disable-sync");

/** @typedef {import("playwright-core").Page} Page */
/** @typedef {{pixels: number[], answers: Record<string, number[]> | null, milliseconds: number, settled: boolean}} Shown */

/** Waits until an expression is true; the page's own policy forbids Playwright's waitForFunction, which evaluates text. */
async function until(/** @type {Page} */ page, /** @type {string} */ expression) {
  for (let tries = 0; tries < 6000; tries++) {
    if (await page.evaluate(expression)) return;
    await page.waitForTimeout(10);
  }
  throw new Error(`never: ${expression}`);
}

/** Waits for the last answers; returns them with what stands on the page. @param {Page} page */
async function read(page) {
  await until(page, "globalThis.demo?.settled");
  const shown = /** @type {Shown} */ (await page.evaluate("globalThis.demo"));
  const text = (/** @type {string} */ selector) => page.locator(selector).innerText();
  return {
    ...shown,
    angle: Number(await page.locator("#angle").inputValue()),
    texts: { plain: await text("#plain output"), invariant: await text("#invariant output"), here: await text("#here") },
  };
}

/** @param {Page} page @param {number} angle */
async function rotate(page, angle) {
  await page.locator("#angle").fill(String(angle));
  return read(page);
}

/** From the top of the page by the keyboard alone: to the next digit that can be picked, to the slider, and along. */
async function byKeyboard(/** @type {Page} */ page) {
  const focused = () => page.evaluate("document.activeElement.id || document.activeElement.ariaLabel");
  await page.evaluate("document.activeElement.blur()");
  for (let at = 0; at < 10 && (await focused()) !== "digit 3"; at++) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  for (let at = 0; at < 20 && (await focused()) !== "angle"; at++) await page.keyboard.press("Tab");
  await page.keyboard.press("End");
  for (let at = 0; at < 3; at++) await page.keyboard.press("ArrowLeft");
  return read(page);
}

/** Draws a line through points, 0 to 1 of the canvas. @param {Page} page @param {number[][]} points */
async function stroke(page, points) {
  const box = await page.locator("#drawing").boundingBox();
  if (!box) throw new Error("no canvas");
  const move = (/** @type {number[]} */ [x, y]) =>
    page.mouse.move(box.x + x * box.width, box.y + y * box.height, { steps: 8 });
  await move(points[0]);
  await page.mouse.down();
  for (const point of points.slice(1)) await move(point);
  await page.mouse.up();
  return read(page);
}

/** @param {Page} page @param {string} name */
async function picture(page, name) {
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
const context = await browser.newContext({ viewport: DESKTOP, colorScheme: "light" });
const page = await context.newPage();
/** @type {string[]} */
const problems = [];
/** @type {string[]} */
const requests = [];
page.on("pageerror", (error) => problems.push(String(error)));
page.on("console", (message) => ["error", "warning"].includes(message.type()) && problems.push(message.text()));
page.on("request", (request) => requests.push(request.url()));

await page.goto(url);
const seen = /** @type {Record<string, any>} */ ({ start: await read(page) });
const loaded = requests.length;
await context.setOffline(true);
await page.getByRole("button", { name: "Clear" }).click();
seen.empty = await read(page);
seen.stroke = await stroke(page, [[0.25, 0.25], [0.75, 0.25], [0.45, 0.85]]);
seen.rotated_stroke = await rotate(page, -137);
await picture(page, "desktop-light");
seen.keyboard = await byKeyboard(page);
for (const angle of [90, 0, 33, -75]) seen[`sample_3_at_${angle}`] = await rotate(page, angle);
const times = [];
for (let at = 0; at < 20; at++) times.push((await rotate(page, 2 * at)).milliseconds);
await page.emulateMedia({ colorScheme: "dark" });
await picture(page, "desktop-dark");
await page.setViewportSize(PHONE);
await until(page, `document.querySelector("#curve").viewBox.baseVal.width < ${PHONE.width}`);
await picture(page, "phone-dark");
await page.emulateMedia({ colorScheme: "light" });
await picture(page, "phone-light");
const width = await page.evaluate("document.documentElement.scrollWidth");
await browser.close();
times.sort((a, b) => a - b);
const milliseconds = { median: times[times.length / 2], most: times.at(-1) };
const outside = requests.filter((request) => !request.startsWith(url));
const late = requests.slice(loaded);
console.log(JSON.stringify({ seen, problems, milliseconds, outside, late, width, phone: PHONE.width }));
