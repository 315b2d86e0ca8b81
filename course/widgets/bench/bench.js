// The backpropagation bench, an anywidget: Jupyter calls `render` to fill the element `el`. All
// numbers are in `model`, which Python shares; what follows from them is computed here, so the
// bench needs no kernel.

import { accentOf, clamp, element, fixed, guardKeys, range, useUp } from "../look.js";

const DIGITS = 4; // after the decimal point
const LIMIT = 20; // weights go from -20 to 20
const NARROW = 440; // pixels: with less, the network goes from top to bottom
const KEYS = {
  ArrowUp: 0.01,
  ArrowRight: 0.01,
  ArrowDown: -0.01,
  ArrowLeft: -0.01,
  PageUp: 0.1,
  PageDown: -0.1,
};
const ENDS = { Home: -LIMIT, End: LIMIT };

// --- Pure functions: they need no page, so tests can call them ---

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The activations of the hidden neurons and the outputs, and the error; w[0] is w1 in the text. */
export function forward(w, [i1, i2], [t1, t2]) {
  const ah1 = sigmoid(w[0] * i1 + w[1] * i2);
  const ah2 = sigmoid(w[2] * i1 + w[3] * i2);
  const ao1 = sigmoid(w[4] * ah1 + w[5] * ah2);
  const ao2 = sigmoid(w[6] * ah1 + w[7] * ah2);
  return { ah1, ah2, ao1, ao2, E: (t1 - ao1) ** 2 / 2 + (t2 - ao2) ** 2 / 2 };
}

/** The derivatives of the error with respect to w1 ... w8. */
export function backward(w, [i1, i2], [t1, t2]) {
  const { ah1, ah2, ao1, ao2 } = forward(w, [i1, i2], [t1, t2]);
  const o1 = (ao1 - t1) * ao1 * (1 - ao1); // with respect to the sums, before the sigmoid
  const o2 = (ao2 - t2) * ao2 * (1 - ao2);
  const h1 = (o1 * w[4] + o2 * w[6]) * ah1 * (1 - ah1);
  const h2 = (o1 * w[5] + o2 * w[7]) * ah2 * (1 - ah2);
  return [h1 * i1, h1 * i2, h2 * i1, h2 * i2, o1 * ah1, o1 * ah2, o2 * ah1, o2 * ah2];
}

/** The weights after a step against the gradient. */
export function update(w, inputs, targets, rate) {
  return backward(w, inputs, targets).map((slope, n) => w[n] - rate * slope);
}

/** A number with four decimals, more if they would all be 0, fewer if it is large. */
export function show(number) {
  const size = Math.abs(number);
  if (size >= 10) return fixed(number, DIGITS - 2);
  return fixed(number, size < 0.001 && size > 0 ? DIGITS + 2 : DIGITS);
}

const inBrackets = (number) => (number < 0 ? `(${show(number)})` : show(number));

/**
 * The gradient of weight number n as a product, with names and with numbers, in the lesson's
 * notation: a_o1 stands for an "a" with the subscript "o1".
 */
export function product(n, w, inputs, targets) {
  const values = forward(w, inputs, targets);
  const from = n % 2 === 1 ? 1 : 2; // w1, w3, w5 and w7 come from the first neuron of a layer
  const to = (n - 1) % 4 < 2 ? 1 : 2; // w1, w2, w5 and w6 lead to the first neuron of the next
  if (n <= 4) return hiddenProduct(from, to, w, inputs, targets);
  const { names, numbers } = outputFactor(to, values, targets);
  return {
    names: `${names} · a_h${from}`,
    numbers: `${numbers} · ${inBrackets(values[`ah${from}`])}`,
  };
}

/** The derivative of the error with respect to the sum in output neuron k, before the sigmoid. */
function outputFactor(k, values, targets) {
  const a = values[`ao${k}`];
  return {
    names: `(a_o${k} − t_${k}) · a_o${k}(1 − a_o${k})`,
    numbers: `${inBrackets(a - targets[k - 1])} · ${inBrackets(a * (1 - a))}`,
  };
}

/** The product for a weight from an input to a hidden neuron, which both outputs depend on. */
function hiddenProduct(from, to, w, inputs, targets) {
  const values = forward(w, inputs, targets);
  const ways = [1, 2].map((k) => {
    const { names, numbers } = outputFactor(k, values, targets);
    const n = 2 * k + 2 + to; // w5 and w7 for the first hidden neuron, w6 and w8 for the second
    return { names: `${names} · w_${n}`, numbers: `${numbers} · ${inBrackets(w[n - 1])}` };
  });
  const a = values[`ah${to}`];
  const names = ways.map((way) => way.names).join(" + ");
  const numbers = ways.map((way) => way.numbers).join(" + ");
  return {
    names: `[${names}] · a_h${to}(1 − a_h${to}) · i_${from}`,
    numbers: `[${numbers}] · ${inBrackets(a * (1 - a))} · ${inBrackets(inputs[from - 1])}`,
  };
}

/** How the error has changed, as far as six decimals show it. */
function changeOf(before, after) {
  const first = before.toFixed(6);
  const second = after.toFixed(6);
  if (first === second) return `stays at ${second}`;
  return `${after < before ? "falls" : "rises"} from ${first} to ${second}`;
}

// --- What is on the page ---

/** Where everything stands if the network goes from left to right. */
const WIDE = {
  size: [700, 300],
  neuron: (layer, number) => [[40, 300, 560][layer], [60, 240][number]],
  weight: () => 0.37, // of the way from neuron to neuron, where no two weights meet
  box: [126, 40],
  targets: [
    [560, 20],
    [560, 290],
  ],
  error: [654, 150],
};

/** The same on a narrow page: from top to bottom. */
const TALL = {
  size: [360, 552],
  neuron: (layer, number) => [[62, 298][number], [36, 234, 432][layer]],
  weight: (isStraight) => (isStraight ? 0.66 : 0.26),
  box: [113, 40],
  targets: [
    [62, 480],
    [298, 480],
  ],
  error: [180, 522],
};

/** Each weight leads from one neuron to another: w1 from i1 to h1, w2 from i2 to h1, ... */
const WAYS = range(8).map((n) => ({
  layer: n < 4 ? 0 : 1,
  from: n % 2,
  to: n % 4 < 2 ? 0 : 1,
}));

const line = ([x1, y1], [x2, y2], turn) =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" data-layer="${turn}"/>`;

/** A letter with an index, as in the lesson's formulas. */
const symbol = (letter, index) =>
  `<tspan class="bench-letter">${letter}</tspan><tspan class="bench-index" dy="4">${index}</tspan>`;

function neuron(name, n, { neuron: placeOf }) {
  const layer = Math.floor(n / 2);
  const [x, y] = placeOf(layer, n % 2);
  return `
  <g class="bench-neuron">
    <circle cx="${x}" cy="${y}" r="31" data-layer="${2 * layer}"/>
    <text x="${x}" y="${y - 3}">${layer === 0 ? symbol("i", n + 1) : symbol("a", name)}</text>
    <text class="bench-value" data-node="${name}" x="${x}" y="${y + 15}"></text>
  </g>`;
}

function weight({ layer, from, to }, n, { neuron: placeOf, weight: shareOf, box }) {
  const start = placeOf(layer, from);
  const end = placeOf(layer + 1, to);
  const share = shareOf(from === to);
  const [x, y] = [0, 1].map((axis) => start[axis] + share * (end[axis] - start[axis]));
  const [width, height] = box;
  return `
  <g class="bench-weight" role="slider" tabindex="0" aria-label="w${n + 1}"
    aria-valuemin="${-LIMIT}" aria-valuemax="${LIMIT}">
    <rect x="${x - width / 2}" y="${y - height / 2}" width="${width}" height="${height}" rx="5"/>
    <text x="${x}" y="${y - 3}">${symbol("w", n + 1)}<tspan dy="-4"></tspan></text>
    <text class="bench-gradient" x="${x}" y="${y + 14}"></text>
  </g>`;
}

/** The drawing of the network, in one of the two layouts. */
function networkIn(layout) {
  const { size, neuron: placeOf, targets, error } = layout;
  const connections = WAYS.map(({ layer, from, to }) =>
    line(placeOf(layer, from), placeOf(layer + 1, to), 1 + 2 * layer),
  );
  const toError = range(2).map((number) => line(placeOf(2, number), error, 5));
  const names = ["i1", "i2", "h1", "h2", "o1", "o2"];
  const [x, y] = error;
  return `
<svg class="bench-network" viewBox="0 0 ${size.join(" ")}">
  ${[...connections, ...toError].join("")}
  ${names.map((name, n) => neuron(name, n, layout)).join("")}
  ${WAYS.map((way, n) => weight(way, n, layout)).join("")}
  ${targets.map(([left, top]) => `<text class="bench-target" x="${left}" y="${top}"></text>`).join("")}
  <g class="bench-error">
    <rect x="${x - 44}" y="${y - 26}" width="88" height="52" rx="8" data-layer="5"/>
    <text x="${x}" y="${y - 4}">E</text><text class="bench-value" x="${x}" y="${y + 15}"></text>
  </g>
</svg>`;
}

const CURVE = `
<svg viewBox="0 0 260 150" tabindex="0" role="slider" aria-label="The error after each step"
  aria-valuemin="0">
  <polyline class="bench-earlier"/><polyline class="bench-now"/>
  <circle r="4"/><text x="256" y="16"></text>
</svg>`;

const button = ([name, title]) => `<button type="button" title="${title}">${name}</button>`;

const BUTTONS = [
  ["Forward", "Values go from left to right"],
  ["Backward", "Gradients go from right to left"],
  ["Update", "Each weight moves against its gradient (press Backward first)"],
  ["Step", "Forward, backward and update"],
  ["100 steps", "One hundred steps"],
  ["Rewind", "Back to the weights of the start; the learning rate stays"],
];

const PAGE = `
<div class="course-widget bench">
  <div class="bench-place"></div>
  <div class="bench-curve">${CURVE}<div>the error after each step</div></div>
  <div class="bench-tools">
    ${BUTTONS.map(button).join("\n")}
    <label>learning rate η <input inputmode="decimal" autocomplete="off"></label>
  </div>
  <div class="bench-status" role="status"></div>
  <div class="bench-product"></div>
</div>`;

const HINT =
  "Drag a weight to the right or left, or choose it and press the arrow keys. " +
  "Press Backward, then click a weight to see how its gradient is worked out. " +
  "Red lines are positive weights, blue lines negative ones; the thicker, the larger.";
const SIGNS =
  "Backward: the gradient of each weight. " +
  "Positive: an update lowers the weight (▼). Negative: it raises it (▲).";

/** The lesson's notation on the page: "a_o1" becomes an "a" with the subscript "o1". */
function withSubscripts(text) {
  const parts = text.split(/(\w)_(\w+)/); // a text, a letter and its subscript, a text, ...
  const tags = [null, "i", "sub"];
  return parts.map((part, n) => (n % 3 === 0 ? part : element(tags[n % 3], part)));
}

/** How the gradient of weight number n is worked out, and what an update makes of the weight. */
function formulaOf(n, [w, inputs, targets, rate], when = "") {
  const { names, numbers } = product(n, w, inputs, targets);
  const value = w[n - 1];
  const slope = backward(w, inputs, targets)[n - 1];
  const verb = when ? "The update made" : "An update makes";
  const change = `${verb} w_${n} = ${show(value)} − ${rate} · ${inBrackets(slope)} = `;
  return [
    element("div", when, ...withSubscripts(`∂E/∂w_${n} = ${names}`)),
    element("div", `= ${numbers} = `, element("b", show(slope))),
    element("div", ...withSubscripts(change), element("b", show(value - rate * slope)), "."),
  ];
}

function arrowOf(slope) {
  if (slope === 0) return "";
  return slope > 0 ? "▼" : "▲";
}

// --- The bench at work ---

const SHARED = ["inputs", "targets", "weights", "learning_rate", "past", "has_gradients"];

class Bench {
  chosen = null; // the index of the weight whose gradient is shown as a product
  drag = null; // the pointer that moves a weight: { id, x, y, start }
  earlier = []; // the curve before the last Rewind
  pointed = null; // the step on the curve under the pointer
  before = null; // the weights and the rest before the last update, to look back at a gradient
  layout = null;

  constructor(model, el) {
    el.innerHTML = PAGE;
    this.model = model;
    this.root = el.querySelector(".bench");
    this.rate = this.root.querySelector("input");
    this.status = this.root.querySelector(".bench-status");
    this.curve = this.root.querySelector(".bench-curve svg");
    this.listenToButtons();
    this.rate.onchange = () => this.setRate(this.rate.value);
    this.rate.onkeydown = (event) => this.stepRate(event);
    this.listenToCurve();
    this.stopGuarding = guardKeys(this.root);
    this.onChange = () => this.draw();
    for (const name of SHARED) model.on(`change:${name}`, this.onChange);
    this.status.textContent = HINT;
    this.arrange();
    this.watcher = new ResizeObserver(() => this.arrange());
    this.watcher.observe(this.root);
  }
  close() {
    this.watcher.disconnect();
    this.stopGuarding();
    for (const name of SHARED) this.model.off(`change:${name}`, this.onChange);
  }

  /** Draws the network in the layout that fits the width; what had the keyboard keeps it. */
  arrange() {
    const width = this.root.clientWidth; // 0 while the page is not shown
    const layout = width > 0 && width < NARROW ? TALL : WIDE;
    if (layout === this.layout) return;
    this.layout = layout;
    this.root.classList.toggle("bench-tall", layout === TALL);
    const focused = this.weights?.indexOf(document.activeElement);
    const place = this.root.querySelector(".bench-place");
    place.innerHTML = networkIn(layout);
    this.network = place.querySelector("svg");
    this.lines = [...place.querySelectorAll("line")].slice(0, 8);
    this.weights = [...place.querySelectorAll(".bench-weight")];
    for (const [n, part] of this.weights.entries()) this.listenToWeight(n, part);
    this.weights[focused]?.focus({ preventScroll: true });
    this.draw();
  }

  // The numbers
  world() {
    return [this.model.get("weights"), this.model.get("inputs"), this.model.get("targets")];
  }
  error() {
    return forward(...this.world()).E;
  }
  errors() {
    return [...this.model.get("past"), this.error()];
  }
  save(changes, text) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.model.save_changes();
    if (text !== undefined) this.status.textContent = text;
    this.draw();
  }

  // The six buttons
  listenToButtons() {
    const buttons = this.root.querySelectorAll("button");
    const [forwardButton, backwardButton, updateButton, stepButton, manyButton, rewindButton] =
      buttons;
    this.updateButton = updateButton;
    forwardButton.onclick = () => this.goForward();
    backwardButton.onclick = () => this.goBackward();
    updateButton.onclick = () => this.step(1);
    stepButton.onclick = () => {
      this.flash((layer) => layer);
      this.step(1);
    };
    manyButton.onclick = () => this.step(100);
    rewindButton.onclick = () => this.rewind();
  }
  goForward() {
    this.flash((layer) => layer);
    const error = this.error().toFixed(6);
    const text = `Forward: the inputs give the outputs, and these give the error, E = ${error}.`;
    this.save({}, text);
  }
  goBackward() {
    this.flash((layer) => 5 - layer);
    this.save({ has_gradients: true }, SIGNS);
  }
  /** Lights the layers one after the other; `turnOf` says when it is a layer's turn. */
  flash(turnOf) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const light = { stroke: accentOf(this.root), strokeWidth: "5px" };
    for (const part of this.network.querySelectorAll("[data-layer]")) {
      const turn = turnOf(Number(part.dataset.layer));
      part.animate([{}, light, {}], { duration: 450, delay: 130 * turn });
    }
  }
  step(count) {
    const [start, inputs, targets] = this.world();
    const past = [...this.model.get("past")];
    const rate = this.model.get("learning_rate");
    let w = start;
    let before;
    for (let n = 0; n < count; n++) {
      past.push(forward(w, inputs, targets).E);
      before = w;
      w = update(w, inputs, targets, rate);
    }
    if (!w.every(Number.isFinite)) {
      this.save({}, "The weights would become infinite: use a smaller learning rate.");
      return;
    }
    this.before = [before, inputs, targets, rate];
    const change = changeOf(past.at(-count), forward(w, inputs, targets).E);
    this.save({ weights: w, past, has_gradients: false }, `Step ${past.length}: E ${change}.`);
  }
  rewind() {
    if (this.model.get("past").length) this.earlier = this.errors();
    this.before = null;
    this.save({ weights: this.model.get("start"), past: [], has_gradients: false }, HINT);
  }
  /** Takes a learning rate as it was typed: 0.5 or 0,5. */
  setRate(text) {
    const value = Number(text.replace(",", "."));
    if (text.trim() !== "" && value >= 0 && value <= 1000)
      this.save({ learning_rate: value }, `The learning rate is ${value}.`);
    else this.save({}, "The learning rate must be a number from 0 to 1000.");
    this.rate.value = this.model.get("learning_rate");
  }

  stepRate(event) {
    const by = { ArrowUp: 0.1, ArrowDown: -0.1 }[event.key];
    if (!by) return;
    useUp(event);
    const rate = Math.max(this.model.get("learning_rate") + by, 0);
    this.setRate(String(Math.round(1e6 * rate) / 1e6));
  }

  // The weights: mouse, finger, keyboard
  listenToWeight(n, part) {
    part.onfocus = () => this.choose(n);
    part.onpointerdown = (event) => {
      if (event.button !== 0 || this.drag) return;
      event.preventDefault();
      part.focus({ preventScroll: true });
      part.setPointerCapture(event.pointerId);
      const { pointerId: id, clientX: x, clientY: y } = event;
      this.drag = { id, x, y, start: this.model.get("weights")[n] };
    };
    part.onpointermove = ({ pointerId, clientX, clientY }) => {
      if (pointerId !== this.drag?.id) return;
      const way = Math.round(clientX - this.drag.x + this.drag.y - clientY); // right and up
      this.setWeight(n, this.drag.start + 0.01 * way);
    };
    part.onpointerup = part.onpointercancel = ({ pointerId }) => {
      if (pointerId === this.drag?.id) this.drag = null;
    };
    part.onkeydown = (event) => {
      const step = KEYS[event.key] * (event.shiftKey ? 10 : 1);
      const value = ENDS[event.key] ?? this.model.get("weights")[n] + step;
      if (Number.isNaN(value)) return; // another key
      useUp(event);
      this.setWeight(n, value);
    };
  }
  choose(n) {
    this.chosen = n;
    this.draw();
  }
  setWeight(n, value) {
    const weights = [...this.model.get("weights")];
    const limit = Math.max(LIMIT, Math.abs(weights[n])); // a large step may lead beyond
    weights[n] = Math.round(clamp(value, -limit, limit) * 1e6) / 1e6;
    this.before = null;
    this.save({ weights });
  }

  // The curve
  listenToCurve() {
    this.curve.onpointermove = ({ clientX }) => {
      const box = this.curve.getBoundingClientRect();
      const x = ((clientX - box.left) / box.width) * 260;
      this.pointTo(((x - 10) * this.span()) / 240);
    };
    this.curve.onpointerleave = this.curve.onblur = () => {
      this.pointed = null;
      this.draw();
    };
    this.curve.onkeydown = (event) => {
      const last = this.errors().length - 1;
      const step = this.pointed ?? last;
      const places = { ArrowLeft: step - 1, ArrowRight: step + 1, Home: 0, End: last };
      if (!(event.key in places)) return;
      useUp(event);
      this.pointTo(places[event.key]);
    };
  }
  pointTo(step) {
    this.pointed = clamp(Math.round(step), 0, this.errors().length - 1);
    this.draw();
  }
  /** How many steps the curve has room for. */
  span() {
    return Math.max(this.model.get("past").length, this.earlier.length - 1, 10);
  }

  // What is shown
  draw() {
    const [w, inputs, targets] = this.world();
    const slopes = this.model.get("has_gradients") ? backward(w, inputs, targets) : null;
    this.drawNetwork(w, inputs, targets);
    for (const [n, part] of this.weights.entries()) this.drawWeight(n, part, w[n], slopes?.[n]);
    this.updateButton.disabled = slopes === null;
    if (document.activeElement !== this.rate) this.rate.value = this.model.get("learning_rate");
    const box = this.root.querySelector(".bench-product");
    box.replaceChildren(...this.explainGradient(slopes !== null));
    box.classList.toggle("bench-past", slopes === null && this.before !== null);
    this.drawCurve(this.errors());
  }
  drawNetwork(w, inputs, targets) {
    const { ah1, ah2, ao1, ao2, E } = forward(w, inputs, targets);
    const values = { i1: inputs[0], i2: inputs[1], h1: ah1, h2: ah2, o1: ao1, o2: ao2 };
    for (const text of this.root.querySelectorAll("[data-node]"))
      text.textContent = values[text.dataset.node].toFixed(DIGITS);
    for (const [n, text] of this.root.querySelectorAll(".bench-target").entries())
      text.textContent = `target ${targets[n]}`;
    this.root.querySelector(".bench-error .bench-value").textContent = E.toFixed(6);
  }
  drawWeight(n, part, value, slope) {
    const isKnown = slope !== undefined;
    const [first, second] = part.querySelectorAll("text");
    first.lastElementChild.textContent = ` = ${show(value)}`;
    this.lines[n].style.strokeWidth = 1 + 3 * Math.min(Math.abs(value), 3);
    this.lines[n].classList.toggle("bench-negative", value < 0);
    second.textContent = isKnown ? `∂E/∂w ${show(slope)} ${arrowOf(slope)}` : "";
    part.setAttribute("aria-valuenow", value);
    const spoken = isKnown ? `, gradient ${show(slope)}` : "";
    part.setAttribute("aria-valuetext", show(value) + spoken);
    part.classList.toggle("bench-chosen", this.chosen === n);
  }
  /** How the chosen weight's gradient is worked out, and what an update does with it. */
  explainGradient(isKnown) {
    if (this.chosen === null) return [];
    const n = this.chosen + 1;
    if (isKnown) return formulaOf(n, [...this.world(), this.model.get("learning_rate")]);
    if (this.before) return formulaOf(n, this.before, "Before the update: ");
    return withSubscripts(`The gradient of w_${n} is not known yet: press Backward.`);
  }
  drawCurve(errors) {
    const highest = Math.max(...errors, ...this.earlier, 1e-9);
    const x = (step) => 10 + (240 * step) / this.span();
    const y = (error) => 140 - (120 * error) / highest;
    const pointsOf = (all) => all.map((error, step) => `${x(step)},${y(error)}`).join(" ");
    this.curve.querySelector(".bench-earlier").setAttribute("points", pointsOf(this.earlier));
    this.curve.querySelector(".bench-now").setAttribute("points", pointsOf(errors));
    const last = errors.length - 1;
    const step = Math.min(this.pointed ?? last, last);
    const dot = this.curve.querySelector("circle");
    dot.setAttribute("cx", x(step));
    dot.setAttribute("cy", y(errors[step]));
    const text = `step ${step}: E = ${errors[step].toFixed(6)}`;
    this.curve.querySelector("text").textContent = text;
    this.curve.setAttribute("aria-valuemax", last);
    this.curve.setAttribute("aria-valuenow", step);
    this.curve.setAttribute("aria-valuetext", text);
  }
}

function render({ model, el }) {
  const bench = new Bench(model, el);
  return () => bench.close();
}

export default { render };
