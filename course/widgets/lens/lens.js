// The convolution lens, an anywidget: Jupyter calls `render` to fill the element `el`. Python has noted what the
// network computed (`layers` and `numbers`); each cell is worked out here once more, so the lens needs no kernel.

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// --- Pure functions: they need no page, so tests can call them ---

/** One number of a layer. */
const value = (numbers, layer, map, row, column) =>
  numbers[layer.at + (map * layer.shape[1] + row) * layer.shape[2] + column];

/** A square of a map, a list of rows; 0 where it lies outside, in the padding. */
export function patch(numbers, layer, map, top, left, size) {
  const [, height, width] = layer.shape;
  const at = (row, column) =>
    row < 0 || column < 0 || row >= height || column >= width ? 0 : value(numbers, layer, map, row, column);
  return [...Array(size).keys()].map((y) => [...Array(size).keys()].map((x) => at(top + y, left + x)));
}

const sum = (list) => list.reduce((total, number) => total + number, 0);
const multiply = (a, b) => a.map((row, y) => row.map((number, x) => number * b[y][x]));

/** How a cell was computed: its kind, the numbers that went in, and the result, which must be PyTorch's. */
export function explain(numbers, layers, place, map, row, column) {
  const result = value(numbers, layers[place], map, row, column);
  const how = workOut(numbers, layers, place, map, row, column);
  const isRight = how !== null && Math.abs(how.result - result) <= 1e-3 * (1 + Math.abs(result));
  return isRight ? { kind: layers[place].kind, ...how } : { kind: "", result }; // as where a network has branches
}

function workOut(numbers, layers, place, map, row, column) {
  const layer = layers[place];
  const before = layers[place - 1];
  const same = () => value(numbers, before, map, row, column);
  const all = () => [...numbers.subarray(before.at, before.at + before.shape.reduce((a, b) => a * b))];
  const corner = [row * layer.stride - (layer.padding ?? 0), column * layer.stride - (layer.padding ?? 0)];
  switch (layer.kind) {
    case "image":
      return { result: value(numbers, layer, 0, row, column) };
    case "convolution": {
      const size = layer.kernel;
      const channels = before.shape[0];
      const parts = [...Array(channels).keys()].map((channel) => {
        const first = layer.weight + (map * channels + channel) * size * size;
        const filter = patch(numbers, { at: first, shape: [1, size, size] }, 0, 0, 0, size);
        const seen = patch(numbers, before, channel, ...corner, size);
        const products = multiply(seen, filter);
        return { seen, filter, products, sum: sum(products.flat()) };
      });
      const bias = layer.bias === null ? 0 : numbers[layer.bias + map];
      return { parts, bias, result: sum(parts.map((part) => part.sum)) + bias };
    }
    case "ReLU":
      return { input: same(), result: Math.max(0, same()) };
    case "max-pooling":
    case "average pooling": {
      const seen = patch(numbers, before, map, ...corner, layer.kernel);
      const cells = seen.flat();
      const result = layer.kind === "max-pooling" ? Math.max(...cells) : sum(cells) / cells.length;
      return { seen, result };
    }
    case "batch norm": {
      const unit = layer.shape[0] === 1 && layer.shape[1] === 1 ? column : map; // after a linear layer: each number
      const stored = (name, usual) => (layer[name] === null ? usual : numbers[layer[name] + unit]);
      const [mean, variance] = [stored("running_mean"), stored("running_var")];
      const [scale, shift] = [stored("weight", 1), stored("bias", 0)];
      const deviation = Math.sqrt(variance + layer.eps);
      const input = same();
      return { input, mean, deviation, scale, shift, result: ((input - mean) / deviation) * scale + shift };
    }
    case "linear layer": {
      const count = all().length;
      const products = all().map((input, n) => {
        const weight = numbers[layer.weight + column * count + n];
        return { n, input, weight, product: input * weight };
      });
      const bias = layer.bias === null ? 0 : numbers[layer.bias + column];
      const total = sum(products.map(({ product }) => product));
      products.sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
      return { count, strongest: products.slice(0, 5), total, bias, result: total + bias };
    }
    case "log-softmax": {
      const scores = all();
      const top = Math.max(...scores); // so that no exponential becomes infinite
      const total = top + Math.log(sum(scores.map((score) => Math.exp(score - top))));
      return { input: scores[column], total, result: scores[column] - total };
    }
    default:
      return null;
  }
}

/** The part of the image that a cell depends on, cut off at its edges: [left, top, width, height]. */
export function fieldOf(layer, row, column) {
  const side = (place) => {
    const first = layer.start + place * layer.jump;
    return [Math.max(first, 0), Math.min(first + layer.field, 28)];
  };
  const [[left, right], [top, bottom]] = [side(column), side(row)];
  return [left, top, right - left, bottom - top];
}

/** A number with a true minus sign; sums get a decimal more than tables, so that they add up. */
export const show = (number, decimals = 3) =>
  number
    .toFixed(decimals)
    .replace(/^-(0\.0*)$/, "$1")
    .replace("-", "−");

// --- What is on the page ---

const PAGE = `
<div class="course-widget lens">
  <div class="lens-tools">
    <label>layer <select></select></label>
    <label>map <input type="number" min="1" value="1"></label>
    <label class="lens-from">input map <input type="number" min="1" value="1"></label>
  </div>
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

/** Draw a map, dark to bright; a network's numbers have no fixed range, so each map has its own. */
function paint(canvas, rows) {
  const [height, width] = [rows.length, rows[0].length];
  const all = rows.flat();
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const picture = new ImageData(width, height);
  for (const [n, number] of all.entries()) {
    const grey = high > low ? (255 * (number - low)) / (high - low) : 0;
    picture.data.set([grey, grey, grey, 255], 4 * n);
  }
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** A box over a picture of so many columns and rows. */
function frame(box, [left, top, width, height], columns, rows) {
  const share = (length, whole) => `${(100 * length) / whole}%`;
  box.style.left = share(left, columns);
  box.style.top = share(top, rows);
  box.style.width = share(width, columns);
  box.style.height = share(height, rows);
}

/** A table of numbers, coloured by sign and size. */
function table(rows, title) {
  const largest = Math.max(...rows.flat().map(Math.abs), 1e-9);
  const cell = (number) => {
    const strength = (0.6 * Math.abs(number)) / largest; // text stays readable on it
    const colour = number > 0 ? `rgba(214, 39, 40, ${strength})` : `rgba(61, 139, 253, ${strength})`;
    return `<td style="background: ${colour}">${show(number, 2)}</td>`;
  };
  const body = rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("");
  return `<figure><table>${body}</table><figcaption>${title}</figcaption></figure>`;
}

const plus = (number) => (number < 0 ? `− ${show(-number)}` : `+ ${show(number)}`);

/** How a cell was computed, as HTML. */
function words(how, layer, before, from) {
  const result = `<b>${show(how.result)}</b>`;
  switch (how.kind) {
    case "image":
      return `A pixel of the digit, normalised: ${result}. Choose a layer to see what the network makes of it.`;
    case "convolution": {
      const part = how.parts[from];
      const all = how.parts.length;
      const others =
        all === 1
          ? `The ${layer.kernel ** 2} products add up to ${show(part.sum)}.`
          : `Input map ${from + 1}, from ${before.name}, contributes ${show(part.sum)}; all ${all} input maps together ${show(how.result - how.bias)}.`;
      const title = all === 1 ? "what the cell sees" : `in input map ${from + 1}`;
      const product = (sign, rows, text) =>
        `<span class="lens-factor"><span>${sign}</span>${table(rows, text)}</span>`;
      return `${table(part.seen, title)}${product("×", part.filter, "filter")}${product("=", part.products, "products")}
        <p>${others} With the bias: ${show(how.result - how.bias)} ${plus(how.bias)} = ${result}.</p>`;
    }
    case "ReLU":
      return `ReLU leaves positive numbers alone and replaces negative ones by 0: ${show(how.input)} becomes ${result}.`;
    case "max-pooling":
      return `${table(how.seen, "what the cell sees")}<p>The largest of these numbers is ${result}.</p>`;
    case "average pooling":
      return `${table(how.seen, "what the cell sees")}<p>The mean of these numbers is ${result}.</p>`;
    case "batch norm":
      return `Batch norm subtracts the map's mean and divides by its standard deviation, both collected in training, then scales and
        shifts: (${show(how.input)} ${plus(-how.mean)}) / ${show(how.deviation)} · ${show(how.scale)} ${plus(how.shift)} = ${result}.`;
    case "linear layer": {
      const list = how.strongest.map(
        ({ input, weight, product }) => `${show(input)} · ${show(weight)} = ${show(product)}`,
      );
      return `A weighted sum of all ${how.count} numbers of the layer before. The strongest products: ${list.join("; ")}.
        <p>All together ${show(how.total)}, with the bias ${show(how.total)} ${plus(how.bias)} = ${result}.</p>`;
    }
    case "log-softmax":
      return `The logarithm of the probability: the score ${show(how.input)} minus ${show(how.total)}, the logarithm of the sum of all
        exponentials, is ${result}. The probability is ${(100 * Math.exp(how.result)).toFixed(2)} %.`;
    default:
      return `The lens cannot explain “${layer.name}”, which it does not know, or which takes its numbers from elsewhere than
        the layer before. PyTorch's result is ${result}.`;
  }
}

function render({ model, el }) {
  el.innerHTML = PAGE;
  const root = el.querySelector(".lens");
  const choice = root.querySelector("select");
  const [mapInput, fromInput] = root.querySelectorAll("input");
  const [digit, map] = root.querySelectorAll("canvas");
  const [fieldBox, cellBox] = root.querySelectorAll(".lens-box");
  const caption = root.querySelector(".lens-caption");
  const result = root.querySelector(".lens-sum");
  let layers = [];
  let numbers = new Float32Array();
  let place = 1; // of the layer
  let chosen = 0; // its map
  let spot = null; // the cell: [column, row]; none: the brightest
  let isHeld = false; // a click holds the cell, so that the pointer can leave the map
  let from = null; // the map of the layer before that is shown; none: the one that contributes most

  function read() {
    const view = model.get("numbers");
    const bytes =
      view instanceof DataView ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : view;
    [layers, numbers] = [model.get("layers"), new Float32Array(bytes)];
    place = Math.min(place, layers.length - 1);
    const names = layers.map(({ name, kind }) =>
      name.startsWith(kind || "?") ? name : `${name}: ${kind || "unknown"}`,
    );
    choice.replaceChildren(...names.map((name, n) => new Option(`${n}. ${name}`, n)));
    choice.value = place;
    paint(digit, patch(numbers, layers[0], 0, 0, 0, 28));
    draw();
  }
  const rowsOf = (layer, which) =>
    [...Array(layer.shape[1]).keys()].map((row) =>
      [...Array(layer.shape[2]).keys()].map((column) => value(numbers, layer, which, row, column)),
    );
  function brightest(rows) {
    const all = rows.flat();
    const best = all.indexOf(Math.max(...all));
    return [best % rows[0].length, Math.floor(best / rows[0].length)];
  }
  function draw() {
    const layer = layers[place];
    const [count, height, width] = layer.shape;
    chosen = Math.min(chosen, count - 1);
    mapInput.max = count;
    mapInput.value = chosen + 1;
    const rows = rowsOf(layer, chosen);
    paint(map, rows);
    const [column, row] = spot ?? brightest(rows);
    frame(cellBox, [column, row, 1, 1], width, height);
    frame(fieldBox, fieldOf(layer, row, column), 28, 28);
    const cell = `row ${row + 1}, column ${column + 1}`;
    const number = width === 10 ? `for the digit ${column}` : `number ${column + 1} of ${width}`;
    const where = height === 1 ? number : `${height} × ${width} cells; ${cell}`;
    caption.textContent = `map ${chosen + 1} of ${count}: ${where}${isHeld ? " (held: click to let go)" : ""}`;
    const how = explain(numbers, layers, place, chosen, row, column);
    const isMixed = how.kind === "convolution" && how.parts.length > 1;
    root.querySelector(".lens-from").hidden = !isMixed;
    let shown = 0;
    if (isMixed) {
      const sizes = how.parts.map((part) => Math.abs(part.sum));
      shown = Math.min(from ?? sizes.indexOf(Math.max(...sizes)), how.parts.length - 1);
      Object.assign(fromInput, { max: how.parts.length, value: shown + 1 });
    }
    result.innerHTML = words(how, layer, layers[place - 1], shown);
  }
  const whole = (input) => Math.min(Math.max(Math.round(Number(input.value)) || 1, 1), Number(input.max)) - 1;
  choice.onchange = () => {
    [place, chosen, spot, from, isHeld] = [Number(choice.value), 0, null, null, false];
    draw();
  };
  mapInput.onchange = () => {
    [chosen, spot, isHeld] = [whole(mapInput), null, false];
    draw();
  };
  fromInput.onchange = () => {
    from = whole(fromInput);
    draw();
  };
  function point(event) {
    const box = map.getBoundingClientRect();
    const [, height, width] = layers[place].shape;
    const at = (length, size, count) => Math.min(Math.max(Math.floor((length / size) * count), 0), count - 1);
    spot = [at(event.clientX - box.left, box.width, width), at(event.clientY - box.top, box.height, height)];
    draw();
  }
  map.onpointermove = (event) => {
    if (!isHeld) point(event);
  };
  map.onpointerdown = (event) => {
    if (event.button !== 0) return;
    isHeld = event.pointerType === "mouse" && !isHeld; // a finger leaves no cell to hold
    point(event);
  };
  map.onkeydown = (event) => {
    if (!(event.key in MOVES)) return;
    event.preventDefault();
    event.stopPropagation();
    const [, height, width] = layers[place].shape;
    const [column, row] = spot ?? brightest(rowsOf(layers[place], chosen));
    const [x, y] = MOVES[event.key];
    spot = [Math.min(Math.max(column + x, 0), width - 1), Math.min(Math.max(row + y, 0), height - 1)];
    draw();
  };

  // Jupyter must not use the lens's keys for its shortcuts, but may have Ctrl+S and Shift+Enter.
  function guard({ target, key, ctrlKey, metaKey, shiftKey }) {
    if (root.contains(target))
      target.toggleAttribute(
        "data-lm-suppress-shortcuts",
        !(ctrlKey || metaKey || (shiftKey && key === "Enter")),
      );
  }
  window.addEventListener("keydown", guard, true);
  model.on("change:numbers", read);
  read();
  return () => {
    window.removeEventListener("keydown", guard, true);
    model.off("change:numbers", read);
  };
}

export default { render };
