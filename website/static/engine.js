// The course's networks in a visitor's browser: from a drawing to ten probabilities. No network is
// described here: website/networks.py exports each one's layers (a table) and weights from PyTorch.

import { connect, forward, normalise, SIDE } from "./layers.js";
import { range } from "./look.js";

/** Lets a worker's messages in, so that a newer one can end the work on an older one. */
export function pause() {
  return new Promise((resume) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resume();
    };
    port2.postMessage(null);
  });
}

const TINY = 1e-6; // as in course/widgets/pad: breaks ties in rounding

/** Fetches a network: its table of layers, and its buffer with the weights (see layers.js). */
export async function load(name, folder) {
  const [description, weights] = await Promise.all([
    describe(name, folder),
    fetchFile(`${name}.bin`, folder).then((answer) => answer.arrayBuffer()),
  ]);
  await checkWeights(name, description, weights);
  return assemble(description, new Float32Array(weights));
}

/** Fetches the table of a network, without its weights. */
export async function describe(name, folder) {
  return (await fetchFile(`${name}.json`, folder)).json();
}

/** Refuses weights that arrived damaged, and anything else that a host may send in their place. */
async function checkWeights(name, { sha256, layers }, weights) {
  const isWhole = weights.byteLength === 4 * layers[0].offset; // the image comes after them
  const canHash = crypto.subtle !== undefined; // on https, and on the visitor's own machine
  if (!isWhole || (canHash && (await hashOf(weights)) !== sha256))
    throw new Error(`${name}.bin does not hold the weights of ${name}`);
}

async function hashOf(buffer) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export async function fetchFile(name, folder) {
  const answer = await fetch(new URL(name, folder));
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
  return answer;
}

/**
 * A network that can answer. In its buffer the weights come first, then the layers' results.
 * `prepare` makes of a pixel what the network takes.
 */
export function assemble({ size, layers: table, views }, weights, prepare = normalise) {
  const buffer = new Float32Array(size);
  buffer.set(weights);
  return { table, views, buffer, prepare, layers: connect(table, buffer) };
}

/** Sends a normalised picture through a network; returns ten log-probabilities. */
export const run = (network, picture) => forward(network.layers, picture);

/** The network's ten probabilities for one view of a picture. */
export const answer = (network, picture, view) =>
  run(network, vary(picture, view, network.prepare)).map(Math.exp);

// --- From a drawing to the picture that a network sees, as course/widgets/pad does it ---

/** Turns a square drawing (bytes of ink) into a picture like MNIST's; null if it is empty. */
export function prepare(drawing, side) {
  const digit = cutOut(drawing, side);
  if (digit === null) return null;
  const small = shrink(digit, side);
  const top = startOf(small);
  const left = startOf(transpose(small));
  const brightest = Math.max(...small.flat());
  const picture = new Uint8Array(SIDE * SIDE);
  for (const [y, row] of small.entries())
    for (const [x, ink] of row.entries()) {
      const place = (top + y) * SIDE + left + x;
      picture[place] = Math.round((255 * ink) / brightest + TINY);
    }
  return picture;
}

const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
const hasInk = (line) => line.some((ink) => ink > 0);
const transpose = (rows) => rows[0].map((_, x) => rows.map((row) => row[x]));

/** The smallest rectangle that holds all ink, as a list of rows; null if there is no ink. */
function cutOut(drawing, side) {
  const rows = range(side).map((y) => Array.from(drawing.subarray(y * side, (y + 1) * side)));
  if (!rows.some(hasInk)) return null;
  const columns = transpose(rows);
  const left = columns.findIndex(hasInk);
  const right = columns.findLastIndex(hasInk);
  const inked = rows.slice(rows.findIndex(hasInk), rows.findLastIndex(hasInk) + 1);
  return inked.map((row) => row.slice(left, right + 1));
}

/** Scales a digit to fit 20×20 pixels; one smaller than a fifth of the pad is enlarged less. */
function shrink(digit, side) {
  const height = digit.length;
  const width = digit[0].length;
  const scale = 20 / Math.max(height, width, side / 5);
  const scaled = (length) => Math.max(1, roundToEven(scale * length));
  const narrow = digit.map((row) => resize(row, scaled(width)));
  return transpose(transpose(narrow).map((column) => resize(column, scaled(height))));
}

/** Rounds as Python does: 2.5 becomes 2, and 3.5 becomes 4. */
function roundToEven(number) {
  return number % 1 === 0.5 ? 2 * Math.round(number / 2) : Math.round(number);
}

/** Resizes a line of numbers. Each new one is a mean of those nearby, weighted by distance. */
function resize(line, count) {
  const scale = line.length / count;
  const reach = Math.max(scale, 1);
  return range(count).map((n) => {
    const centre = scale * (n + 0.5);
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const near = line.slice(first, Math.trunc(centre + reach + 0.5));
    const weights = near.map((_, k) =>
      Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / reach)),
    );
    const all = total(weights);
    return total(near.map((number, k) => number * (weights[k] / all)));
  });
}

/** Where in 28 pixels a digit must begin, so that its centre of mass is in the middle. */
function startOf(lines) {
  const ink = lines.map(total);
  const centre = total(ink.map((mass, n) => mass * (n + 0.5))) / total(ink);
  const start = Math.ceil(SIDE / 2 - centre - TINY);
  return Math.min(Math.max(start, 0), SIDE - ink.length);
}

/** A picture turned, shifted and scaled a little, and normalised for the network. */
export function vary(
  picture,
  { angle, shift, scale },
  prepare = normalise,
  view = new Float32Array(SIDE * SIDE),
) {
  const cos = Math.cos((angle * Math.PI) / 180) / scale;
  const sin = Math.sin((angle * Math.PI) / 180) / scale;
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++) {
      // Where in the old picture this pixel comes from, measured from its middle.
      const u = column + 0.5 - SIDE / 2 - shift[0];
      const v = row + 0.5 - SIDE / 2 - shift[1];
      const x = cos * u - sin * v + SIDE / 2 - 0.5;
      const y = sin * u + cos * v + SIDE / 2 - 0.5;
      view[row * SIDE + column] = prepare(inkAt(picture, x, y));
    }
  return view;
}

/** The ink at a place between four pixels: each counts for more, the nearer it is. */
function inkAt(picture, x, y) {
  const left = Math.floor(x);
  const top = Math.floor(y);
  const right = x - left; // the share of the pixels on the right
  const low = y - top;
  const upper = (1 - right) * pixel(picture, left, top) + right * pixel(picture, left + 1, top);
  const lower =
    (1 - right) * pixel(picture, left, top + 1) + right * pixel(picture, left + 1, top + 1);
  return (1 - low) * upper + low * lower;
}

function pixel(picture, x, y) {
  return x < 0 || y < 0 || x >= SIDE || y >= SIDE ? 0 : picture[y * SIDE + x];
}
