// Runs the networks outside the page's thread, so that drawing stays smooth.

import { answer, load, prepare, run } from "./engine.js";
import { SIDE } from "./layers.js";

const SLOW = 5; // milliseconds: if a view takes longer, the first answer is shown before the others
const networks = new Map();
let latest = 0; // the number of the newest question about a drawing

/** A network; it is fetched once. */
function get(name) {
  if (!networks.has(name)) networks.set(name, load(name, new URL("networks/", import.meta.url)));
  return networks.get(name);
}

/** Lets messages in, so that a newer question can end the work on this one. */
function pause() {
  return new Promise((resume) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resume;
    port2.postMessage(null);
  });
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
  async trace({ network: name, picture }, reply) {
    const network = await get(name);
    run(network, picture);
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
