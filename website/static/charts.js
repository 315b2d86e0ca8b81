// The playground's pictures: curves, and the first layer's filters.

import { accentOf, clamp, drawPixels, gridOf } from "./look.js";

const MOST = 1000; // points of a curve
const GUESSING = Math.log(10);
const DECADES = [0.01, 0.1, 1, 10, 100];
const LEFT = 42; // room for the numbers beside a chart
const BOTTOM = 16;

/** A curve of any length in little memory: when it is full, neighbours become their mean. */
export class Curve {
  points = [];
  #perPoint = 1;
  #waiting = [];

  add(number) {
    this.#waiting.push(number);
    if (this.#waiting.length < this.#perPoint) return;
    this.points.push(mean(this.#waiting));
    this.#waiting = [];
    if (this.points.length < MOST) return;
    this.points = this.points
      .filter((_, n) => n % 2 === 0)
      .map((_, n) => mean(this.points.slice(2 * n, 2 * n + 2)));
    this.#perPoint *= 2;
  }
}

const mean = (numbers) => numbers.reduce((total, number) => total + number, 0) / numbers.length;

/** A canvas with as many pixels as the screen has there; returns what draws on it. */
function prepareCanvas(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const scale = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.strokeStyle = context.fillStyle = getComputedStyle(canvas).color;
  return { context, width, height };
}

/** Draws a horizontal line at each value, with the value beside it. */
function drawAxis({ context, width }, values, toY, textOf) {
  context.textAlign = "right";
  for (const value of values) {
    context.globalAlpha = 0.8;
    context.fillText(textOf(value), LEFT - 6, toY(value));
    context.globalAlpha = 0.2;
    drawLine(context, [
      [LEFT, toY(value)],
      [width, toY(value)],
    ]);
  }
  context.globalAlpha = 1;
}

function drawLine(context, points) {
  context.beginPath();
  for (const point of points) context.lineTo(...point);
  context.stroke();
}

/** Draws the loss of each step on a logarithmic axis, and where it broke off. */
export function drawLoss(canvas, { points }, { steps, isBroken }) {
  const area = prepareCanvas(canvas);
  const { context, width, height } = area;
  const finite = points.filter(Number.isFinite);
  const highest = clamp(Math.max(5, ...finite), 5, 1e8);
  const lowest = clamp(Math.min(1, ...finite), 0.001, 1);
  const share = (loss) => Math.log(highest / clamp(loss, lowest, highest));
  const toY = (loss) => 6 + ((height - BOTTOM - 12) * share(loss)) / share(lowest);
  const values = highest > 1000 ? [0.1, 10, 1000, 1e5, 1e7] : DECADES;
  const shown = values.filter((value) => value >= lowest && value <= highest);
  drawAxis(area, shown, toY, (value) => (value < 1e5 ? String(value) : value.toExponential(0)));
  context.setLineDash([5, 4]);
  drawLine(context, [
    [LEFT, toY(GUESSING)],
    [width, toY(GUESSING)],
  ]);
  context.setLineDash([]);
  const toX = (n) => LEFT + ((width - LEFT - 8) * n) / Math.max(1, points.length - 1);
  context.strokeStyle = context.fillStyle = accentOf(canvas);
  context.lineWidth = 1.5;
  drawLine(
    context,
    finite.map((loss, n) => [toX(n), toY(loss)]),
  );
  if (isBroken) drawEnd(context, toX(points.length - 1), height);
  drawSteps(area, steps);
  const now = isBroken ? `no number any more at step ${steps}` : finite.at(-1)?.toFixed(3);
  canvas.setAttribute("aria-label", `The loss of each step: now ${now ?? "–"}`);
}

/** Marks the step at which the loss stopped being a number. */
function drawEnd(context, x, height) {
  drawLine(context, [
    [x, 0],
    [x, height - BOTTOM],
  ]);
  context.textAlign = x > 120 ? "right" : "left";
  context.fillText("✕ no number", x + (x > 120 ? -6 : 6), 12);
}

function drawSteps({ context, width, height }, steps) {
  context.fillStyle = getComputedStyle(context.canvas).color;
  context.textAlign = "right";
  context.fillText(`step ${steps.toLocaleString("en")}`, width, height - 6);
}

/** Draws the accuracies measured so far: training digits and unseen digits. */
export function drawAccuracy(canvas, measured, { steps }) {
  const area = prepareCanvas(canvas);
  const { context, width, height } = area;
  const toY = (share) => 6 + (height - BOTTOM - 12) * (1 - share);
  drawAxis(area, [0, 0.5, 0.9, 1], toY, (share) => `${100 * share} %`);
  const toX = (step) => LEFT + ((width - LEFT - 8) * step) / Math.max(1, steps);
  const style = getComputedStyle(canvas);
  const colours = { training: style.getPropertyValue("--course-focus"), unseen: accentOf(canvas) };
  for (const [name, colour] of Object.entries(colours)) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 2;
    const places = measured.map((point) => [toX(point.step), toY(point[name])]);
    drawLine(context, places);
    for (const [x, y] of places) context.fillRect(x - 1.5, y - 1.5, 3, 3);
  }
  drawSteps(area, steps);
}

/** Draws the filters of the first layer in one picture: positive weights red, negative ones blue. */
export function drawFilters(canvas, weights, kernel) {
  const area = kernel ** 2;
  const count = weights.length / area;
  const largest = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 1e-9);
  const grid = gridOf(count, 16, kernel, kernel);
  const rgba = new Uint8ClampedArray(4 * grid.width * grid.height);
  for (const [n, weight] of weights.entries()) {
    const strength = Math.round((255 * Math.abs(weight)) / largest);
    const colour =
      weight > 0 ? [255, 255 - strength, 255 - strength] : [255 - strength, 255 - strength, 255];
    rgba.set([...colour, 255], 4 * grid.place(Math.floor(n / area), n % area));
  }
  drawPixels(canvas, grid.width, grid.height, rgba);
}
