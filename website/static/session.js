// One training on the playground, from the first random weights on: batches, steps, what is
// measured in between, and the file with the weights. Nothing in this file needs a page.

import { vary } from "./engine.js";
import { normalise, SIDE } from "./layers.js";
import { Trainer } from "./training.js";

const PIXELS = SIDE * SIDE;
const TRAINING = 4000; // digits; the others are the unseen ones
const MEASURED = 500; // training digits on which the accuracy is measured
export const SHOWN = 12; // unseen digits whose answers are shown
const MOMENTUM = 0.9;
const HALVING = 20_000; // images: after so many, a falling rate is half of what it was at first
const EQUAL = 0.01; // what all weights start at, if that mistake is made
const VARIATION = { angle: 10, shift: 2, scale: 0.08 }; // of augmented digits, at most

/** The exported digits: pictures as bytes, then labels. */
export function readDigits(bytes) {
  const count = bytes.length / (PIXELS + 1);
  const pictures = bytes.subarray(0, count * PIXELS);
  const labels = bytes.subarray(count * PIXELS);
  return { count, labels, picture: (n) => pictures.subarray(n * PIXELS, (n + 1) * PIXELS) };
}

/** A generator of random numbers from 0 to 1: the same seed, the same numbers (mulberry32). */
export function seeded(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffle(list, random) {
  for (let n = list.length - 1; n > 0; n--) {
    const other = Math.floor(random() * (n + 1));
    [list[n], list[other]] = [list[other], list[n]];
  }
}

export class Session {
  steps = 0;
  images = 0; // that were trained on
  losses = []; // of the steps since they were last taken
  isBroken = false; // the loss is no number any more

  constructor(kernels, digits, table, settings) {
    this.digits = digits;
    const seed = settings.seed ?? Math.floor(Math.random() * 1e6);
    this.random = seeded(seed);
    this.trainer = new Trainer(kernels, table, { random: this.random });
    this.change(settings);
    if (settings.equal) this.trainer.start(EQUAL);
  }

  /** Takes over other settings; the training goes on with them. */
  change(settings) {
    if (settings.batch !== this.trainer.batch) this.trainer.setBatchSize(settings.batch);
    this.batch = new Float32Array(settings.batch * PIXELS);
    this.labels = new Uint8Array(settings.batch);
    if (settings.digits !== this.settings?.digits) {
      this.order = [...Array(settings.digits).keys()];
      this.next = settings.digits; // shuffle first
    }
    this.settings = settings;
    this.prepare = settings.raw ? (pixel) => pixel : normalise;
  }

  /** Puts a digit into the batch: varied at random, or as it is. */
  #put(lane, n, isVaried) {
    const target = this.batch.subarray(lane * PIXELS, (lane + 1) * PIXELS);
    const picture = this.digits.picture(n);
    if (isVaried) vary(picture, this.#variation(), this.prepare, target);
    else for (let pixel = 0; pixel < PIXELS; pixel++) target[pixel] = this.prepare(picture[pixel]);
    this.labels[lane] = this.digits.labels[n];
  }
  #variation() {
    const upTo = (limit) => (2 * this.random() - 1) * limit;
    const { angle, shift, scale } = VARIATION;
    return { angle: upTo(angle), shift: [upTo(shift), upTo(shift)], scale: 1 + upTo(scale) };
  }

  /** The learning rate now: half, a third, a quarter of the one that was set, as training goes on. */
  get rate() {
    const { rate, fall } = this.settings;
    return fall ? rate / (1 + this.images / HALVING) : rate;
  }

  /** One step of training, on the next digits in a random order. */
  step() {
    for (let lane = 0; lane < this.labels.length; lane++) {
      if (this.next === this.order.length) {
        shuffle(this.order, this.random);
        this.next = 0;
      }
      this.#put(lane, this.order[this.next], this.settings.augment);
      this.next += 1;
    }
    const rule = {
      rate: this.rate,
      momentum: MOMENTUM,
      isNesterov: true,
      isClearing: !this.settings.uncleared,
    };
    const { loss } = this.trainer.step(this.batch, this.labels, rule);
    this.steps += 1;
    this.images += this.labels.length;
    this.losses.push(loss);
    this.isBroken = !Number.isFinite(loss);
  }

  /** The share of right answers to digits from `first` on. */
  #accuracy(first, count) {
    let right = 0;
    const size = this.labels.length;
    for (let start = 0; start < count; start += size) {
      for (let lane = 0; lane < size; lane++)
        this.#put(lane, first + ((start + lane) % count), false);
      this.#answer();
      right += this.trainer.judge(this.labels, Math.min(size, count - start)).right;
    }
    return right / count;
  }
  #answer() {
    return this.trainer.forward(this.batch, this.settings.noeval === 1);
  }

  /** The accuracy on training digits and on unseen digits. */
  measure() {
    return {
      step: this.steps,
      training: this.#accuracy(0, Math.min(this.settings.digits, MEASURED)),
      unseen: this.#accuracy(TRAINING, this.digits.count - TRAINING),
    };
  }

  /**
   * The ten probabilities for each of the first unseen digits. Whoever forgets `eval` gets the
   * statistics of the batch, so each digit is asked about alone, as a drawing would be.
   */
  answers() {
    const size = this.labels.length;
    const shown = [...Array(SHOWN).keys()];
    const probabilities = (lane) =>
      shown
        .slice(0, 10)
        .map((digit) => Math.exp(this.trainer.layers.at(-1).output[digit * size + lane]));
    const fill = (digitAt) => {
      for (let lane = 0; lane < size; lane++) this.#put(lane, TRAINING + digitAt(lane), false);
      this.#answer();
    };
    if (this.settings.noeval)
      return shown.map((digit) => {
        fill(() => digit);
        return probabilities(0);
      });
    fill((lane) => lane % SHOWN);
    return shown.map(probabilities);
  }

  /** The weights as the engine and the lens take them: see layers.js. */
  weights() {
    const buffer = new Float32Array(this.trainer.table[0].offset);
    this.trainer.fill(buffer);
    return buffer;
  }

  /**
   * The weights as a safetensors file: the length of a header (8 bytes), the header (JSON, with
   * the type, the shape and the place of each tensor), and all numbers one after the other. No part
   * of it can be run as code.
   */
  file() {
    const header = {};
    const parts = [];
    let end = 0;
    const add = (name, dtype, shape, numbers) => {
      header[name] = { dtype, shape, data_offsets: [end, end + numbers.byteLength] };
      end += numbers.byteLength;
      parts.push(numbers.slice());
    };
    for (const { key, name } of this.trainer.tensors.flat())
      if (key === "running_mean")
        add(
          name.replace(key, "num_batches_tracked"),
          "I64",
          [],
          BigInt64Array.of(BigInt(this.steps)),
        );
    for (const { name, shape, numbers } of this.trainer.tensors.flat())
      add(name, "F32", shape, numbers);
    const text = JSON.stringify(header);
    const padded = new TextEncoder().encode(text.padEnd(8 * Math.ceil(text.length / 8)));
    return new Blob([BigUint64Array.of(BigInt(padded.length)), padded, ...parts]);
  }
}
