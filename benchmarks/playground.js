// One turn of benchmarks.playground, in Node, whose JavaScript is that of Chromium: trains a network
// on made-up digits. Arguments: the way, the network, the number of steps.

import { readFileSync } from "node:fs";

const SITE = new URL("../site/_static/", import.meta.url);
const BATCH = 32;
const WARM_UP = 10; // steps before the clock starts
const RULE = { rate: 0.01, momentum: 0.9, isNesterov: true };

/** Numbers from 0 to 1, spread evenly: the same ones in each turn. */
function evenly() {
  let number = 0;
  return () => {
    number = (number + 0.754877666) % 1;
    return number;
  };
}

async function compiledKernels() {
  const bytes = readFileSync(new URL("kernels.wasm", SITE));
  const { instance } = await WebAssembly.instantiate(bytes, { env: { abort: () => {} } });
  return instance.exports;
}

/** A trainer of the playground with these kernels. */
async function makeTrainer(net, kernels) {
  const { Trainer } = await import(new URL("training.js", SITE));
  const table = JSON.parse(readFileSync(new URL(`networks/${net}.json`, SITE)));
  const trainer = new Trainer(kernels, table, { random: evenly(), hasDropout: false });
  trainer.setBatchSize(BATCH);
  return trainer;
}

const stepOf = (trainer, images, labels) => () => trainer.step(images, labels, RULE).loss;

/** For each way: a function that makes a step of training and returns its loss. */
const WAYS = {
  async wasm(net, ...digits) {
    return stepOf(await makeTrainer(net, await compiledKernels()), ...digits);
  },
  async plain(net, ...digits) {
    const { PlainKernels } = await import("./plain_kernels.js");
    return stepOf(await makeTrainer(net, new PlainKernels()), ...digits);
  },
  async jax(net, ...digits) {
    const { jaxStep } = await import("./jax_ways.js");
    return jaxStep(await makeTrainer(net, await compiledKernels()), ...digits, RULE);
  },
};

/** Images for each second that the processor worked, and the losses before. */
async function measure(way, net, steps) {
  const random = evenly();
  const images = Float32Array.from({ length: BATCH * 784 }, () => 3 * random() - 0.4);
  const labels = Uint8Array.from({ length: BATCH }, (_, n) => n % 10);
  const step = await WAYS[way](net, images, labels);
  const losses = Array.from({ length: WARM_UP }, step);
  const began = process.cpuUsage();
  for (let n = 0; n < steps; n++) step();
  const { user, system } = process.cpuUsage(began); // in microseconds
  return { speed: (1e6 * BATCH * steps) / (user + system), losses };
}

const [way, net, steps] = process.argv.slice(2);
console.log(JSON.stringify(await measure(way, net, Number(steps))));
