// The arithmetic of a network's layers, for one image. The lens explains single cells with it, and
// the website's engine computes whole answers with it. Nothing in this file needs a page.
//
// A network is a table, written by course/widgets/lens, and a buffer: a Float32Array that holds all
// weights, and then what each layer computes. The table has an entry for the image and each layer:
//   kind                     "image", "convolution", "ReLU", ...
//   shape                    of its result: [maps, height, width]; [1, 1, n] after a linear layer
//   offset                   where this result begins in the buffer
//   kernel, stride, padding  of a convolution or a pooling layer
//   weight, bias, running_mean, running_var    where they begin in the buffer; null: there are none
//   eps                      of batch norm

export const SIDE = 28; // width and height of an image
const MEAN = 0.1307; // of MNIST's pixels, as in utils.py
const STD = 0.3081;

/** A pixel, from 0 to 255, as networks take it. */
export const normalise = (pixel) => (pixel / 255 - MEAN) / STD;

// --- From the table to layers that can compute ---

export const sizeOf = ([maps, height, width]) => maps * height * width;

/** Where a cell stands in a layer's result. */
export const cellIndex = ([, height, width], map, row, column) =>
  (map * height + row) * width + column;

/** Whether a result is a row of numbers, as that of a linear layer. */
const isFlat = ([maps, height]) => maps === 1 && height === 1;

/** How many biases a layer has: one for each map, or for each number of a row. */
const unitsOf = (shape) => (isFlat(shape) ? shape[2] : shape[0]);

/** How many weights belong to each of these units. */
function weightsPerUnit({ kind, kernel }, inputShape) {
  if (kind === "convolution") return inputShape[0] * kernel ** 2;
  return kind === "linear layer" ? sizeOf(inputShape) : 1;
}

/** The layers, with parts of the buffer in place of offsets: what each reads and what it writes. */
export function connect(layers, buffer) {
  const part = (offset, length) =>
    Number.isInteger(offset) ? buffer.subarray(offset, offset + length) : null;
  return layers.map((layer, place) => {
    const output = part(layer.offset, sizeOf(layer.shape));
    if (place === 0) return { ...layer, output };
    const before = layers[place - 1];
    const units = unitsOf(layer.shape);
    return {
      ...layer,
      output,
      inputShape: before.shape,
      input: part(before.offset, sizeOf(before.shape)),
      weight: part(layer.weight, units * weightsPerUnit(layer, before.shape)),
      bias: part(layer.bias, units),
      running_mean: part(layer.running_mean, units),
      running_var: part(layer.running_var, units),
    };
  });
}

/** Sends a normalised image through connected layers; returns what the last one computes. */
export function forward(layers, image) {
  layers[0].output.set(image);
  for (const layer of layers.slice(1)) LAYERS[layer.kind].forward(layer);
  return layers.at(-1).output.slice();
}

// --- For each kind of layer: one cell, with all that it is made of, and the whole result ---

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** The number before a layer that only changes number by number. */
const inputOf = ({ input, inputShape }, map, row, column) =>
  input[cellIndex(inputShape, map, row, column)];

// The image

const imageCell = ({ output, shape }, map, row, column) => ({
  result: output[cellIndex(shape, map, row, column)],
});

// Convolution

/** A square of a map, as a list of rows; `outside` is what lies beyond the edges: the padding. */
export function patch(maps, shape, map, { top, left, size }, outside = 0) {
  const [, height, width] = shape;
  const cell = (row, column) => {
    const isInside = row >= 0 && column >= 0 && row < height && column < width;
    return isInside ? maps[cellIndex(shape, map, row, column)] : outside;
  };
  const places = [...Array(size).keys()];
  return places.map((y) => places.map((x) => cell(top + y, left + x)));
}

/** The square of a map that a cell sees. */
const squareOf = ({ kernel, stride, padding }, row, column) => ({
  top: row * stride - padding,
  left: column * stride - padding,
  size: kernel,
});

/** For each input map: what the cell sees, the filter's weights, the products and their sum. */
function convolutionCell(layer, map, row, column) {
  const { input, inputShape, weight, bias, kernel } = layer;
  const [channels] = inputShape;
  const filters = [channels, kernel, kernel];
  const parts = [...Array(channels).keys()].map((channel) => {
    const seen = patch(input, inputShape, channel, squareOf(layer, row, column));
    const filter = patch(weight, filters, map * channels + channel, {
      top: 0,
      left: 0,
      size: kernel,
    });
    const products = seen.map((numbers, y) => numbers.map((number, x) => number * filter[y][x]));
    return { seen, filter, products, sum: sum(products.flat()) };
  });
  const shift = bias ? bias[map] : 0;
  return { parts, bias: shift, result: sum(parts.map((part) => part.sum)) + shift };
}

function convolve({ input, inputShape, output, shape, weight, bias, kernel, stride, padding }) {
  const [maps, height, width] = shape;
  const [channels] = inputShape;
  const area = kernel ** 2;
  const planes = withBorder(input, inputShape, padding);
  const sums = new Float64Array(height * width);
  const add = kernel === 3 && stride === 1 ? addThreeByThree : addAny;
  for (let map = 0; map < maps; map++) {
    sums.fill(bias ? bias[map] : 0);
    for (let channel = 0; channel < channels; channel++) {
      const first = (map * channels + channel) * area;
      add(sums, width, planes[channel], weight.subarray(first, first + area), { kernel, stride });
    }
    output.set(sums, map * height * width);
  }
}

/** A list of maps, each with a border of zeros if there is padding: { cells, width }. */
function withBorder(maps, [count, height, width], padding) {
  const wide = width + 2 * padding;
  return [...Array(count).keys()].map((map) => {
    const cells = maps.subarray(map * height * width, (map + 1) * height * width);
    if (padding === 0) return { cells, width };
    const padded = new Float32Array((height + 2 * padding) * wide);
    for (let y = 0; y < height; y++)
      padded.set(cells.subarray(y * width, (y + 1) * width), (y + padding) * wide + padding);
    return { cells: padded, width: wide };
  });
}

/** Adds what one input map contributes. With nine weights in variables this is twice as fast. */
function addThreeByThree(sums, width, { cells, width: wide }, weights) {
  const [a, b, c, d, e, f, g, h, i] = weights;
  for (let n = 0, y = 0; n < sums.length; y++) {
    let p = y * wide;
    let q = p + wide;
    let r = q + wide;
    for (let x = 0; x < width; x++, n++, p++, q++, r++)
      sums[n] +=
        a * cells[p] +
        b * cells[p + 1] +
        c * cells[p + 2] +
        d * cells[q] +
        e * cells[q + 1] +
        f * cells[q + 2] +
        g * cells[r] +
        h * cells[r + 1] +
        i * cells[r + 2];
  }
}

/** The same for any other filter, weight by weight. */
function addAny(sums, width, { cells, width: wide }, weights, { kernel, stride }) {
  for (const [place, weight] of weights.entries()) {
    const row = Math.floor(place / kernel);
    const column = place % kernel;
    for (let n = 0, y = 0; n < sums.length; y++) {
      let p = (y * stride + row) * wide + column;
      for (let x = 0; x < width; x++, n++, p += stride) sums[n] += weight * cells[p];
    }
  }
}

// ReLU

const relu = (number) => Math.max(0, number);

function reluCell(layer, map, row, column) {
  const input = inputOf(layer, map, row, column);
  return { input, result: relu(input) };
}

function reluAll({ input, output }) {
  for (let n = 0; n < output.length; n++) output[n] = relu(input[n]);
}

// Pooling

/** What a cell makes of what it sees. Padding is never the largest, and counts as 0 in a mean. */
function pool(layer, map, row, column) {
  const { kind, input, inputShape, kernel } = layer;
  const [, height, width] = inputShape;
  const { top, left } = squareOf(layer, row, column);
  const isMax = kind === "max-pooling";
  let result = isMax ? Number.NEGATIVE_INFINITY : 0;
  for (let y = Math.max(top, 0); y < Math.min(top + kernel, height); y++)
    for (let x = Math.max(left, 0); x < Math.min(left + kernel, width); x++) {
      const number = input[(map * height + y) * width + x];
      result = isMax ? Math.max(result, number) : result + number / kernel ** 2;
    }
  return result;
}

function poolCell(layer, map, row, column) {
  const { kind, input, inputShape } = layer;
  const outside = kind === "max-pooling" ? Number.NEGATIVE_INFINITY : 0;
  const seen = patch(input, inputShape, map, squareOf(layer, row, column), outside);
  return { seen, result: pool(layer, map, row, column) };
}

function poolAll(layer) {
  const [maps, height, width] = layer.shape;
  let n = 0;
  for (let map = 0; map < maps; map++)
    for (let row = 0; row < height; row++)
      for (let column = 0; column < width; column++, n++)
        layer.output[n] = pool(layer, map, row, column);
}

// Batch norm

/**
 * What is done to all numbers of a map, or to one number of a linear layer. A layer that keeps no
 * statistics takes them from its batch, which is not known here.
 */
function statisticsOf({ running_mean, running_var, weight, bias, eps }, unit) {
  return {
    mean: running_mean ? running_mean[unit] : Number.NaN,
    deviation: running_var ? Math.sqrt(running_var[unit] + eps) : Number.NaN,
    scale: weight ? weight[unit] : 1,
    shift: bias ? bias[unit] : 0,
  };
}

const standardise = (number, { mean, deviation, scale, shift }) =>
  ((number - mean) / deviation) * scale + shift;

function batchNormCell(layer, map, row, column) {
  const input = inputOf(layer, map, row, column);
  const statistics = statisticsOf(layer, isFlat(layer.shape) ? column : map);
  return { input, ...statistics, result: standardise(input, statistics) };
}

function batchNormAll(layer) {
  const { input, output } = layer;
  const units = unitsOf(layer.shape);
  const size = output.length / units; // the cells of a map; 1 for a number of a linear layer
  for (let unit = 0; unit < units; unit++) {
    const statistics = statisticsOf(layer, unit);
    for (let n = unit * size; n < (unit + 1) * size; n++)
      output[n] = standardise(input[n], statistics);
  }
}

// Linear layer

/** One number: a weighted sum of all numbers of the layer before, without the bias. */
function weightedSum({ input, weight }, unit) {
  const first = unit * input.length;
  let total = 0;
  for (let n = 0; n < input.length; n++) total += weight[first + n] * input[n];
  return total;
}

function linearCell(layer, _map, _row, unit) {
  const { input, weight } = layer;
  const count = input.length;
  const products = Array.from(input, (number, n) => {
    const factor = weight[unit * count + n];
    return { n, input: number, weight: factor, product: number * factor };
  });
  products.sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  const total = weightedSum(layer, unit);
  const bias = layer.bias ? layer.bias[unit] : 0;
  return { count, strongest: products.slice(0, 5), total, bias, result: total + bias };
}

function linearAll(layer) {
  const { output, bias } = layer;
  for (let unit = 0; unit < output.length; unit++)
    output[unit] = weightedSum(layer, unit) + (bias ? bias[unit] : 0);
}

// Log-softmax

/** The logarithm of the sum of the scores' exponentials, none of which becomes infinite. */
function logOfSum(scores) {
  const top = Math.max(...scores);
  return top + Math.log(scores.reduce((total, score) => total + Math.exp(score - top), 0));
}

function logSoftmaxCell({ input }, _map, _row, column) {
  const total = logOfSum(input);
  return { input: input[column], total, result: input[column] - total };
}

function logSoftmaxAll({ input, output }) {
  const total = logOfSum(input);
  for (let n = 0; n < output.length; n++) output[n] = input[n] - total;
}

export const LAYERS = {
  image: { cell: imageCell },
  convolution: { cell: convolutionCell, forward: convolve },
  ReLU: { cell: reluCell, forward: reluAll },
  "max-pooling": { cell: poolCell, forward: poolAll },
  "average pooling": { cell: poolCell, forward: poolAll },
  "batch norm": { cell: batchNormCell, forward: batchNormAll },
  "linear layer": { cell: linearCell, forward: linearAll },
  "log-softmax": { cell: logSoftmaxCell, forward: logSoftmaxAll },
};
