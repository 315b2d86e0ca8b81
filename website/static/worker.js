// Runs the networks outside the page's thread, so that drawing stays smooth.

import { answer, assemble, describe, load, pause, prepare, run } from "./engine.js";
import { normalise, SIDE } from "./layers.js";

const FOLDER = new URL("networks/", import.meta.url);
const SLOW = 5; // milliseconds: if a view takes longer, the first answer is shown before the others
const networks = new Map();
const tables = new Map(); // of the networks that are being trained
let latest = 0; // the number of the newest question about a drawing

/** A network; it is fetched once. */
function get(name) {
  if (!networks.has(name)) networks.set(name, load(name, FOLDER));
  return networks.get(name);
}

function addTo(sums, numbers) {
  for (const [n, number] of numbers.entries()) sums[n] += number;
}

const TASKS = {
  /** Fetches the network and uses it a little, because a browser runs new code slowly. */
  async fetch({ network: name }, reply) {
    const network = await get(name);
    for (const view of network.views) {
      answer(network, new Uint8Array(SIDE * SIDE), view);
      await pause(); // a question about a drawing need not wait
    }
    reply({});
  },
  /** Takes over a network that is being trained on the page: its latest weights. */
  async adopt({ network: name, source, weights, isRaw }, reply) {
    if (!tables.has(source)) tables.set(source, describe(source, FOLDER));
    const prepare = isRaw ? (pixel) => pixel : normalise;
    networks.set(name, Promise.resolve(assemble(await tables.get(source), weights, prepare)));
    reply({});
  },
  /** What a network reads in a drawing: the mean of its answers to slightly varied views. */
  async read({ id, network: name, drawing, side }, reply) {
    latest = id;
    const network = await get(name);
    const picture = prepare(drawing, side);
    if (picture === null) {
      reply({ picture: new Uint8Array(SIDE * SIDE), probabilities: null });
      return;
    }
    const sums = Array(10).fill(0);
    for (const [n, view] of network.views.entries()) {
      const began = performance.now();
      addTo(sums, answer(network, picture, view));
      const isSlow = performance.now() - began > SLOW;
      if (isSlow && n === 0) reply({ picture, probabilities: [...sums] });
      if (isSlow) await pause();
      if (latest !== id) return;
    }
    reply({ picture, probabilities: sums.map((sum) => sum / network.views.length) });
  },
  /** Everything that the network computes for a picture: what the lens shows. */
  async trace({ network: name, pixels }, reply) {
    const network = await get(name);
    run(network, Float32Array.from(pixels, network.prepare));
    reply({ layers: network.table, buffer: network.buffer.slice() });
  },
};

self.onmessage = async ({ data }) => {
  const reply = (answers) => postMessage({ id: data.id, ...answers });
  try {
    await TASKS[data.task](data, reply);
  } catch (error) {
    networks.delete(data.network); // so that the next try fetches it again
    reply({ error: String(error) });
  }
};
