// The course's networks in plain JavaScript, so that they run in a visitor's browser. No network is described here:
// website/networks.py exports each one's layers (a table) and weights (numbers) from PyTorch.

const SIDE = 28; // width and height of a picture
const [MEAN, STD] = [0.1307, 0.3081]; // of MNIST's pixels, as in utils.py
const TINY = 1e-6; // as in course/widgets/pad: breaks ties in rounding

/** Fetches a network: its layers, and room for its weights and for what each layer makes of a picture. */
export async function load(name, folder) {
  const [table, weights] = await Promise.all(
    ["json", "bin"].map(async (ending) => {
      const answer = await fetch(new URL(`${name}.${ending}`, folder));
      if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
      return ending === "json" ? answer.json() : answer.arrayBuffer();
    }),
  );
  const numbers = new Float32Array(table.size);
  numbers.set(new Float32Array(weights)); // they come first, then the layers' results
  return { ...table, numbers };
}

/** Sends a normalised picture through a network; returns ten log-probabilities. */
export function run({ layers, numbers }, picture) {
  numbers.set(picture, layers[0].at);
  for (const [n, layer] of layers.entries()) if (n > 0) LAYERS[layer.kind](numbers, layers[n - 1], layer);
  const { at, shape } = layers.at(-1);
  return numbers.slice(at, at + shape[2]);
}

// --- The layers: each reads what the layer before it wrote, and writes its own result ---

const LAYERS = {
  convolution(numbers, before, layer) {
    const [maps, height, width] = layer.shape;
    const { kernel, stride } = layer;
    const [input, tall, wide] = withBorder(numbers, before, layer.padding);
    const channels = before.shape[0];
    const sums = new Float64Array(height * width);
    for (let map = 0; map < maps; map++) {
      sums.fill(layer.bias === null ? 0 : numbers[layer.bias + map]);
      for (let channel = 0; channel < channels; channel++) {
        const first = layer.weight + (map * channels + channel) * kernel * kernel;
        const weights = numbers.subarray(first, first + kernel * kernel);
        const start = channel * tall * wide;
        if (kernel === 3 && stride === 1) addThreeByThree(sums, input, start, wide, weights, height, width);
        else addAny(sums, input, start, wide, weights, kernel, stride, height, width);
      }
      numbers.set(sums, layer.at + map * height * width);
    }
  },
  ReLU(numbers, before, layer) {
    const count = size(layer);
    for (let n = 0; n < count; n++) numbers[layer.at + n] = Math.max(0, numbers[before.at + n]);
  },
  "batch norm"(numbers, before, layer) {
    const [maps, height, width] = layer.shape;
    for (let map = 0; map < maps; map++) {
      const deviation = Math.sqrt(numbers[layer.running_var + map] + layer.eps);
      const scale = (layer.weight === null ? 1 : numbers[layer.weight + map]) / deviation;
      const centre = layer.bias === null ? 0 : numbers[layer.bias + map];
      const shift = centre - numbers[layer.running_mean + map] * scale;
      for (let n = map * height * width; n < (map + 1) * height * width; n++)
        numbers[layer.at + n] = numbers[before.at + n] * scale + shift;
    }
  },
  "max-pooling": (numbers, before, layer) => pool(numbers, before, layer, Number.NEGATIVE_INFINITY, Math.max),
  "average pooling": (numbers, before, layer) =>
    pool(numbers, before, layer, 0, (mean, number) => mean + number / layer.kernel ** 2),
  "linear layer"(numbers, before, layer) {
    const count = size(before);
    for (let row = 0; row < layer.shape[2]; row++) {
      let sum = layer.bias === null ? 0 : numbers[layer.bias + row];
      const first = layer.weight + row * count;
      for (let n = 0; n < count; n++) sum += numbers[first + n] * numbers[before.at + n];
      numbers[layer.at + row] = sum;
    }
  },
  "log-softmax"(numbers, before, layer) {
    const scores = numbers.slice(before.at, before.at + size(before));
    const top = Math.max(...scores); // so that no exponential becomes infinite
    const total = top + Math.log(scores.reduce((sum, score) => sum + Math.exp(score - top), 0));
    for (const [n, score] of scores.entries()) numbers[layer.at + n] = score - total;
  },
};

const size = ({ shape }) => shape[0] * shape[1] * shape[2];

/** A layer's maps, with a border of zeros if there is padding: [numbers, height, width]. */
function withBorder(numbers, { at, shape: [maps, height, width] }, padding) {
  if (!padding) return [numbers.subarray(at, at + maps * height * width), height, width];
  const [tall, wide] = [height + 2 * padding, width + 2 * padding];
  const padded = new Float32Array(maps * tall * wide);
  for (let map = 0; map < maps; map++)
    for (let y = 0; y < height; y++) {
      const row = at + (map * height + y) * width;
      padded.set(numbers.subarray(row, row + width), (map * tall + y + padding) * wide + padding);
    }
  return [padded, tall, wide];
}

/** Adds what one input map contributes to a map. With the nine weights in variables this is twice as fast. */
function addThreeByThree(sums, input, start, wide, weights, height, width) {
  const [a, b, c, d, e, f, g, h, i] = weights;
  for (let y = 0, n = 0; y < height; y++) {
    let p = start + y * wide;
    let q = p + wide;
    let r = q + wide;
    for (let x = 0; x < width; x++, n++, p++, q++, r++)
      sums[n] +=
        a * input[p] +
        b * input[p + 1] +
        c * input[p + 2] +
        d * input[q] +
        e * input[q + 1] +
        f * input[q + 2] +
        g * input[r] +
        h * input[r + 1] +
        i * input[r + 2];
  }
}

function addAny(sums, input, start, wide, weights, kernel, stride, height, width) {
  for (let row = 0, k = 0; row < kernel; row++)
    for (let column = 0; column < kernel; column++, k++)
      for (let y = 0, n = 0; y < height; y++) {
        let p = start + (y * stride + row) * wide + column;
        for (let x = 0; x < width; x++, n++, p += stride) sums[n] += weights[k] * input[p];
      }
}

function pool(numbers, before, { at, shape, kernel, stride }, empty, add) {
  const [, tall, wide] = before.shape;
  const [maps, height, width] = shape;
  for (let map = 0, n = at; map < maps; map++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++, n++) {
        let result = empty;
        for (let row = y * stride; row < y * stride + kernel; row++)
          for (let column = x * stride; column < x * stride + kernel; column++)
            result = add(result, numbers[before.at + (map * tall + row) * wide + column]);
        numbers[n] = result;
      }
}

// --- From a drawing to the network's answer, as course/widgets/pad does it ---

/** Turns a square drawing (bytes of ink) into a picture like MNIST's; null if it is empty. */
export function prepare(drawing, side) {
  const inked = { rows: [], columns: [] };
  for (let n = 0; n < side; n++) {
    if (drawing.subarray(n * side, (n + 1) * side).some(Boolean)) inked.rows.push(n);
    for (let y = 0; y < side; y++)
      if (drawing[y * side + n]) {
        inked.columns.push(n);
        break;
      }
  }
  if (!inked.rows.length) return null;
  const [top, left] = [inked.rows[0], inked.columns[0]];
  const [height, width] = [inked.rows.at(-1) - top + 1, inked.columns.at(-1) - left + 1];
  const digit = [...Array(height).keys()].map((y) =>
    Array.from(drawing.subarray((top + y) * side + left, (top + y) * side + left + width)),
  );
  const scale = 20 / Math.max(height, width, side / 5);
  const [rows, columns] = [height, width].map((length) => Math.max(1, roundToEven(scale * length)));
  const narrow = digit.map((row) => resize(row, columns));
  const small = transpose(transpose(narrow).map((column) => resize(column, rows)));
  const total = (numbers) => numbers.reduce((sum, number) => sum + number, 0);
  const [firstRow, firstColumn] = [small, transpose(small)].map((lines) => start(lines.map(total)));
  const brightest = Math.max(...small.flat());
  const picture = new Uint8Array(SIDE * SIDE);
  for (const [y, row] of small.entries())
    for (const [x, ink] of row.entries())
      picture[(firstRow + y) * SIDE + firstColumn + x] = Math.round((255 * ink) / brightest + TINY);
  return picture;
}

const transpose = (rows) => rows[0].map((_, x) => rows.map((row) => row[x]));

/** Rounds as Python does: 2.5 becomes 2, and 3.5 becomes 4. */
const roundToEven = (number) => (number % 1 === 0.5 ? 2 * Math.round(number / 2) : Math.round(number));

/** Resizes a line of numbers. Each new one is a mean of the old ones around it, weighted by their distance. */
function resize(line, count) {
  const scale = line.length / count;
  const reach = Math.max(scale, 1);
  return [...Array(count).keys()].map((n) => {
    const centre = scale * (n + 0.5);
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const near = line.slice(first, Math.trunc(centre + reach + 0.5));
    const weights = near.map((_, k) => Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / reach)));
    const all = weights.reduce((sum, weight) => sum + weight, 0);
    return near.reduce((sum, number, k) => sum + number * (weights[k] / all), 0);
  });
}

/** Where in 28 pixels a digit must begin, so that its centre of mass is in the middle. */
function start(ink) {
  const mass = ink.reduce((sum, number) => sum + number, 0);
  const centre = ink.reduce((sum, number, n) => sum + number * (n + 0.5), 0) / mass;
  return Math.min(Math.max(Math.ceil(SIDE / 2 - centre - TINY), 0), SIDE - ink.length);
}

/** A picture turned, shifted and scaled a little, and normalised for the network. */
export function vary(picture, { angle, shift, scale }) {
  const [cos, sin] = [Math.cos, Math.sin].map((f) => f((angle * Math.PI) / 180) / scale);
  const view = new Float32Array(SIDE * SIDE);
  const at = (x, y) => (x < 0 || y < 0 || x >= SIDE || y >= SIDE ? 0 : picture[y * SIDE + x]);
  for (let row = 0; row < SIDE; row++)
    for (let column = 0; column < SIDE; column++) {
      // Where in the old picture this pixel comes from, measured from its middle.
      const [u, v] = [column + 0.5 - SIDE / 2 - shift[0], row + 0.5 - SIDE / 2 - shift[1]];
      const [x, y] = [cos * u - sin * v + SIDE / 2 - 0.5, sin * u + cos * v + SIDE / 2 - 0.5];
      const [left, top] = [Math.floor(x), Math.floor(y)];
      const [right, low] = [x - left, y - top];
      const ink =
        (1 - low) * ((1 - right) * at(left, top) + right * at(left + 1, top)) +
        low * ((1 - right) * at(left, top + 1) + right * at(left + 1, top + 1));
      view[row * SIDE + column] = (ink / 255 - MEAN) / STD;
    }
  return view;
}

/** The network's ten probabilities for one view of a picture. */
export const answer = (network, picture, view) => run(network, vary(picture, view)).map(Math.exp);
