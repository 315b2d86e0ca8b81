// The training film, an anywidget: Jupyter calls `render` to fill the element `el`. Python has
// computed all frames (see __init__.py); here they are only shown, so the film needs no kernel.

import { axisShare, BARS, bytesOf, drawPixels, guardKeys, ifCanDraw, showBars } from "../look.js";

// --- Pure functions: they need no page, so tests can call them ---

/** Red for positive weights, blue for negative ones, white for 0: the byte 128. */
export function colourOf(byte) {
  const strength = (byte - 128) / 127;
  const pale = Math.round(255 * (1 - Math.abs(strength)));
  return strength > 0 ? [255, pale, pale] : [pale, pale, 255];
}

const greyOf = (byte) => [byte, byte, byte];

/** Pictures in rows of `columns`, with a pixel between them: { width, height, rgba }. */
export function sheet(bytes, [count, height, width], columns, colour) {
  const rows = Math.ceil(count / columns);
  const fullWidth = columns * (width + 1) - 1;
  const fullHeight = rows * (height + 1) - 1;
  const rgba = new Uint8ClampedArray(4 * fullWidth * fullHeight);
  for (const [n, byte] of bytes.entries()) {
    const picture = Math.floor(n / (height * width));
    const top = Math.floor(picture / columns) * (height + 1);
    const left = (picture % columns) * (width + 1);
    const row = top + (Math.floor(n / width) % height);
    const column = left + (n % width);
    rgba.set([...colour(byte), 255], 4 * (row * fullWidth + column));
  }
  return { width: fullWidth, height: fullHeight, rgba };
}

/** The points of a curve of accuracies on the lessons' axis, the first of them after one epoch. */
export function curvePoints(accuracies, frames, [width, height]) {
  return accuracies.map((accuracy, n) => [
    ((n + 1) / Math.max(frames - 1, 1)) * width,
    height * (1 - axisShare(accuracy)),
  ]);
}

// --- What is on the page ---

const SIZE = [260, 150]; // of the curves
const [WIDTH, HEIGHT] = SIZE;
const PACE = 700; // milliseconds that each epoch is shown

const gridLine = (accuracy) => {
  const y = HEIGHT * (1 - axisShare(accuracy));
  return `<line x1="0" x2="${WIDTH}" y1="${y}" y2="${y}"/>
    <text x="-4" y="${y + 3}">${accuracy} %</text>`;
};

const PAGE = `
<div class="course-widget film">
  <div class="film-controls">
    <button type="button">Play</button>
    <label class="film-slider">
      <span></span><input type="range" min="0" value="0" step="1">
    </label>
  </div>
  <figure class="film-answer">
    <canvas></canvas><figcaption>the network's answer:</figcaption><div>${BARS}</div>
  </figure>
  <figure class="film-filters">
    <canvas></canvas><figcaption class="film-change"></figcaption>
  </figure>
  <figure class="film-maps">
    <canvas></canvas>
    <figcaption>what the first of them make of the digit, after ReLU</figcaption>
  </figure>
  <figure class="film-curve">
    <svg viewBox="-38 -6 ${WIDTH + 44} ${HEIGHT + 12}">
      ${[99.8, 99, 95, 80].map(gridLine).join("")}
      <polyline/><polyline/><line class="film-now" y1="0" y2="${HEIGHT}"/>
    </svg>
    <figcaption>accuracy: <span></span>, <span></span></figcaption>
  </figure>
</div>`;

function paint(canvas, { width, height, rgba }) {
  drawPixels(canvas, width, height, rgba);
}

// --- The film at work ---

class Film {
  timer = null; // runs while the film plays

  constructor(model, el) {
    el.innerHTML = PAGE;
    this.model = model;
    this.root = el.querySelector(".film");
    this.slider = this.root.querySelector("input");
    this.title = this.root.querySelector(".film-slider span");
    [this.digit, this.filters, this.maps] = this.root.querySelectorAll("canvas");
    this.button = this.root.querySelector("button");
    this.button.onclick = () => (this.timer === null ? this.play() : this.pause());
    this.slider.oninput = () => {
      this.pause();
      this.draw();
    };
    this.stopGuarding = guardKeys(this.root);
    this.onChange = () => this.rewind();
    model.on("change:answers", this.onChange);
    this.rewind();
  }
  close() {
    this.pause();
    this.stopGuarding();
    this.model.off("change:answers", this.onChange);
  }

  /** Begins with the first frame: Python has recorded another film. */
  rewind() {
    this.pause();
    this.slider.max = Math.max(this.model.get("answers").length - 1, 0);
    this.slider.value = 0;
    this.button.disabled = this.slider.max === "0";
    this.draw();
  }

  // Playing
  isAtEnd() {
    return this.slider.value === this.slider.max;
  }
  play() {
    if (this.isAtEnd()) this.goTo(0);
    this.timer = setInterval(() => this.advance(), PACE);
    this.button.textContent = "Pause";
  }
  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "Play";
  }
  advance() {
    this.goTo(Number(this.slider.value) + 1);
    if (this.isAtEnd()) this.pause();
  }
  goTo(epoch) {
    this.slider.value = epoch;
    this.draw();
  }

  // What is shown
  draw() {
    const answers = this.model.get("answers");
    if (!answers.length) {
      this.title.textContent = "Nothing has been recorded yet: run the training first.";
      return;
    }
    const epoch = Number(this.slider.value);
    this.title.textContent = this.timeOf(epoch);
    this.drawPictures(epoch);
    this.drawChange(epoch);
    this.drawCurves(epoch);
    showBars(this.root, answers[epoch]);
  }
  timeOf(epoch) {
    const start = this.model.get("start") ?? 0; // how many epochs were over before the first frame
    const last = start + this.model.get("answers").length - 1;
    return start + epoch === 0 ? "before training" : `after epoch ${start + epoch} of ${last}`;
  }
  drawChange(epoch) {
    const change = this.model.get("changes")[epoch - 1]; // none before the first epoch
    const text = epoch === 0 ? this.timeOf(0) : `changed by ${change.toFixed(1)} % in this epoch`;
    this.root.querySelector(".film-change").textContent = `filters of the first layer, ${text}`;
  }
  drawPictures(epoch) {
    const sizes = this.model.get("sizes");
    const filters = this.frame("filters", epoch);
    paint(this.filters, sheet(filters, sizes.filters, 8, colourOf));
    paint(this.maps, sheet(this.frame("maps", epoch), sizes.maps, 4, greyOf));
    paint(this.digit, sheet(bytesOf(this.model.get("digit")), [1, 28, 28], 1, greyOf));
  }
  /** The bytes of the filters or maps of one frame. */
  frame(name, number) {
    const [count, height, width] = this.model.get("sizes")[name];
    const size = count * height * width;
    return bytesOf(this.model.get(name)).subarray(number * size, (number + 1) * size);
  }
  drawCurves(epoch) {
    this.drawCurve(0, "train_acc", "training", epoch);
    this.drawCurve(1, "test_acc", this.model.get("measured_on"), epoch);
    const x = (epoch / Math.max(this.model.get("answers").length - 1, 1)) * WIDTH;
    const now = this.root.querySelector(".film-now");
    now.setAttribute("x1", x);
    now.setAttribute("x2", x);
  }
  drawCurve(place, name, text, epoch) {
    const accuracies = this.model.get("curves")[name].slice(0, epoch);
    const points = curvePoints(accuracies, this.model.get("answers").length, SIZE);
    const line = this.root.querySelectorAll("polyline")[place];
    line.setAttribute("points", points.map((point) => point.join(",")).join(" "));
    const percent = epoch === 0 ? "–" : `${accuracies.at(-1).toFixed(2)} %`;
    const caption = this.root.querySelectorAll(".film-curve figcaption span")[place];
    caption.textContent = `${text} ${percent}`;
  }
}

function render({ model, el }) {
  const film = new Film(model, el);
  return () => film.close();
}

export default { render: ifCanDraw(render) };
