// The backpropagation bench, an anywidget: Jupyter calls `render` to fill the element `el`. All
// numbers are in `model`, which Python shares; what follows from them is computed here, so the
// bench needs no kernel.

import { accentOf, clamp, element, fixed, guardKeys, range, useUp } from "../look.js";

const DIGITS = 4; // after the decimal point
const LIMIT = 20; // weights go from -20 to 20
const KEYS = {
  ArrowUp: 0.01,
  ArrowRight: 0.01,
  ArrowDown: -0.01,
  ArrowLeft: -0.01,
  PageUp: 0.1,
  PageDown: -0.1,
};

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

const COLUMNS = [40, 300, 560]; // of the neurons, from left to right
const ROWS = [60, 240];
const NEAR = 0.37; // of the way from neuron to neuron, where no two weights meet

/** Where each weight's connection begins and ends, and where its number stands. */
const WAYS = range(8).map((n) => {
  const column = n < 4 ? 0 : 1;
  const x1 = COLUMNS[column];
  const x2 = COLUMNS[column + 1];
  const y1 = ROWS[n % 2];
  const y2 = ROWS[n % 4 < 2 ? 0 : 1];
  const x = x1 + NEAR * (x2 - x1);
  const y = y1 + NEAR * (y2 - y1);
  return { x1, y1, x2, y2, x, y, layer: 1 + 2 * column };
});

const NEURONS = ["i1", "i2", "h1", "h2", "o1", "o2"].map((name, n) => {
  const column = Math.floor(n / 2);
  return { name, x: COLUMNS[column], y: ROWS[n % 2], layer: 2 * column };
});

const TO_ERROR = ROWS.map((y) => ({ x1: COLUMNS[2], y1: y, x2: 655, y2: 150, layer: 5 }));

const line = ({ x1, y1, x2, y2, layer }) =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" data-layer="${layer}"/>`;

const neuron = ({ name, x, y, layer }) => `
  <g class="bench-neuron">
    <circle cx="${x}" cy="${y}" r="31" data-layer="${layer}"/>
    <text x="${x}" y="${y - 3}">${name.startsWith("i") ? name : `a_${name}`}</text>
    <text class="bench-value" data-node="${name}" x="${x}" y="${y + 14}"></text>
  </g>`;

const weight = ({ x, y }, n) => `
  <g class="bench-weight" role="slider" tabindex="0" aria-label="w${n + 1}"
    aria-valuemin="${-LIMIT}" aria-valuemax="${LIMIT}">
    <rect x="${x - 63}" y="${y - 20}" width="126" height="40" rx="5"/>
    <text x="${x}" y="${y - 3}"></text>
    <text class="bench-gradient" x="${x}" y="${y + 14}"></text>
  </g>`;

const NETWORK = `
<svg class="bench-network" viewBox="0 0 700 300">
  ${WAYS.map(line).join("")}
  ${TO_ERROR.map(line).join("")}
  ${NEURONS.map(neuron).join("")}
  ${WAYS.map(weight).join("")}
  <text class="bench-target" x="560" y="20"></text>
  <text class="bench-target" x="560" y="290"></text>
  <g class="bench-error">
    <rect x="610" y="124" width="88" height="52" rx="8" data-layer="5"/>
    <text x="654" y="146">E</text><text class="bench-value" x="654" y="165"></text>
  </g>
</svg>`;

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
  <div class="bench-scroll">${NETWORK}</div>
  <div class="bench-curve">${CURVE}<div>the error after each step</div></div>
  <div class="bench-tools">
    ${BUTTONS.map(button).join("\n")}
    <label>learning rate η <input type="number" min="0" max="1000" step="0.1"></label>
  </div>
  <div class="bench-status" role="status"></div>
  <div class="bench-product"></div>
</div>`;

const HINT =
  "Drag a weight to the right or left, or choose it and press the arrow keys. " +
  "Press Backward, then click a weight to see how its gradient is worked out.";
const SIGNS =
  "Backward: the gradient of each weight. " +
  "Positive: an update lowers the weight (▼). Negative: it raises it (▲).";

/** The lesson's notation on the page: "a_o1" becomes an "a" with the subscript "o1". */
function withSubscripts(text) {
  const parts = text.split(/_(\w+)/); // every second part is a subscript
  return parts.map((part, n) => (n % 2 === 1 ? element("sub", part) : part));
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

  constructor(model, el) {
    el.innerHTML = PAGE;
    this.model = model;
    this.root = el.querySelector(".bench");
    this.network = this.root.querySelector(".bench-network");
    this.weights = [...this.root.querySelectorAll(".bench-weight")];
    this.rate = this.root.querySelector("input");
    this.status = this.root.querySelector(".bench-status");
    this.curve = this.root.querySelector(".bench-curve svg");
    this.listenToButtons();
    this.rate.onchange = () => this.setRate();
    for (const [n, part] of this.weights.entries()) this.listenToWeight(n, part);
    this.listenToCurve();
    this.stopGuarding = guardKeys(this.root);
    this.onChange = () => this.draw();
    for (const name of SHARED) model.on(`change:${name}`, this.onChange);
    this.status.textContent = HINT;
    this.draw();
  }
  close() {
    this.stopGuarding();
    for (const name of SHARED) this.model.off(`change:${name}`, this.onChange);
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
    let w = start;
    for (let n = 0; n < count; n++) {
      past.push(forward(w, inputs, targets).E);
      w = update(w, inputs, targets, this.model.get("learning_rate"));
    }
    if (!w.every(Number.isFinite)) {
      this.save({}, "The weights would become infinite: use a smaller learning rate.");
      return;
    }
    const change = changeOf(past.at(-count), forward(w, inputs, targets).E);
    this.save({ weights: w, past, has_gradients: false }, `Step ${past.length}: E ${change}.`);
  }
  rewind() {
    if (this.model.get("past").length) this.earlier = this.errors();
    this.save({ weights: this.model.get("start"), past: [], has_gradients: false }, HINT);
  }
  setRate() {
    const value = Number(this.rate.value);
    if (this.rate.value !== "" && value >= 0 && value <= 1000)
      this.save({ learning_rate: value }, `The learning rate is ${value}.`);
    else this.save({}, "The learning rate must be a number from 0 to 1000.");
    this.rate.value = this.model.get("learning_rate");
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
      if (!(event.key in KEYS)) return;
      useUp(event);
      const step = KEYS[event.key] * (event.shiftKey ? 10 : 1);
      this.setWeight(n, this.model.get("weights")[n] + step);
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
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      useUp(event);
      this.pointTo((this.pointed ?? this.errors().length - 1) + by);
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
    box.replaceChildren(...this.explainGradient(w, inputs, targets, slopes));
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
    first.textContent = `w${n + 1} = ${show(value)}`;
    second.textContent = isKnown ? `∂E/∂w ${show(slope)} ${arrowOf(slope)}` : "";
    part.setAttribute("aria-valuenow", value);
    const spoken = isKnown ? `, gradient ${show(slope)}` : "";
    part.setAttribute("aria-valuetext", show(value) + spoken);
    part.classList.toggle("bench-chosen", this.chosen === n);
  }
  /** How the chosen weight's gradient is worked out, and what an update does with it. */
  explainGradient(w, inputs, targets, slopes) {
    if (this.chosen === null) return [];
    const n = this.chosen + 1;
    if (!slopes) return [`The gradient of w${n} is not known yet: press Backward.`];
    const { names, numbers } = product(n, w, inputs, targets);
    const value = w[this.chosen];
    const slope = slopes[this.chosen];
    const rate = this.model.get("learning_rate");
    const update = `An update makes w_${n} = ${show(value)} − ${rate} · ${inBrackets(slope)} = `;
    return [
      element("div", ...withSubscripts(`∂E/∂w_${n} = ${names}`)),
      element("div", `= ${numbers} = `, element("b", show(slope))),
      element("div", ...withSubscripts(update), element("b", show(value - rate * slope)), "."),
    ];
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
