// The convolution lens, an anywidget: Jupyter calls `render` to fill the element `el`. Python has
// noted what the network computed (`layers` and `buffer`, see layers.js); each cell is worked out
// here once more, so the lens needs no kernel.

import { cellIndex, connect, LAYERS, SIDE } from "../layers.js";
import {
  clamp,
  drawPixels,
  element,
  fixed,
  floatsOf,
  greyPixels,
  gridOf,
  guardKeys,
  ifCanDraw,
  range,
  useUp,
} from "../look.js";

const FAR = 1000; // cells: from any place to the edge
const MOVES = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  Home: [-FAR, 0],
  End: [FAR, 0],
  PageUp: [0, -FAR],
  PageDown: [0, FAR],
};

// --- Pure functions: they need no page, so tests can call them ---

/** How a cell was computed: its kind, the numbers that went in, and the result. */
export function explain(layer, map, row, column) {
  const result = layer.output[cellIndex(layer.shape, map, row, column)];
  const cell = LAYERS[layer.kind]?.cell?.(layer, map, row, column);
  const isNear = Math.abs(cell?.result - result) <= 1e-3 * (1 + Math.abs(result));
  const isRight = isNear || Object.is(cell?.result, result); // both may be no number
  if (!isRight) return { kind: "", result }; // an unknown layer, or a network with branches
  return { kind: layer.kind, ...cell };
}

/** The part of the image that a cell depends on, within its edges: [left, top, width, height]. */
export function fieldOf(layer, row, column) {
  const side = (place) => {
    const first = layer.start + place * layer.jump;
    return [Math.max(first, 0), Math.min(first + layer.field, SIDE)];
  };
  const [left, right] = side(column);
  const [top, bottom] = side(row);
  return [left, top, right - left, bottom - top];
}

/** The cells of a map, as a list of rows. */
function rowsOf({ output, shape }, map) {
  const [, height, width] = shape;
  return range(height).map((row) => {
    const first = cellIndex(shape, map, row, 0);
    return Array.from(output.subarray(first, first + width));
  });
}

/** Where the largest number is; the first place if one of them is no number. */
const placeOfLargest = (numbers) => Math.max(0, numbers.indexOf(Math.max(...numbers)));

/** The brightest cell of a map: [column, row]. */
function brightest(rows) {
  const best = placeOfLargest(rows.flat());
  const width = rows[0].length;
  return [best % width, Math.floor(best / width)];
}

/** The input map that contributes most to a cell. */
function strongestOf(parts) {
  return placeOfLargest(parts.map((part) => Math.abs(part.sum)));
}

// --- Sentences and tables; names come from a learner's network, so they are set as text ---

const show = (number) => fixed(number, 3); // a decimal more than in tables, so that sums add up

const plus = (number) => (number < 0 ? `− ${show(-number)}` : `+ ${show(number)}`);

const bold = (number) => element("b", show(number));

/** A table of numbers, coloured by sign and size. */
function table(rows, title) {
  const sizes = rows.flat().map(Math.abs).filter(Number.isFinite);
  const largest = Math.max(...sizes, 1e-9);
  const cell = (number) => {
    const made = element("td", fixed(number, 2));
    const strength = (0.6 * Math.abs(number)) / largest; // text stays readable on it
    const colour = number > 0 ? "214, 39, 40" : "61, 139, 253";
    made.style.background = `rgba(${colour}, ${strength})`;
    return made;
  };
  const lines = rows.map((row) => element("tr", ...row.map(cell)));
  return element("figure", element("table", ...lines), element("figcaption", title));
}

/** A table after a sign, which stay together at the end of a line. */
function factor(sign, rows, title) {
  const made = element("span", element("span", sign), table(rows, title));
  made.className = "lens-factor";
  return made;
}

function sentenceOnConvolution({ parts, bias, result }, layer, before, from) {
  const { seen, filter, products, sum } = parts[from];
  const all = show(result - bias);
  const isAlone = parts.length === 1;
  const sums = isAlone
    ? `The ${layer.kernel ** 2} products add up to ${show(sum)}.`
    : `Input map ${from + 1}, from ${before.name}, contributes ${show(sum)}; ` +
      `all ${parts.length} input maps together ${all}.`;
  return [
    table(seen, isAlone ? "what the cell sees" : `in input map ${from + 1}`),
    factor("×", filter, "filter"),
    factor("=", products, "products"),
    element("p", `${sums} With the bias: ${all} ${plus(bias)} = `, bold(result), "."),
  ];
}

/** Numbers as bars, from a line in the middle: red to the right if positive, blue to the left. */
function barChart(rows) {
  const largest = Math.max(...rows.map(([, number]) => Math.abs(number)), 1e-9);
  const lines = rows.map(([name, number]) => {
    const bar = element("div");
    bar.style.width = `${(50 * Math.abs(number)) / largest}%`;
    bar.className = number < 0 ? "lens-negative" : "";
    const track = element("td", bar);
    return element("tr", element("th", name), track, element("td", show(number)));
  });
  const chart = element("table", ...lines);
  chart.className = "lens-bars";
  return chart;
}

/** ReLU as a curve, with a dot where a number is changed: -1 and 1 stand for the ends. */
function reluPicture(input, result) {
  const reach = Math.max(Math.abs(input), 1);
  const x = 60 + (50 * input) / reach;
  const y = 60 - (50 * result) / reach;
  const made = element("figure");
  made.innerHTML = `<svg viewBox="0 0 120 72" width="180" height="108" aria-hidden="true">
    <line x1="5" x2="115" y1="60" y2="60"/><line x1="60" x2="60" y1="5" y2="68"/>
    <polyline points="5,60 60,60 110,10"/><circle cx="${x}" cy="${y}" r="4"/></svg>`;
  made.append(element("figcaption", "what goes in, and what comes out"));
  return made;
}

function sentenceOnReLU({ input, result }) {
  return [
    element("div", reluPicture(input, result)),
    "ReLU leaves positive numbers alone and replaces negative ones by 0: ",
    `${show(input)} becomes `,
    bold(result),
    ".",
  ];
}

function sentenceOnLinearLayer({ count, strongest, total, bias, result }) {
  const others = total - strongest.reduce((sum, { product }) => sum + product, 0);
  const rows = strongest.map(({ n, product }) => [`number ${n + 1}`, product]);
  const rest = count - strongest.length;
  const chart = barChart([...rows, [`the other ${rest}`, others], ["bias", bias]]);
  const products = strongest.map(
    ({ input, weight, product }) => `${show(input)} · ${show(weight)} = ${show(product)}`,
  );
  const sum = `All together ${show(total)}, with the bias ${show(total)} ${plus(bias)} = `;
  return [
    chart,
    `A weighted sum of all ${count} numbers of the layer before. ` +
      `The strongest products: ${products.join("; ")}.`,
    element("p", sum, bold(result), "."),
  ];
}

/** How a cell was computed, as texts and elements: a function for each kind of layer. */
const SENTENCES = {
  image: ({ result }) => [
    "A pixel of the digit, normalised: ",
    bold(result),
    ". Choose a layer to see what the network makes of it.",
  ],
  convolution: sentenceOnConvolution,
  ReLU: sentenceOnReLU,
  "max-pooling": ({ seen, result }) => [
    table(seen, "what the cell sees"),
    element("p", "The largest of these numbers is ", bold(result), "."),
  ],
  "average pooling": ({ seen, result }) => [
    table(seen, "what the cell sees"),
    element("p", "The mean of these numbers is ", bold(result), "."),
  ],
  "batch norm": ({ input, mean, deviation, scale, shift, result }) => [
    "Batch norm subtracts the map's mean and divides by its standard deviation, ",
    "both collected in training, then scales and shifts: ",
    `(${show(input)} ${plus(-mean)}) / ${show(deviation)} · ${show(scale)} ${plus(shift)} = `,
    bold(result),
    ".",
  ],
  "linear layer": sentenceOnLinearLayer,
  "log-softmax": ({ input, total, result }) => [
    `The logarithm of the probability: the score ${show(input)} minus ${show(total)}, `,
    "the logarithm of the sum of all exponentials, is ",
    bold(result),
    `. The probability is ${(100 * Math.exp(result)).toFixed(2)} %.`,
  ],
  "": ({ result }, layer) => [
    `The lens cannot explain “${layer.name}”, which it does not know, or which takes its numbers `,
    "from elsewhere than the layer before. PyTorch's result is ",
    bold(result),
    ".",
  ],
};

// --- What is on the page ---

const PAGE = `
<div class="course-widget lens">
  <div class="lens-tools">
    <label>layer <select></select></label>
    <label>map <input type="number" min="1" value="1"></label>
    <label class="lens-from">input map <input type="number" min="1" value="1"></label>
    <button type="button" class="lens-all" aria-expanded="false">All maps</button>
  </div>
  <div class="lens-overview" hidden></div>
  <div class="lens-picture">
    <div class="lens-stack"><canvas></canvas><div class="lens-box"></div></div>
    <div>the digit, and what the cell sees of it</div>
  </div>
  <div class="lens-picture">
    <div class="lens-stack"><canvas class="lens-map" tabindex="0" role="application"
      aria-label="Map. Arrow keys choose a cell."></canvas><div class="lens-box"></div></div>
    <div class="lens-caption" role="status"></div>
  </div>
  <div class="lens-sum" role="status"></div>
</div>`;

/** A map's pixels, dark to bright. A network's numbers have no fixed range: each map has its own. */
function pixelsOf(cells) {
  const lowest = Math.min(...cells);
  const span = Math.max(...cells) - lowest;
  return greyPixels(cells.map((number) => (span > 0 ? (255 * (number - lowest)) / span : 0)));
}

function drawMap(canvas, rows) {
  drawPixels(canvas, rows[0].length, rows.length, pixelsOf(rows.flat()));
}

/** Puts a box over a part of a picture with so many columns and rows. */
function placeBox(box, [left, top, width, height], columns, rows) {
  const share = (length, whole) => `${(100 * length) / whole}%`;
  box.style.left = share(left, columns);
  box.style.top = share(top, rows);
  box.style.width = share(width, columns);
  box.style.height = share(height, rows);
}

/** The number in a field, counted from 0. */
function indexIn(field) {
  const number = Math.round(Number(field.value)) || 1;
  return clamp(number, 1, Number(field.max)) - 1;
}

function nameOf({ name, kind }) {
  return name.startsWith(kind || "?") ? name : `${name}: ${kind || "unknown"}`;
}

// --- The overview: all maps of all layers, in the order in which they are computed ---

const PER_ROW = 16; // maps
const MAP_WIDTH = 24; // of a small picture, about; in pixels of the screen

/** What is drawn as a map. Single numbers are compared with one another, so they make a row. */
const shownAs = ([count, height, width]) =>
  height * width === 1 ? [1, 1, count] : [count, height, width];

/** Draws a layer's maps in one picture. */
function drawMaps(canvas, { output, shape }) {
  const [count, height, width] = shownAs(shape);
  const grid = gridOf(count, PER_ROW, width, height);
  const area = height * width;
  const rgba = new Uint8ClampedArray(4 * grid.width * grid.height);
  for (let map = 0; map < count; map++) {
    const pixels = pixelsOf(output.subarray(map * area, (map + 1) * area));
    for (let cell = 0; cell < area; cell += width)
      rgba.set(pixels.subarray(4 * cell, 4 * (cell + width)), 4 * grid.place(map, cell));
  }
  drawPixels(canvas, grid.width, grid.height, rgba);
}

/** The number of the map at a place in a layer's picture. */
function mapAt(canvas, { shape: [count, height, width] }, { clientX, clientY }) {
  const box = canvas.getBoundingClientRect();
  const columns = height * width === 1 ? count : Math.min(count, PER_ROW);
  const rows = Math.ceil(count / columns);
  const column = Math.floor(((clientX - box.left) / box.width) * columns);
  const row = Math.floor(((clientY - box.top) / box.height) * rows);
  return clamp(row * columns + column, 0, count - 1);
}

function sizeText([count, height, width]) {
  if (count > 1) return `${count} maps of ${height} × ${width}`;
  return height === 1 ? `${width} numbers` : `${height} × ${width}`;
}

/** A place for a layer's picture, with its title. A click on a map, or Enter, calls `choose`. */
function layerPicture(layer, title, choose) {
  const caption = `${title}: ${sizeText(layer.shape)}`;
  const [count, height, width] = shownAs(layer.shape);
  const scale = Math.max(1, Math.round(MAP_WIDTH / (height === 1 ? 1 : width)));
  const canvas = document.createElement("canvas");
  canvas.style.width = `${scale * gridOf(count, PER_ROW, width, height).width}px`;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "button");
  canvas.setAttribute("aria-label", `${caption}. Show how it is computed.`);
  canvas.onclick = (event) => choose(mapAt(canvas, layer, event));
  canvas.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    useUp(event);
    choose(0);
  };
  return element("figure", element("figcaption", caption), canvas);
}

/** What the network reads: the largest of its last numbers; nothing if these are not ten. */
function answerOf({ kind, output, shape }) {
  const digit = output.indexOf(Math.max(...output));
  if (shape.join() !== "1,1,10" || digit < 0) return "";
  const share = kind === "log-softmax" ? ` (${(100 * Math.exp(output[digit])).toFixed(0)} %)` : "";
  return `The network reads a ${digit}${share}.`;
}

// --- The lens at work ---

class Lens {
  layerIndex = 1;
  map = 0;
  cell = null; // [column, row]; null: the brightest
  isHeld = false; // a click holds the cell, so that the pointer can leave the map
  from = null; // the input map that is shown; null: the one that contributes most
  titles = []; // of the layers that the list and the overview have

  constructor(model, el) {
    el.innerHTML = PAGE;
    this.model = model;
    this.root = el.querySelector(".lens");
    this.layerField = this.root.querySelector("select");
    [this.mapField, this.fromField] = this.root.querySelectorAll("input");
    [this.digit, this.canvas] = this.root.querySelectorAll("canvas");
    [this.fieldBox, this.cellBox] = this.root.querySelectorAll(".lens-box");
    this.caption = this.root.querySelector(".lens-caption");
    this.sum = this.root.querySelector(".lens-sum");
    this.overview = this.root.querySelector(".lens-overview");
    this.allButton = this.root.querySelector(".lens-all");
    this.allButton.onclick = () => this.toggleOverview();
    this.listenToFields();
    this.listenToPointer();
    this.canvas.onkeydown = (event) => this.onKey(event);
    this.stopGuarding = guardKeys(this.root);
    this.onChange = () => this.load();
    model.on("change:buffer", this.onChange);
    this.load();
  }
  close() {
    this.stopGuarding();
    this.model.off("change:buffer", this.onChange);
  }

  /** Takes over what Python has noted. */
  load() {
    this.layers = connect(this.model.get("layers"), floatsOf(this.model.get("buffer")));
    this.layerIndex = Math.min(this.layerIndex, this.layers.length - 1);
    const titles = this.layers.map((layer, n) => `${n}. ${nameOf(layer)}`);
    if (titles.join() !== this.titles.join()) {
      this.titles = titles; // as long as they stay, an open list stays open
      this.layerField.replaceChildren(...titles.map((title, n) => new Option(title, n)));
      this.overview.replaceChildren();
    }
    this.layerField.value = this.layerIndex;
    drawMap(this.digit, rowsOf(this.layers[0], 0));
    this.draw();
    this.drawOverview();
  }

  // The overview
  toggleOverview() {
    this.overview.hidden = !this.overview.hidden;
    this.allButton.setAttribute("aria-expanded", !this.overview.hidden);
    this.drawOverview();
  }
  drawOverview() {
    if (this.overview.hidden) return;
    if (this.overview.childElementCount === 0) {
      const pictures = this.layers.map((layer, n) =>
        layerPicture(layer, this.titles[n], (map) => this.lookAt(n, map)),
      );
      this.overview.replaceChildren(...pictures, document.createElement("p"));
    }
    for (const [n, canvas] of this.overview.querySelectorAll("canvas").entries())
      drawMaps(canvas, this.layers[n]);
    this.overview.lastElementChild.textContent = answerOf(this.layers.at(-1));
  }
  lookAt(layerIndex, map) {
    this.goTo([layerIndex, map]);
    this.sum.scrollIntoView({ block: "nearest" });
  }

  // What is chosen
  listenToFields() {
    this.layerField.onchange = () => this.goTo([Number(this.layerField.value), 0]);
    this.mapField.onchange = () => this.chooseMap(indexIn(this.mapField));
    this.fromField.onchange = () => {
      this.from = indexIn(this.fromField);
      this.draw();
    };
  }
  goTo([layerIndex, map]) {
    this.layerIndex = layerIndex;
    this.layerField.value = layerIndex;
    this.from = null;
    this.chooseMap(map);
  }
  chooseMap(map) {
    this.map = map;
    this.cell = null;
    this.isHeld = false;
    this.draw();
  }
  listenToPointer() {
    this.canvas.onpointermove = (event) => {
      if (!this.isHeld) this.point(event);
    };
    this.canvas.onpointerdown = (event) => {
      if (event.button !== 0) return;
      const isMouse = event.pointerType === "mouse"; // a finger leaves no cell to hold
      this.isHeld = isMouse && !this.isHeld;
      this.point(event);
    };
  }
  point({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    const [, height, width] = this.layers[this.layerIndex].shape;
    const column = Math.floor(((clientX - box.left) / box.width) * width);
    const row = Math.floor(((clientY - box.top) / box.height) * height);
    this.chooseCell(column, row);
  }
  onKey(event) {
    if (!(event.key in MOVES)) return;
    useUp(event);
    const [x, y] = MOVES[event.key];
    const [column, row] = this.cellShown();
    this.chooseCell(column + x, row + y);
  }
  chooseCell(column, row) {
    const [, height, width] = this.layers[this.layerIndex].shape;
    this.cell = [clamp(column, 0, width - 1), clamp(row, 0, height - 1)];
    this.draw();
  }
  cellShown() {
    return this.cell ?? brightest(rowsOf(this.layers[this.layerIndex], this.map));
  }

  // What is shown
  draw() {
    const layer = this.layers[this.layerIndex];
    const [count, height, width] = layer.shape;
    this.map = Math.min(this.map, count - 1);
    this.mapField.max = count;
    this.mapField.value = this.map + 1;
    drawMap(this.canvas, rowsOf(layer, this.map));
    const [column, row] = this.cellShown();
    placeBox(this.cellBox, [column, row, 1, 1], width, height);
    placeBox(this.fieldBox, fieldOf(layer, row, column), SIDE, SIDE);
    this.drawCaption(layer.shape, column, row);
    this.drawSum(layer, column, row);
  }
  drawCaption([count, height, width], column, row) {
    const cell = `row ${row + 1}, column ${column + 1}`;
    const number = width === 10 ? `for the digit ${column}` : `number ${column + 1} of ${width}`;
    const where = height === 1 ? number : `${height} × ${width} cells; ${cell}`;
    const held = this.isHeld ? " (held: click to let go)" : "";
    this.caption.textContent = `map ${this.map + 1} of ${count}: ${where}${held}`;
  }
  drawSum(layer, column, row) {
    const how = explain(layer, this.map, row, column);
    const isMixed = how.kind === "convolution" && how.parts.length > 1;
    this.root.querySelector(".lens-from").hidden = !isMixed;
    let from = 0;
    if (isMixed) {
      from = Math.min(this.from ?? strongestOf(how.parts), how.parts.length - 1);
      this.fromField.max = how.parts.length;
      this.fromField.value = from + 1;
    }
    const before = this.layers[this.layerIndex - 1];
    this.sum.replaceChildren(...SENTENCES[how.kind](how, layer, before, from));
  }
}

function render({ model, el }) {
  const lens = new Lens(model, el);
  return () => lens.close();
}

export default { render: ifCanDraw(render) };
