// The backpropagation bench, an anywidget: Jupyter calls `render` to fill the element `el`. All numbers are in
// `model`, which Python shares; what is computed from them is computed here, so the bench needs no kernel.

const ORANGE = "#f0851e";
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

/** The activations of the hidden neurons and the outputs, and the error; w[0] is called w1 in the lesson. */
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

/** A number with four decimals, more if they would all be 0, fewer if it is large; and a true minus sign. */
export function show(number) {
  const size = Math.abs(number);
  const decimals = size < 0.001 && size > 0 ? DIGITS + 2 : size >= 10 ? DIGITS - 2 : DIGITS;
  return number.toFixed(decimals).replace("-", "−");
}

/** The gradient of weight number n as a product, in the lesson's notation: [with names, with numbers]. */
export function product(n, w, inputs, targets) {
  const at = forward(w, inputs, targets);
  const name = (letter, index) => `${letter}<sub>${index}</sub>`;
  const a = (node) => name("a", node);
  const put = (number) => (number < 0 ? `(${show(number)})` : show(number));
  const difference = (k) => [
    `(${a(`o${k}`)} − ${name("t", k)}) · ${a(`o${k}`)}(1 − ${a(`o${k}`)})`,
    `${put(at[`ao${k}`] - targets[k - 1])} · ${put(at[`ao${k}`] * (1 - at[`ao${k}`]))}`,
  ];
  const even = n % 2 === 0 ? 2 : 1; // w1, w3, w5 and w7 come from the first neuron of the layer before
  if (n > 4) {
    const [names, numbers] = difference(n < 7 ? 1 : 2);
    return [`${names} · ${a(`h${even}`)}`, `${numbers} · ${put(at[`ah${even}`])}`];
  }
  const j = n < 3 ? 1 : 2;
  const ways = [1, 2].map((k) => [difference(k), j + 2 * k + 2]); // through o1 and o2: w5 and w7, or w6 and w8
  const names = ways.map(([[text], way]) => `${text} · ${name("w", way)}`).join(" + ");
  const numbers = ways.map(([[, text], way]) => `${text} · ${put(w[way - 1])}`).join(" + ");
  const ah = at[`ah${j}`];
  return [
    `[${names}] · ${a(`h${j}`)}(1 − ${a(`h${j}`)}) · ${name("i", even)}`,
    `[${numbers}] · ${put(ah * (1 - ah))} · ${put(inputs[even - 1])}`,
  ];
}

// --- What is on the page ---

const COLUMNS = [40, 300, 560]; // of the neurons, from left to right
const ROWS = [60, 240];
const NEAR = 0.37; // of the way from neuron to neuron, where no two weights meet

/** Where each weight's connection begins and ends, and where its number stands. */
const WAYS = [...Array(8).keys()].map((n) => {
  const [x1, x2] = [COLUMNS[n >> 2], COLUMNS[(n >> 2) + 1]];
  const [y1, y2] = [ROWS[n % 2], ROWS[(n % 4) >> 1]];
  return { x1, y1, x2, y2, x: x1 + NEAR * (x2 - x1), y: y1 + NEAR * (y2 - y1), layer: 1 + 2 * (n >> 2) };
});

const NEURONS = ["i1", "i2", "h1", "h2", "o1", "o2"].map((name, n) => ({
  name,
  x: COLUMNS[n >> 1],
  y: ROWS[n % 2],
  layer: 2 * (n >> 1),
}));

const line = ({ x1, y1, x2, y2, layer }) =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" data-layer="${layer}"/>`;

const neuron = ({ name, x, y, layer }) => `
  <g class="bench-neuron"><circle cx="${x}" cy="${y}" r="31" data-layer="${layer}"/>
  <text x="${x}" y="${y - 3}">${name.startsWith("i") ? name : `a_${name}`}</text><text class="bench-value" data-node="${name}" x="${x}" y="${y + 14}"></text></g>`;

const weight = ({ x, y }, n) => `
  <g class="bench-weight" role="slider" tabindex="0" aria-label="w${n + 1}" aria-valuemin="${-LIMIT}" aria-valuemax="${LIMIT}">
  <rect x="${x - 63}" y="${y - 20}" width="126" height="40" rx="5"/>
  <text x="${x}" y="${y - 3}"></text><text class="bench-gradient" x="${x}" y="${y + 14}"></text></g>`;

const PAGE = `
<div class="course-widget bench">
  <div class="bench-scroll"><svg class="bench-network" viewBox="0 0 700 300">
    ${WAYS.map(line).join("")}
    ${ROWS.map((y) => line({ x1: COLUMNS[2], y1: y, x2: 655, y2: 150, layer: 5 })).join("")}
    ${NEURONS.map(neuron).join("")}${WAYS.map(weight).join("")}
    <text class="bench-target" x="560" y="20"></text><text class="bench-target" x="560" y="290"></text>
    <g class="bench-error"><rect x="610" y="124" width="88" height="52" rx="8" data-layer="5"/>
    <text x="654" y="146">E</text><text class="bench-value" x="654" y="165"></text></g>
  </svg></div>
  <div class="bench-curve">
    <svg viewBox="0 0 260 150" tabindex="0" role="slider" aria-label="The error after each step" aria-valuemin="0"><polyline class="bench-earlier"/><polyline class="bench-now"/><circle r="4"/><text x="256" y="16"></text></svg>
    <div>the error after each step</div>
  </div>
  <div class="bench-tools">
    <button type="button" title="Values go from left to right">Forward</button>
    <button type="button" title="Gradients go from right to left">Backward</button>
    <button type="button" title="Each weight moves against its gradient (press Backward first)">Update</button>
    <button type="button" title="Forward, backward and update">Step</button>
    <button type="button" title="One hundred steps">100 steps</button>
    <button type="button" title="Back to the weights of the start; the learning rate stays">Rewind</button>
    <label>learning rate η <input type="number" min="0" max="1000" step="0.1"></label>
  </div>
  <div class="bench-told" role="status"></div>
  <div class="bench-product"></div>
</div>`;

const HINT =
  "Drag a weight to the right or left, or choose it and press the arrow keys. " +
  "Press Backward, then click a weight to see how its gradient is worked out.";

function render({ model, el }) {
  el.innerHTML = PAGE;
  const root = el.querySelector(".bench");
  const network = root.querySelector(".bench-network");
  const weights = [...root.querySelectorAll(".bench-weight")];
  const [forwardButton, backwardButton, updateButton, stepButton, manyButton, rewindButton] =
    root.querySelectorAll("button");
  const rate = root.querySelector("input");
  const told = root.querySelector(".bench-told");
  const curve = root.querySelector(".bench-curve svg");
  let chosen = null; // the number of the weight whose gradient is shown as a product
  let earlier = []; // the curve before the last Rewind
  let looked = null; // the step on the curve under the pointer

  const world = () => [model.get("weights"), model.get("inputs"), model.get("targets")];
  const errors = () => [...model.get("past"), forward(...world()).E];
  const span = () => Math.max(model.get("past").length, earlier.length - 1, 10); // the steps that the curve has room for

  function put(changes, text) {
    for (const [name, value] of Object.entries(changes)) model.set(name, value);
    model.save_changes();
    if (text !== undefined) told.textContent = text;
    draw();
  }

  // The six buttons
  function light(turn) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const part of network.querySelectorAll("[data-layer]"))
      part.animate([{}, { stroke: ORANGE, strokeWidth: "5px" }, {}], {
        duration: 450,
        delay: 130 * turn(Number(part.dataset.layer)),
      });
  }
  function step(count) {
    const [start, inputs, targets] = world();
    const past = [...model.get("past")];
    let w = start;
    for (let n = 0; n < count; n++) {
      past.push(forward(w, inputs, targets).E);
      w = update(w, inputs, targets, model.get("learning_rate"));
    }
    if (!w.every(Number.isFinite))
      return put({}, "The weights would become infinite: use a smaller learning rate.");
    const [before, after] = [past.at(-count), forward(w, inputs, targets).E];
    const [from, to] = [before.toFixed(6), after.toFixed(6)];
    const change =
      from === to ? `stays at ${to}` : `${after < before ? "falls" : "rises"} from ${from} to ${to}`;
    const place = `Step ${past.length}`;
    put({ weights: w, past, has_gradients: false }, `${place}: E ${change}.`);
  }
  forwardButton.onclick = () => {
    light((layer) => layer);
    put(
      {},
      `Forward: the inputs give the outputs, and these give the error, E = ${forward(...world()).E.toFixed(6)}.`,
    );
  };
  backwardButton.onclick = () => {
    light((layer) => 5 - layer);
    put(
      { has_gradients: true },
      "Backward: the gradient of each weight. Positive: an update lowers the weight (▼). Negative: it raises it (▲).",
    );
  };
  updateButton.onclick = () => step(1);
  stepButton.onclick = () => {
    light((layer) => layer);
    step(1);
  };
  manyButton.onclick = () => step(100);
  rewindButton.onclick = () => {
    if (model.get("past").length) earlier = errors();
    put({ weights: model.get("start"), past: [], has_gradients: false }, HINT);
  };
  rate.onchange = () => {
    const value = Number(rate.value);
    if (rate.value !== "" && value >= 0 && value <= 1000)
      put({ learning_rate: value }, `The learning rate is ${value}.`);
    else put({}, "The learning rate must be a number from 0 to 1000.");
    rate.value = model.get("learning_rate");
  };

  // The weights: mouse, finger, keyboard
  function setWeight(n, value) {
    const limit = Math.max(LIMIT, Math.abs(model.get("weights")[n])); // large steps may lead beyond it
    const rounded = Math.round(Math.min(Math.max(value, -limit), limit) * 1e6) / 1e6;
    put({ weights: model.get("weights").map((w, place) => (place === n ? rounded : w)) });
  }
  function choose(n) {
    chosen = n;
    draw();
  }
  let drag = null;
  for (const [n, part] of weights.entries()) {
    part.onfocus = () => choose(n);
    part.onpointerdown = (event) => {
      if (event.button !== 0 || drag) return;
      event.preventDefault();
      part.focus({ preventScroll: true });
      part.setPointerCapture(event.pointerId);
      drag = { id: event.pointerId, x: event.clientX, y: event.clientY, from: model.get("weights")[n] };
    };
    part.onpointermove = (event) => {
      if (event.pointerId !== drag?.id) return;
      const way = Math.round(event.clientX - drag.x + drag.y - event.clientY); // to the right and upwards
      setWeight(n, drag.from + 0.01 * way);
    };
    part.onpointerup = part.onpointercancel = (event) => {
      if (event.pointerId === drag?.id) drag = null;
    };
    part.onkeydown = (event) => {
      if (!(event.key in KEYS)) return;
      event.preventDefault();
      event.stopPropagation();
      setWeight(n, model.get("weights")[n] + KEYS[event.key] * (event.shiftKey ? 10 : 1));
    };
  }

  // The curve
  function look(place) {
    looked = place === null ? null : Math.min(Math.max(Math.round(place), 0), errors().length - 1);
    draw();
  }
  curve.onpointermove = (event) => {
    const box = curve.getBoundingClientRect();
    look(((((event.clientX - box.left) / box.width) * 260 - 10) * span()) / 240);
  };
  curve.onpointerleave = curve.onblur = () => look(null);
  curve.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    look((looked ?? errors().length - 1) + by);
  };

  // What is shown
  function draw() {
    const [w, inputs, targets] = world();
    const at = forward(w, inputs, targets);
    const slopes = model.get("has_gradients") ? backward(w, inputs, targets) : null;
    const values = { i1: inputs[0], i2: inputs[1], h1: at.ah1, h2: at.ah2, o1: at.ao1, o2: at.ao2 };
    for (const text of root.querySelectorAll("[data-node]"))
      text.textContent = values[text.dataset.node].toFixed(DIGITS);
    for (const [n, text] of root.querySelectorAll(".bench-target").entries())
      text.textContent = `target ${targets[n]}`;
    root.querySelector(".bench-error .bench-value").textContent = at.E.toFixed(6);
    for (const [n, part] of weights.entries()) {
      const [value, slope] = part.querySelectorAll("text");
      value.textContent = `w${n + 1} = ${show(w[n])}`;
      slope.textContent = slopes
        ? `∂E/∂w ${show(slopes[n])} ${slopes[n] > 0 ? "▼" : slopes[n] < 0 ? "▲" : ""}`
        : "";
      part.setAttribute("aria-valuenow", w[n]);
      part.setAttribute("aria-valuetext", show(w[n]) + (slopes ? `, gradient ${show(slopes[n])}` : ""));
      part.classList.toggle("bench-chosen", chosen === n);
    }
    updateButton.disabled = !slopes;
    if (document.activeElement !== rate) rate.value = model.get("learning_rate");
    showProduct(w, inputs, targets, slopes);
    showCurve([...model.get("past"), at.E]);
  }
  function showProduct(w, inputs, targets, slopes) {
    const box = root.querySelector(".bench-product");
    const n = chosen + 1;
    if (chosen === null) box.textContent = "";
    else if (!slopes) box.textContent = `The gradient of w${n} is not known yet: press Backward.`;
    else {
      const [names, numbers] = product(n, w, inputs, targets);
      const [slope, eta] = [slopes[chosen], model.get("learning_rate")];
      const next = `${show(w[chosen])} − ${eta} · ${slope < 0 ? `(${show(slope)})` : show(slope)}`;
      box.innerHTML =
        `<div>∂E/∂w<sub>${n}</sub> = ${names}</div><div>= ${numbers} = <b>${show(slope)}</b></div>` +
        `<div>An update makes w<sub>${n}</sub> = ${next} = <b>${show(w[chosen] - eta * slope)}</b>.</div>`;
    }
  }
  function showCurve(curveErrors) {
    const top = Math.max(...curveErrors, ...earlier, 1e-9);
    const x = (n) => 10 + (240 * n) / span();
    const y = (E) => 140 - (120 * E) / top;
    for (const [name, all] of Object.entries({ earlier, now: curveErrors })) {
      const points = all.map((E, n) => `${x(n)},${y(E)}`).join(" ");
      curve.querySelector(`.bench-${name}`).setAttribute("points", points);
    }
    const n = Math.min(looked ?? curveErrors.length - 1, curveErrors.length - 1);
    const dot = curve.querySelector("circle");
    dot.setAttribute("cx", x(n));
    dot.setAttribute("cy", y(curveErrors[n]));
    const text = `step ${n}: E = ${curveErrors[n].toFixed(6)}`;
    curve.querySelector("text").textContent = text;
    curve.setAttribute("aria-valuemax", curveErrors.length - 1);
    curve.setAttribute("aria-valuenow", n);
    curve.setAttribute("aria-valuetext", text);
  }

  // Jupyter must not use the bench's keys for its shortcuts, but may have Ctrl+S and Shift+Enter.
  function guard({ target, key, ctrlKey, metaKey, shiftKey }) {
    if (root.contains(target))
      target.toggleAttribute(
        "data-lm-suppress-shortcuts",
        !(ctrlKey || metaKey || (shiftKey && key === "Enter")),
      );
  }
  window.addEventListener("keydown", guard, true);
  const synced = ["inputs", "targets", "weights", "learning_rate", "past", "has_gradients"];
  const names = synced.map((name) => `change:${name}`);
  for (const name of names) model.on(name, draw);
  told.textContent = HINT;
  draw();
  return () => {
    window.removeEventListener("keydown", guard, true);
    for (const name of names) model.off(name, draw);
  };
}

export default { render };
