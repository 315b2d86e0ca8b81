// What website/kernels.ts computes, as loops in plain JavaScript: for comparison. Only `convolve` and
// `addWeightGradient` take noticeable time; they hold the nine weights of a 3×3 filter in variables.

const PAGE = 65536; // bytes

/** A memory that is used and enlarged like WebAssembly's. */
class Memory {
  numbers = new Float32Array(PAGE / 4);

  get buffer() {
    return this.numbers.buffer;
  }
  grow(pages) {
    const larger = new Float32Array(this.numbers.length + (pages * PAGE) / 4);
    larger.set(this.numbers);
    this.numbers = larger;
  }
}

/** Takes the place of the compiled kernels. Addresses are in bytes; a number takes 4 of them. */
export class PlainKernels {
  memory = new Memory();

  #part(address, length) {
    return this.memory.numbers.subarray(address / 4, address / 4 + length);
  }

  /** Calls `visit` with the weights of each input map in each filter, the map, and their places. */
  #eachFilter(input, weight, [channels, maps, side, kernel, padding, batch], visit) {
    const wide = side + 2 * padding;
    const plain = this.#part(input, channels * side * side * batch);
    const seen = padding > 0 ? withBorder(plain, channels, side, padding, batch) : plain;
    const area = wide * wide * batch;
    for (let map = 0, n = 0; map < maps; map++)
      for (let c = 0; c < channels; c++, n++) {
        const filter = this.#part(weight + 4 * n * kernel ** 2, kernel ** 2);
        visit(filter, seen.subarray(c * area, (c + 1) * area), map, wide);
      }
  }

  convolve(input, weight, bias, output, ...dimensions) {
    const [, maps, side, kernel, padding, batch] = dimensions;
    const outSide = side + 2 * padding - kernel + 1;
    const size = outSide * outSide * batch;
    const add = kernel === 3 ? addNine : addAny;
    const all = this.#part(output, maps * size);
    for (let n = 0; n < all.length; n++)
      all[n] = bias ? this.memory.numbers[bias / 4 + Math.floor(n / size)] : 0;
    this.#eachFilter(input, weight, dimensions, (filter, plane, map, wide) => {
      add(all.subarray(map * size, (map + 1) * size), plane, filter, outSide, wide, batch);
    });
  }

  addWeightGradient(input, error, gradient, ...dimensions) {
    const [, , side, kernel, padding, batch] = dimensions;
    const outSide = side + 2 * padding - kernel + 1;
    const size = outSide * outSide * batch;
    const add = kernel === 3 ? addNineProducts : addAnyProducts;
    this.#eachFilter(input, gradient, dimensions, (filter, plane, map, wide) => {
      const errors = this.#part(error + 4 * map * size, size);
      add(filter, plane, errors, outSide, wide, batch);
    });
  }

  relu(input, output, length) {
    const from = this.#part(input, length);
    const to = this.#part(output, length);
    for (let n = 0; n < length; n++) to[n] = from[n] < 0 ? 0 : from[n];
  }
  reluBack(input, error, inputError, length) {
    const seen = this.#part(input, length);
    const from = this.#part(error, length);
    const to = this.#part(inputError, length);
    for (let n = 0; n < length; n++) to[n] = seen[n] > 0 ? from[n] : 0;
  }
  sum(address, length) {
    let sum = 0;
    for (const number of this.#part(address, length)) sum += number;
    return sum;
  }
  sumOfProducts(a, b, mean, length) {
    const first = this.#part(a, length);
    const second = this.#part(b, length);
    let sum = 0;
    for (let n = 0; n < length; n++) sum += first[n] * (second[n] - mean);
    return sum;
  }
  sumOfSquares(address, mean, length) {
    let sum = 0;
    for (const number of this.#part(address, length)) sum += (number - mean) ** 2;
    return sum;
  }
  transform(input, output, scale, shift, length) {
    const from = this.#part(input, length);
    const to = this.#part(output, length);
    for (let n = 0; n < length; n++) to[n] = scale * from[n] + shift;
  }
  combine(a, b, output, ...factors) {
    const [scale, slope, shift, length] = factors;
    const first = this.#part(a, length);
    const second = this.#part(b, length);
    const to = this.#part(output, length);
    for (let n = 0; n < length; n++) to[n] = scale * first[n] + slope * second[n] + shift;
  }
}

/** Maps with a border of zeros. */
function withBorder(maps, count, side, padding, batch) {
  const wide = side + 2 * padding;
  const padded = new Float32Array(count * wide * wide * batch);
  for (let row = 0; row < count * side; row++) {
    const top = Math.floor(row / side) * wide + (row % side) + padding;
    const cells = maps.subarray(row * side * batch, (row + 1) * side * batch);
    padded.set(cells, (top * wide + padding) * batch);
  }
  return padded;
}

function addNine(sums, plane, [a, b, c, d, e, f, g, h, i], outSide, wide, batch) {
  const next = batch;
  const last = 2 * batch;
  for (let y = 0, n = 0; y < outSide; y++) {
    let p = y * wide * batch;
    let q = p + wide * batch;
    let r = q + wide * batch;
    for (let x = 0; x < outSide * batch; x++, n++, p++, q++, r++)
      sums[n] +=
        a * plane[p] +
        b * plane[p + next] +
        c * plane[p + last] +
        d * plane[q] +
        e * plane[q + next] +
        f * plane[q + last] +
        g * plane[r] +
        h * plane[r + next] +
        i * plane[r + last];
  }
}

function addAny(sums, plane, filter, outSide, wide, batch) {
  const kernel = Math.sqrt(filter.length);
  for (const [place, weight] of filter.entries()) {
    const first = Math.floor(place / kernel) * wide + (place % kernel);
    for (let y = 0, n = 0; y < outSide; y++) {
      let p = (first + y * wide) * batch;
      for (let x = 0; x < outSide * batch; x++, n++, p++) sums[n] += weight * plane[p];
    }
  }
}

function addNineProducts(filter, plane, errors, outSide, wide, batch) {
  let [a, b, c, d, e, f, g, h, i] = filter;
  const next = batch;
  const last = 2 * batch;
  for (let y = 0, n = 0; y < outSide; y++) {
    let p = y * wide * batch;
    let q = p + wide * batch;
    let r = q + wide * batch;
    for (let x = 0; x < outSide * batch; x++, n++, p++, q++, r++) {
      const error = errors[n];
      a += error * plane[p];
      b += error * plane[p + next];
      c += error * plane[p + last];
      d += error * plane[q];
      e += error * plane[q + next];
      f += error * plane[q + last];
      g += error * plane[r];
      h += error * plane[r + next];
      i += error * plane[r + last];
    }
  }
  filter.set([a, b, c, d, e, f, g, h, i]);
}

function addAnyProducts(filter, plane, errors, outSide, wide, batch) {
  const kernel = Math.sqrt(filter.length);
  for (let place = 0; place < filter.length; place++) {
    const first = Math.floor(place / kernel) * wide + (place % kernel);
    let sum = 0;
    for (let y = 0, n = 0; y < outSide; y++) {
      let p = (first + y * wide) * batch;
      for (let x = 0; x < outSide * batch; x++, n++, p++) sum += errors[n] * plane[p];
    }
    filter[place] += sum;
  }
}
