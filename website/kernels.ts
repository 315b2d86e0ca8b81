// The sums of products that training spends its time on, in AssemblyScript: TypeScript for
// WebAssembly. `make site` compiles this file to kernels.wasm, and training.js calls it.
//
// The numbers of a batch stand side by side: a layer's result is [maps, side, side, batch], so four
// images are computed at once, in one instruction on a v128 (four 32-bit numbers). `batch` is a
// multiple of 16. Addresses are in bytes; a number takes 4, and four numbers 16.

/** The first of a filter's rows (or columns) that meets the map, for the cell at `place`. */
@inline
function first(place: i32, padding: i32): i32 {
  return max(0, padding - place);
}

/** The end of these rows: the first one beyond the map. */
@inline
function end(place: i32, padding: i32, kernel: i32, side: i32): i32 {
  return min(kernel, side + padding - place);
}

@inline
function multiplyAdd(sum: v128, a: v128, b: v128): v128 {
  return f32x4.add(sum, f32x4.mul(a, b));
}

/**
 * A convolution with stride 1: from `channels` maps to `maps`, each weight [maps, channels, kernel,
 * kernel]. A linear layer is a convolution of maps with a single cell. `bias` 0: there is none.
 */
export function convolve(
  input: usize, weight: usize, bias: usize, output: usize,
  channels: i32, maps: i32, side: i32, kernel: i32, padding: i32, batch: i32,
): void {
  const outSide = side + 2 * padding - kernel + 1;
  const filter = channels * kernel * kernel * 4; // the bytes of a filter
  const row = outSide * batch * 4; // of a row of a map of the output
  const map = outSide * row;
  for (let y = 0; y < outSide; y++) {
    let n = 0;
    for (; n + 4 <= maps; n += 4) {
      const b = bias ? bias + n * 4 : 0;
      fourRows(input, weight + n * filter, b, output + n * map + y * row,
        channels, y, side, kernel, padding, batch);
    }
    for (; n < maps; n++) {
      const b = bias ? bias + n * 4 : 0;
      oneRow(input, weight + n * filter, b, output + n * map + y * row,
        channels, y, side, kernel, padding, batch);
    }
  }
}

/** Row `y` of four maps: each input number that is loaded serves four filters. */
function fourRows(
  input: usize, weight: usize, bias: usize, output: usize,
  channels: i32, y: i32, side: i32, kernel: i32, padding: i32, batch: i32,
): void {
  const outSide = side + 2 * padding - kernel + 1;
  const filter = channels * kernel * kernel * 4;
  const map = outSide * outSide * batch * 4;
  const top = first(y, padding);
  const bottom = end(y, padding, kernel, side);
  const zero = f32x4.splat(0);
  const bias0 = bias ? v128.load32_splat(bias) : zero;
  const bias1 = bias ? v128.load32_splat(bias, 4) : zero;
  const bias2 = bias ? v128.load32_splat(bias, 8) : zero;
  const bias3 = bias ? v128.load32_splat(bias, 12) : zero;
  for (let x = 0; x < outSide; x++) {
    const left = first(x, padding);
    const right = end(x, padding, kernel, side);
    for (let n = 0; n < batch; n += 8) {
      let a0 = bias0, a1 = bias1, a2 = bias2, a3 = bias3;
      let b0 = bias0, b1 = bias1, b2 = bias2, b3 = bias3;
      for (let c = 0; c < channels; c++)
        for (let j = top; j < bottom; j++) {
          const seen = (c * side + y + j - padding) * side + x - padding;
          let from = input + (((seen + left) * batch + n) << 2);
          let w = weight + (((c * kernel + j) * kernel + left) << 2);
          for (let i = left; i < right; i++, from += batch << 2, w += 4) {
            const a = v128.load(from);
            const b = v128.load(from, 16);
            const w0 = v128.load32_splat(w);
            a0 = multiplyAdd(a0, w0, a);
            b0 = multiplyAdd(b0, w0, b);
            const w1 = v128.load32_splat(w + filter);
            a1 = multiplyAdd(a1, w1, a);
            b1 = multiplyAdd(b1, w1, b);
            const w2 = v128.load32_splat(w + 2 * filter);
            a2 = multiplyAdd(a2, w2, a);
            b2 = multiplyAdd(b2, w2, b);
            const w3 = v128.load32_splat(w + 3 * filter);
            a3 = multiplyAdd(a3, w3, a);
            b3 = multiplyAdd(b3, w3, b);
          }
        }
      const to = output + ((x * batch + n) << 2);
      v128.store(to, a0);
      v128.store(to, b0, 16);
      v128.store(to + map, a1);
      v128.store(to + map, b1, 16);
      v128.store(to + 2 * map, a2);
      v128.store(to + 2 * map, b2, 16);
      v128.store(to + 3 * map, a3);
      v128.store(to + 3 * map, b3, 16);
    }
  }
}

/** The same for one map, sixteen images at a time. */
function oneRow(
  input: usize, weight: usize, bias: usize, output: usize,
  channels: i32, y: i32, side: i32, kernel: i32, padding: i32, batch: i32,
): void {
  const outSide = side + 2 * padding - kernel + 1;
  const top = first(y, padding);
  const bottom = end(y, padding, kernel, side);
  const start = bias ? v128.load32_splat(bias) : f32x4.splat(0);
  for (let x = 0; x < outSide; x++) {
    const left = first(x, padding);
    const right = end(x, padding, kernel, side);
    for (let n = 0; n < batch; n += 16) {
      let a = start, b = start, c = start, d = start;
      for (let channel = 0; channel < channels; channel++)
        for (let j = top; j < bottom; j++) {
          const seen = (channel * side + y + j - padding) * side + x - padding;
          let from = input + (((seen + left) * batch + n) << 2);
          let w = weight + (((channel * kernel + j) * kernel + left) << 2);
          for (let i = left; i < right; i++, from += batch << 2, w += 4) {
            const factor = v128.load32_splat(w);
            a = multiplyAdd(a, factor, v128.load(from));
            b = multiplyAdd(b, factor, v128.load(from, 16));
            c = multiplyAdd(c, factor, v128.load(from, 32));
            d = multiplyAdd(d, factor, v128.load(from, 48));
          }
        }
      const to = output + ((x * batch + n) << 2);
      v128.store(to, a);
      v128.store(to, b, 16);
      v128.store(to, c, 32);
      v128.store(to, d, 48);
    }
  }
}

/** Adds the gradient of a convolution's weights to `gradient`; `error` is that of its output. */
export function addWeightGradient(
  input: usize, error: usize, gradient: usize,
  channels: i32, maps: i32, side: i32, kernel: i32, padding: i32, batch: i32,
): void {
  const outSide = side + 2 * padding - kernel + 1;
  const map = outSide * outSide * batch * 4;
  const filter = channels * kernel * kernel * 4;
  for (let y = 0; y < outSide; y++) {
    const top = first(y, padding);
    const bottom = end(y, padding, kernel, side);
    const errors = error + y * outSide * batch * 4;
    for (let c = 0; c < channels; c++)
      for (let j = top; j < bottom; j++) {
        const row = input + (c * side + y + j - padding) * side * batch * 4;
        const weights = gradient + (c * kernel + j) * kernel * 4;
        let n = 0;
        for (; n + 4 <= maps; n += 4)
          fourMaps(row, errors + n * map, weights + n * filter, filter, side, kernel, padding, batch);
        for (; n < maps; n++)
          oneMap(row, errors + n * map, weights + n * filter, side, kernel, padding, batch);
      }
  }
}

@inline
function addTotal(address: usize, sums: v128): void {
  const total = f32x4.extract_lane(sums, 0) + f32x4.extract_lane(sums, 1) +
    (f32x4.extract_lane(sums, 2) + f32x4.extract_lane(sums, 3));
  store<f32>(address, load<f32>(address) + total);
}

/** What a row of the input and a row of the errors add to a row of the weights, for four maps. */
function fourMaps(
  row: usize, errors: usize, weights: usize, filter: i32,
  side: i32, kernel: i32, padding: i32, batch: i32,
): void {
  const outSide = side + 2 * padding - kernel + 1;
  const map = outSide * outSide * batch * 4;
  for (let i = 0; i < kernel; i++) {
    const left = max(0, padding - i);
    const right = min(outSide, side + padding - i);
    let a = f32x4.splat(0), b = a, c = a, d = a;
    let from = row + (left + i - padding) * batch * 4;
    let error = errors + left * batch * 4;
    const stop = errors + right * batch * 4;
    for (; error < stop; error += 16, from += 16) {
      const seen = v128.load(from);
      a = multiplyAdd(a, seen, v128.load(error));
      b = multiplyAdd(b, seen, v128.load(error + map));
      c = multiplyAdd(c, seen, v128.load(error + 2 * map));
      d = multiplyAdd(d, seen, v128.load(error + 3 * map));
    }
    const weight = weights + i * 4;
    addTotal(weight, a);
    addTotal(weight + filter, b);
    addTotal(weight + 2 * filter, c);
    addTotal(weight + 3 * filter, d);
  }
}

/** The same for one map. */
function oneMap(
  row: usize, errors: usize, weights: usize,
  side: i32, kernel: i32, padding: i32, batch: i32,
): void {
  const outSide = side + 2 * padding - kernel + 1;
  for (let i = 0; i < kernel; i++) {
    const left = max(0, padding - i);
    const right = min(outSide, side + padding - i);
    let a = f32x4.splat(0), b = a, c = a, d = a;
    let from = row + (left + i - padding) * batch * 4;
    let error = errors + left * batch * 4;
    const stop = errors + right * batch * 4;
    for (; error < stop; error += 64, from += 64) {
      a = multiplyAdd(a, v128.load(from), v128.load(error));
      b = multiplyAdd(b, v128.load(from, 16), v128.load(error, 16));
      c = multiplyAdd(c, v128.load(from, 32), v128.load(error, 32));
      d = multiplyAdd(d, v128.load(from, 48), v128.load(error, 48));
    }
    addTotal(weights + i * 4, f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
  }
}

// --- Layers that change number by number; `length` is a multiple of 16 ---

/** ReLU. Not a number stays so, as in PyTorch. */
export function relu(input: usize, output: usize, length: i32): void {
  const zero = f32x4.splat(0);
  for (let n: usize = 0, stop = <usize>length * 4; n < stop; n += 16)
    v128.store(output + n, f32x4.max(v128.load(input + n), zero));
}

export function reluBack(input: usize, error: usize, inputError: usize, length: i32): void {
  const zero = f32x4.splat(0);
  for (let n: usize = 0, stop = <usize>length * 4; n < stop; n += 16) {
    const isPositive = f32x4.gt(v128.load(input + n), zero);
    v128.store(inputError + n, v128.and(isPositive, v128.load(error + n)));
  }
}

@inline
function totalOf(sums: v128): f64 {
  return (<f64>f32x4.extract_lane(sums, 0) + <f64>f32x4.extract_lane(sums, 1)) +
    (<f64>f32x4.extract_lane(sums, 2) + <f64>f32x4.extract_lane(sums, 3));
}

/** The sum of numbers: sixteen at a time with 32 bits, these sums with 64. */
export function sum(numbers: usize, length: i32): f64 {
  let total: f64 = 0;
  for (let n: usize = 0, stop = <usize>length * 4; n < stop; n += 64) {
    const a = f32x4.add(v128.load(numbers + n), v128.load(numbers + n, 16));
    const b = f32x4.add(v128.load(numbers + n, 32), v128.load(numbers + n, 48));
    total += totalOf(f32x4.add(a, b));
  }
  return total;
}

/** The sum of a · (b − mean). */
export function sumOfProducts(a: usize, b: usize, mean: f32, length: i32): f64 {
  const middle = f32x4.splat(mean);
  let total: f64 = 0;
  for (let n: usize = 0, stop = <usize>length * 4; n < stop; n += 64) {
    let sums = f32x4.splat(0);
    for (let m = n; m < n + 64; m += 16)
      sums = multiplyAdd(sums, v128.load(a + m), f32x4.sub(v128.load(b + m), middle));
    total += totalOf(sums);
  }
  return total;
}

/** The sum of (number − mean)². */
export function sumOfSquares(numbers: usize, mean: f32, length: i32): f64 {
  const middle = f32x4.splat(mean);
  let total: f64 = 0;
  for (let n: usize = 0, stop = <usize>length * 4; n < stop; n += 64) {
    let sums = f32x4.splat(0);
    for (let m = n; m < n + 64; m += 16) {
      const distance = f32x4.sub(v128.load(numbers + m), middle);
      sums = multiplyAdd(sums, distance, distance);
    }
    total += totalOf(sums);
  }
  return total;
}

/** output = scale · input + shift */
export function transform(
  input: usize, output: usize, scale: f32, shift: f32, length: i32,
): void {
  const factor = f32x4.splat(scale);
  const offset = f32x4.splat(shift);
  for (let n: usize = 0, stop = <usize>length * 4; n < stop; n += 16)
    v128.store(output + n, multiplyAdd(offset, factor, v128.load(input + n)));
}

/** output = scale · a + slope · b + shift */
export function combine(
  a: usize, b: usize, output: usize, scale: f32, slope: f32, shift: f32, length: i32,
): void {
  const factor = f32x4.splat(scale);
  const other = f32x4.splat(slope);
  const offset = f32x4.splat(shift);
  for (let n: usize = 0, stop = <usize>length * 4; n < stop; n += 16) {
    const scaled = multiplyAdd(offset, factor, v128.load(a + n));
    v128.store(output + n, multiplyAdd(scaled, other, v128.load(b + n)));
  }
}
