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

/** Where a frame stands under the curves: from 0, the first, to 1, the last. */
const placeOf = (frame, times) => frame / Math.max(times.length - 1, 1);

/** The points of a curve of accuracies on the lessons' axis; `times` says what each frame shows. */
export function curvePoints(accuracies, times, [width, height]) {
  const ends = [...times.keys()].filter((frame) => times[frame][0] > 0); // of epochs
  return accuracies.map((accuracy, n) => [
    placeOf(ends[n], times) * width,
    height * (1 - axisShare(accuracy)),
  ]);
}

// --- What is on the page ---

const SIZE = [260, 150]; // of the curves
const [WIDTH, HEIGHT] = SIZE;
const PACE = 700; // milliseconds that each frame is shown

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
  goTo(frame) {
    this.slider.value = frame;
    this.draw();
  }

  // What is shown
  draw() {
    const answers = this.model.get("answers");
    if (!answers.length) {
      this.title.textContent = "Nothing has been recorded yet: run the training first.";
      return;
    }
    const frame = Number(this.slider.value);
    this.title.textContent = this.timeOf(frame);
    this.drawPictures(frame);
    this.drawChange(frame);
    this.drawCurves(frame);
    showBars(this.root, answers[frame]);
  }
  /** How many epochs were over, and how many steps of the next one. */
  countAt(frame) {
    const [epochs, steps] = this.model.get("times")[frame];
    return [this.model.get("start") + epochs, steps];
  }
  timeOf(frame) {
    const [epochs, steps] = this.countAt(frame);
    const [last] = this.countAt(this.model.get("times").length - 1);
    if (steps > 0) return `epoch ${epochs + 1} of ${last}, after step ${steps}`;
    return epochs === 0 ? "before training" : `after epoch ${epochs} of ${last}`;
  }
  drawChange(frame) {
    const change = this.model.get("changes")[frame - 1]; // none before the first epoch
    const text = frame === 0 ? this.timeOf(0) : `changed by ${change.toFixed(1)} % in this epoch`;
    this.root.querySelector(".film-change").textContent = `filters of the first layer, ${text}`;
  }
  drawPictures(frame) {
    const sizes = this.model.get("sizes");
    const filters = this.bytesIn("filters", frame);
    paint(this.filters, sheet(filters, sizes.filters, 8, colourOf));
    paint(this.maps, sheet(this.bytesIn("maps", frame), sizes.maps, 4, greyOf));
    paint(this.digit, sheet(bytesOf(this.model.get("digit")), [1, 28, 28], 1, greyOf));
  }
  /** The filters or maps of one frame. */
  bytesIn(name, frame) {
    const [count, height, width] = this.model.get("sizes")[name];
    const size = count * height * width;
    return bytesOf(this.model.get(name)).subarray(frame * size, (frame + 1) * size);
  }
  drawCurves(frame) {
    this.drawCurve(0, "train_acc", "training", frame);
    this.drawCurve(1, "test_acc", this.model.get("measured_on"), frame);
    const x = placeOf(frame, this.model.get("times")) * WIDTH;
    const now = this.root.querySelector(".film-now");
    now.setAttribute("x1", x);
    now.setAttribute("x2", x);
  }
  drawCurve(place, name, text, frame) {
    const times = this.model.get("times");
    const epochs = times[frame][0];
    const accuracies = this.model.get("curves")[name].slice(0, epochs);
    const points = curvePoints(accuracies, times, SIZE);
    const line = this.root.querySelectorAll("polyline")[place];
    line.setAttribute("points", points.map((point) => point.join(",")).join(" "));
    const percent = epochs === 0 ? "–" : `${accuracies.at(-1).toFixed(2)} %`;
    const caption = this.root.querySelectorAll(".film-curve figcaption span")[place];
    caption.textContent = `${text} ${percent}`;
  }
}

function render({ model, el }) {
  const film = new Film(model, el);
  return () => film.close();
}

export default { render: ifCanDraw(render) };
