// Trains a network in a visitor's browser. As in engine.js, no network is described here: each one's
// table of layers comes from website/networks.py. The convolutions are in kernels.ts.
//
// A whole batch goes through the layers at once, and its numbers stand side by side: a layer's
// result is [maps, height, width, batch]. All numbers are in the memory of kernels.wasm, and every
// array below is a view of it, so a step allocates nothing. With each number comes an error: the
// gradient of the loss with respect to it.

import { sizeOf } from "./layers.js";

const FIRST_ADDRESS = 1024; // in bytes; what is below belongs to AssemblyScript
const PAGE = 65536; // WebAssembly's memory grows by so many bytes
const KEPT = 0.9; // of a running statistic: PyTorch's momentum of 0.1

/** The compiled kernels; a browser without WebAssembly's SIMD refuses them. */
export async function loadKernels(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
  const { instance } = await WebAssembly.instantiate(await answer.arrayBuffer(), {
    env: { abort: () => {} },
  });
  return instance.exports;
}

// --- A network's tensors: what PyTorch's state_dict holds ---

const product = (numbers) => numbers.reduce((result, number) => result * number, 1);

/** The tensors of a layer, with their names and shapes; `isLearned`: by gradient descent. */
function tensorsOf({ kind, name, kernel, groups, shape, ...layer }, inputShape) {
  const [maps] = shape;
  const shapes = {
    convolution: { weight: [maps, inputShape[0] / groups, kernel, kernel], bias: [maps] },
    "batch norm": { weight: [maps], bias: [maps], running_mean: [maps], running_var: [maps] },
    "linear layer": { weight: [shape[2], sizeOf(inputShape)], bias: [shape[2]] },
  };
  const [, ...perUnit] = shapes[kind]?.weight ?? [];
  const inputs = perUnit.length > 0 ? product(perUnit) : 0;
  return Object.entries(shapes[kind] ?? {})
    .filter(([key]) => Number.isInteger(layer[key]))
    .map(([key, tensorShape]) => ({
      key,
      name: `${name}.${key}`,
      shape: tensorShape,
      length: product(tensorShape),
      inputs,
      isLearned: !key.startsWith("running"),
    }));
}

/** A number that one of PyTorch's layers starts with; `inputs`: how many numbers a unit adds up. */
function firstNumber({ key, inputs }, random) {
  if (inputs > 0) return (2 * random() - 1) / Math.sqrt(inputs);
  return key === "weight" || key === "running_var" ? 1 : 0; // batch norm
}

// --- A network that learns ---

export class Trainer {
  #kernels;
  #end = FIRST_ADDRESS; // where the next array begins

  /** `random` returns numbers from 0 to 1, as Math.random does. */
  constructor(kernels, { layers }, { random = Math.random, hasDropout = true } = {}) {
    this.#kernels = kernels;
    this.random = random;
    this.hasDropout = hasDropout;
    this.table = layers;
    this.tensors = layers.map((layer, place) =>
      place > 0 ? tensorsOf(layer, layers[place - 1].shape) : [],
    );
    const total = (isLearned) =>
      this.tensors
        .flat()
        .filter((tensor) => tensor.isLearned === isLearned)
        .reduce((sum, tensor) => sum + tensor.length, 0);
    this.places = {
      weights: this.#place(total(true)),
      gradients: this.#place(total(true)),
      velocities: this.#place(total(true)),
      statistics: this.#place(total(false)),
      turned: this.#place(total(true)), // a convolution's weights, for the way back
    };
    this.fixedEnd = this.#end;
    this.setBatchSize(16);
    this.start();
  }

  /** Makes room for an array; returns where. */
  #place(length) {
    const address = this.#end;
    this.#end += 16 * Math.ceil(length / 4);
    return { address, length };
  }

  #view({ address, length }, Kind = Float32Array) {
    return new Kind(this.#kernels.memory.buffer, address, length);
  }

  /** Lays out all that depends on the size of a batch: a multiple of 16. The weights stay. */
  setBatchSize(batch) {
    this.batch = batch;
    this.#end = this.fixedEnd;
    const places = this.table.map((layer) => {
      const size = sizeOf(layer.shape) * batch;
      return {
        output: this.#place(size),
        choices: this.#place(layer.kind === "max-pooling" ? size : 0),
        mask: this.#place(layer.dropout ? size : 0),
      };
    });
    const largest = Math.max(...places.map(({ output }) => output.length));
    const errors = [this.#place(largest), this.#place(largest)]; // the layers take turns
    const { memory } = this.#kernels;
    const missing = this.#end - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
    for (const [name, place] of Object.entries(this.places)) this[name] = this.#view(place);
    this.#viewTensors();
    this.layers = this.table.map((_, n) => this.#connect(n, places, errors));
  }

  /** A layer of the table with all arrays that it reads and writes. */
  #connect(n, places, errors) {
    const before = places[n - 1]?.output ?? { address: 0, length: 0 };
    const { output, choices, mask } = places[n];
    const layer = {
      ...this.table[n],
      batch: this.batch,
      kernels: this.#kernels,
      turned: this.turned,
      inputShape: this.table[n - 1]?.shape,
      input: this.#view(before),
      inputError: this.#view({ ...errors[n % 2], length: before.length }),
      output: this.#view(output),
      error: this.#view({ ...errors[(n + 1) % 2], length: output.length }),
      choices: this.#view(choices, Int32Array),
      mask: this.#view(mask),
      isFirst: n === 1, // the image needs no error
      means: new Float64Array(this.table[n].shape[0]), // of each map over the batch
      variances: new Float64Array(this.table[n].shape[0]),
    };
    for (const { key, numbers, gradient } of this.tensors[n]) {
      layer[key] = numbers;
      layer[`${key}Gradient`] = gradient;
    }
    return layer;
  }

  /** Gives each tensor its part of all weights, gradients and statistics. */
  #viewTensors() {
    let learned = 0;
    let counted = 0;
    for (const tensor of this.tensors.flat()) {
      const { length } = tensor;
      if (tensor.isLearned) {
        tensor.numbers = this.weights.subarray(learned, learned + length);
        tensor.gradient = this.gradients.subarray(learned, learned + length);
        learned += length;
      } else {
        tensor.numbers = this.statistics.subarray(counted, counted + length);
        counted += length;
      }
    }
  }

  /** Starts over: with random weights, or all equal to a number. */
  start(equal = null) {
    for (const tensor of this.tensors.flat()) {
      const isEqual = equal !== null && tensor.isLearned;
      for (let n = 0; n < tensor.length; n++)
        tensor.numbers[n] = isEqual ? equal : firstNumber(tensor, this.random);
    }
    this.gradients.fill(0);
    this.velocities.fill(0);
  }

  /** Copies images [N, 784] into the first layer; returns the network's output: [10, batch]. */
  forward(images, isTraining) {
    const { output } = this.layers[0];
    const pixels = output.length / this.batch;
    for (let image = 0; image < this.batch; image++)
      for (let pixel = 0, n = image; pixel < pixels; pixel++, n += this.batch)
        output[n] = images[image * pixels + pixel];
    for (const layer of this.layers.slice(1)) {
      LEARNING[layer.kind].forward(layer, isTraining);
      if (isTraining && layer.dropout && this.hasDropout) drop(layer, this.random);
    }
    return this.layers.at(-1).output;
  }

  /** The mean loss of the batch that went forward, and how many answers were right. */
  judge(labels, count = this.batch) {
    const { output } = this.layers.at(-1);
    let loss = 0;
    let right = 0;
    for (let image = 0; image < count; image++) {
      loss -= output[labels[image] * this.batch + image];
      if (answerAt(output, this.batch, image) === labels[image]) right += 1;
    }
    return { loss: loss / count, right };
  }

  /** Adds the gradient of the mean loss to the gradients. */
  backward(labels) {
    const { error } = this.layers.at(-1);
    error.fill(0);
    for (let image = 0; image < this.batch; image++)
      error[labels[image] * this.batch + image] = -1 / this.batch;
    for (let n = this.layers.length - 1; n > 0; n--) {
      const layer = this.layers[n];
      if (layer.dropout && this.hasDropout) multiply(layer.error, layer.mask);
      LEARNING[layer.kind].backward(layer);
    }
  }

  /** A step of SGD, with PyTorch's momentum and Nesterov's variant of it. */
  update({ rate, momentum = 0, isNesterov = false }) {
    const { weights, gradients, velocities } = this;
    for (let n = 0; n < weights.length; n++) {
      velocities[n] = momentum * velocities[n] + gradients[n];
      const change = isNesterov ? gradients[n] + momentum * velocities[n] : velocities[n];
      weights[n] -= rate * change;
    }
  }

  /** One step on a batch; returns its loss and the number of right answers before the step. */
  step(images, labels, { isClearing = true, ...settings }) {
    if (isClearing) this.gradients.fill(0);
    this.forward(images, true);
    const result = this.judge(labels);
    this.backward(labels);
    this.update(settings);
    return result;
  }

  /** Puts the weights where `table` says: into the buffer of engine.js and the lens. */
  fill(buffer) {
    for (const [n, layer] of this.table.entries())
      for (const { key, numbers, shape } of this.tensors[n]) {
        const target = layer[key];
        if (layer.groups > 1 && key === "weight") spread(numbers, shape, layer, buffer);
        else buffer.set(numbers, target);
      }
  }
}

/** The digit that the network thinks most likely; -1 if its answers are not numbers. */
function answerAt(output, batch, image) {
  let best = -1;
  let highest = Number.NEGATIVE_INFINITY;
  for (let digit = 0; digit < 10; digit++) {
    const score = output[digit * batch + image];
    if (score > highest) {
      highest = score;
      best = digit;
    }
  }
  return best;
}

/** A convolution with groups, for the table: zeros for the maps that a filter ignores. */
function spread(numbers, [maps, channels, kernel], { weight, groups }, buffer) {
  const area = kernel ** 2;
  const filter = channels * area;
  buffer.fill(0, weight, weight + maps * filter * groups);
  for (let map = 0; map < maps; map++) {
    const group = Math.floor((map * groups) / maps);
    const target = weight + map * filter * groups + group * filter;
    buffer.set(numbers.subarray(map * filter, (map + 1) * filter), target);
  }
}

// --- Dropout, after a layer ---

function multiply(numbers, factors) {
  for (let n = 0; n < numbers.length; n++) numbers[n] *= factors[n];
}

function drop({ output, mask, dropout }, random) {
  const kept = 1 / (1 - dropout);
  for (let n = 0; n < mask.length; n++) mask[n] = random() < dropout ? 0 : kept;
  multiply(output, mask);
}

// --- For each kind of layer: the way forward, and the way back ---
// `backward` gets the error of the layer's output, adds to the gradients of its weights, and writes
// the error of its input.

// Convolutions and linear layers

/** What the kernels need: for a linear layer, that of a convolution of maps with one cell. */
function dimensions({ kind, shape, inputShape, kernel, padding, groups }) {
  if (kind === "linear layer")
    return {
      channels: sizeOf(inputShape),
      maps: shape[2],
      side: 1,
      kernel: 1,
      padding: 0,
      groups: 1,
    };
  const [channels, side] = inputShape;
  return { channels: channels / groups, maps: shape[0] / groups, side, kernel, padding, groups };
}

const addressOf = (numbers, offset = 0) => numbers.byteOffset + 4 * offset;

function convolve(layer) {
  const { kernels, input, weight, bias, output, batch } = layer;
  const { channels, maps, side, kernel, padding, groups } = dimensions(layer);
  for (let group = 0; group < groups; group++)
    kernels.convolve(
      addressOf(input, (group * input.length) / groups),
      addressOf(weight, (group * weight.length) / groups),
      bias ? addressOf(bias, group * maps) : 0,
      addressOf(output, (group * output.length) / groups),
      channels,
      maps,
      side,
      kernel,
      padding,
      batch,
    );
}

function convolveBack(layer) {
  if (layer.biasGradient) addBiasGradient(layer);
  addWeightGradient(layer);
  if (!layer.isFirst) convolveErrors(layer);
}

function addBiasGradient({ kernels, biasGradient, error }) {
  const size = error.length / biasGradient.length;
  for (let unit = 0; unit < biasGradient.length; unit++)
    biasGradient[unit] += kernels.sum(addressOf(error, unit * size), size);
}

function addWeightGradient(layer) {
  const { kernels, input, weightGradient, error, batch } = layer;
  const { channels, maps, side, kernel, padding, groups } = dimensions(layer);
  for (let group = 0; group < groups; group++)
    kernels.addWeightGradient(
      addressOf(input, (group * input.length) / groups),
      addressOf(error, (group * error.length) / groups),
      addressOf(weightGradient, (group * weightGradient.length) / groups),
      channels,
      maps,
      side,
      kernel,
      padding,
      batch,
    );
}

/** The error of the input: a convolution of the output's error, with all filters turned round. */
function convolveErrors(layer) {
  const { kernels, weight, turned, error, inputError, batch } = layer;
  const { channels, maps, side, kernel, padding, groups } = dimensions(layer);
  const outputSide = side + 2 * padding - kernel + 1;
  for (let group = 0; group < groups; group++) {
    turn(weight, turned, (group * weight.length) / groups, { channels, maps, area: kernel ** 2 });
    kernels.convolve(
      addressOf(error, (group * error.length) / groups),
      addressOf(turned),
      0,
      addressOf(inputError, (group * inputError.length) / groups),
      maps,
      channels,
      outputSide,
      kernel,
      kernel - 1 - padding,
      batch,
    );
  }
}

/** Filters [maps, channels, area] become [channels, maps, area], each area back to front. */
function turn(weight, turned, start, { channels, maps, area }) {
  for (let map = 0, n = start; map < maps; map++)
    for (let channel = 0; channel < channels; channel++)
      for (let cell = area - 1; cell >= 0; cell--, n++)
        turned[(channel * maps + map) * area + cell] = weight[n];
}

// ReLU

function relu({ kernels, input, output }) {
  kernels.relu(addressOf(input), addressOf(output), output.length);
}

function reluBack({ kernels, input, error, inputError }) {
  kernels.reluBack(addressOf(input), addressOf(error), addressOf(inputError), error.length);
}

// Batch norm. In training it uses the statistics of the batch, and remembers them for the way back.

function batchNorm(layer, isTraining) {
  const { kernels, input, output, weight, bias, running_mean, running_var, eps } = layer;
  const size = output.length / weight.length;
  for (let unit = 0; unit < weight.length; unit++) {
    if (isTraining) measure(layer, unit, size);
    const mean = isTraining ? layer.means[unit] : running_mean[unit];
    const variance = isTraining ? layer.variances[unit] : running_var[unit];
    const scale = weight[unit] / Math.sqrt(variance + eps);
    const shift = bias[unit] - mean * scale;
    const first = unit * size;
    kernels.transform(addressOf(input, first), addressOf(output, first), scale, shift, size);
  }
}

/** Measures the mean and the variance of a map over the batch, and moves the running ones there. */
function measure({ kernels, input, means, variances, running_mean, running_var }, unit, size) {
  const address = addressOf(input, unit * size);
  means[unit] = kernels.sum(address, size) / size;
  variances[unit] = kernels.sumOfSquares(address, means[unit], size) / size;
  const unbiased = (variances[unit] * size) / (size - 1);
  running_mean[unit] = KEPT * running_mean[unit] + (1 - KEPT) * means[unit];
  running_var[unit] = KEPT * running_var[unit] + (1 - KEPT) * unbiased;
}

function batchNormBack(layer) {
  const { kernels, input, error, inputError, weight, weightGradient, biasGradient } = layer;
  const size = error.length / weight.length;
  for (let unit = 0; unit < weight.length; unit++) {
    const from = addressOf(input, unit * size);
    const errors = addressOf(error, unit * size);
    const mean = layer.means[unit];
    const deviation = Math.sqrt(layer.variances[unit] + layer.eps);
    const sum = kernels.sum(errors, size);
    const product = kernels.sumOfProducts(errors, from, mean, size) / deviation;
    biasGradient[unit] += sum;
    weightGradient[unit] += product;
    const scale = weight[unit] / deviation;
    const slope = (-scale * product) / (deviation * size);
    const shift = (-scale * sum) / size - slope * mean;
    const to = addressOf(inputError, unit * size);
    kernels.combine(errors, from, to, scale, slope, shift, size);
  }
}

// Pooling: windows that lie within the map

/** Calls `visit` with the first number of each cell of the output, and of its window. */
function eachWindow({ shape, inputShape, stride, batch }, visit) {
  const [maps, height, width] = shape;
  const [, inputHeight, inputWidth] = inputShape;
  for (let map = 0, to = 0; map < maps; map++)
    for (let row = 0; row < height; row++)
      for (let column = 0; column < width; column++, to += batch) {
        const top = (map * inputHeight + row * stride) * inputWidth;
        visit(to, (top + column * stride) * batch);
      }
}

/** How far the numbers of a window are from its first one. */
function stepsWithin({ kernel, inputShape, batch }) {
  const places = [...Array(kernel).keys()];
  return places.flatMap((y) => places.map((x) => (y * inputShape[2] + x) * batch));
}

function maxPool(layer) {
  const { input, output, choices, batch } = layer;
  const steps = stepsWithin(layer);
  eachWindow(layer, (to, from) => {
    for (let n = 0; n < batch; n++) {
      let best = from + n;
      for (const step of steps) if (input[from + n + step] > input[best]) best = from + n + step;
      choices[to + n] = best;
      output[to + n] = input[best];
    }
  });
}

function maxPoolBack({ error, inputError, choices }) {
  inputError.fill(0);
  for (let n = 0; n < error.length; n++) inputError[choices[n]] += error[n];
}

function averagePool(layer) {
  const { input, output, batch } = layer;
  const steps = stepsWithin(layer);
  eachWindow(layer, (to, from) => {
    for (let n = 0; n < batch; n++) {
      let sum = 0;
      for (const step of steps) sum += input[from + n + step];
      output[to + n] = sum / steps.length;
    }
  });
}

function averagePoolBack(layer) {
  const { error, inputError, batch } = layer;
  const steps = stepsWithin(layer);
  inputError.fill(0);
  eachWindow(layer, (to, from) => {
    for (let n = 0; n < batch; n++)
      for (const step of steps) inputError[from + n + step] += error[to + n] / steps.length;
  });
}

// Log-softmax

function logSoftmax({ input, output, batch }) {
  for (let image = 0; image < batch; image++) {
    let top = Number.NEGATIVE_INFINITY;
    for (let n = image; n < input.length; n += batch) top = Math.max(top, input[n]);
    let sum = 0;
    for (let n = image; n < input.length; n += batch) sum += Math.exp(input[n] - top);
    const total = top + Math.log(sum);
    for (let n = image; n < input.length; n += batch) output[n] = input[n] - total;
  }
}

function logSoftmaxBack({ output, error, inputError, batch }) {
  for (let image = 0; image < batch; image++) {
    let sum = 0;
    for (let n = image; n < error.length; n += batch) sum += error[n];
    for (let n = image; n < error.length; n += batch)
      inputError[n] = error[n] - Math.exp(output[n]) * sum;
  }
}

const LEARNING = {
  convolution: { forward: convolve, backward: convolveBack },
  "linear layer": { forward: convolve, backward: convolveBack },
  ReLU: { forward: relu, backward: reluBack },
  "batch norm": { forward: batchNorm, backward: batchNormBack },
  "max-pooling": { forward: maxPool, backward: maxPoolBack },
  "average pooling": { forward: averagePool, backward: averagePoolBack },
  "log-softmax": { forward: logSoftmax, backward: logSoftmaxBack },
};
