// The drawing pad, an anywidget: Jupyter calls `render` to fill the element `el`. The `model`
// carries drawings to the kernel, and the network's answers back.

import {
  accentOf,
  BARS,
  bytesOf,
  clamp,
  drawPixels,
  greyPixels,
  guardKeys,
  ifCanDraw,
  showBars,
  useUp,
} from "../look.js";

const SIZE = 280; // width and height of the pad, in its own units
const SENT = 140; // width and height of the drawing that the kernel gets, in pixels
const WIDTHS = [12, 18, 24, 30, 36]; // of the pen, in the pad's units
const SHARE = 0.15; // the widest pen, as a part of the drawing's size
const SURE = 0.7; // below this probability the pad does not commit itself
const NO_GUESS = Array(10).fill(0);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// --- Pure functions: they need no page, so tests can call them ---

/** Where an event took place, in the pad's units; `box` is the pad as the page shows it. */
export function toPad({ clientX, clientY }, box) {
  return [clientX - box.left, clientY - box.top].map((length) => (length * SIZE) / box.width);
}

/** Where an arrow key moves the pen, which never leaves the pad. Small steps are for details. */
export function movePen(spot, key, isSmall) {
  const step = isSmall ? 2 : 10;
  return spot.map((length, axis) => clamp(length + step * ARROWS[key][axis], 0, SIZE));
}

/** The next place in WIDTHS. A fast click may arrive before its button is disabled. */
export const changeWidth = (width, by) => clamp(width + by, 0, WIDTHS.length - 1);

/** The strokes now, and those before each change. None is ever modified, so Undo just goes back. */
export const EMPTY = { strokes: [], past: [] };

/** Begins a stroke, which Undo will remove as a whole. */
export function beginStroke({ strokes, past }, width, point) {
  return { strokes: [...strokes, { width, points: [point] }], past: [...past, strokes] };
}

/** Continues the last stroke, without a new step for Undo. */
export function extendStroke({ strokes, past }, point) {
  const { width, points } = strokes.at(-1);
  return { strokes: [...strokes.slice(0, -1), { width, points: [...points, point] }], past };
}

/** Removes all strokes; Undo brings them back. The same object comes back if there are none. */
export function clearAll(history) {
  return history.strokes.length
    ? { strokes: [], past: [...history.past, history.strokes] }
    : history;
}

/** Goes back one change; the same object comes back if there is none. */
export function undoLast(history) {
  return history.past.length
    ? { strokes: history.past.at(-1), past: history.past.slice(0, -1) }
    : history;
}

/** The strokes for the network: in a small drawing, a thick pen would fill the holes of a digit. */
export function thinned(strokes) {
  const points = strokes.flatMap((stroke) => stroke.points);
  const lengths = [0, 1].map((axis) => {
    const places = points.map((point) => point[axis]);
    // One by one: a function does not take 130,000 arguments.
    const highest = places.reduce((a, b) => Math.max(a, b));
    const lowest = places.reduce((a, b) => Math.min(a, b));
    return highest - lowest;
  });
  const widest = SHARE * Math.max(...lengths);
  if (widest <= 2) return strokes; // hardly more than a dot
  return strokes.map(({ width, points }) => ({ width: Math.min(width, widest), points }));
}

/** Shrinks RGBA pixels to `sent` × `sent` bytes of ink, each the mean of the pixels it covers. */
export function averageInk(rgba, size = SIZE, sent = SENT) {
  const step = size / sent;
  const sums = new Float32Array(sent * sent);
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++)
      sums[Math.floor(y / step) * sent + Math.floor(x / step)] += rgba[4 * (y * size + x) + 3];
  return Uint8Array.from(sums, (sum) => Math.round(sum / (step * step)));
}

/** The network's ten probabilities in words, or nothing if it has no guess. */
export function verdictOn(probabilities) {
  const best = Math.max(...probabilities);
  if (!(best > 0)) return "";
  const digit = probabilities.indexOf(best);
  const name = `${digit === 8 ? "an" : "a"} ${digit}`;
  return best < SURE ? `Not sure: ${name}?` : `This is ${name}.`;
}

// --- What is on the page ---

const KEYS =
  "Arrow keys move the pen (Shift: small steps), Space lowers and lifts it, " +
  "Backspace undoes, Delete clears.";

const LATE = "No answer yet: the kernel is busy. (If it was restarted, run this cell again.)";
const NO_NUMBERS =
  "The network's answers are not numbers: train it again with a smaller learning rate.";

const PAGE = `
<div class="course-widget digit-pad">
  <div class="digit-pad-left">
    <canvas class="digit-pad-canvas" width="${2 * SIZE}" height="${2 * SIZE}" tabindex="0"
      role="application" aria-label="Drawing pad. ${KEYS}"></canvas>
    <div class="digit-pad-tools">
      <button type="button" title="Undo the last change (Backspace)">Undo</button>
      <button type="button" title="Start over (Delete)">Clear</button>
      <button type="button" title="A thinner pen">Thinner</button>
      <button type="button" title="A thicker pen">Thicker</button>
    </div>
    <div class="digit-pad-keys">${KEYS}</div>
  </div>
  <div class="digit-pad-answer">
    <div class="digit-pad-verdict" role="status"></div>${BARS}
  </div>
  <div class="digit-pad-seen">
    <canvas width="28" height="28" role="img" aria-label="picture"></canvas>
    <div>what the network sees: 28 × 28 pixels</div>
  </div>
</div>`;

function drawStrokes(context, strokes) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = "white";
  for (const { width, points } of strokes) {
    context.lineWidth = width;
    context.beginPath();
    context.arc(...points[0], width / 2, 0, 2 * Math.PI); // a dot is a stroke too
    context.fill();
    context.beginPath();
    for (const point of points) context.lineTo(...point);
    context.stroke();
  }
}

/** Draws the circle that shows where the keyboard's pen is. */
function drawPen(context, { spot, width, isDown, colour }) {
  context.strokeStyle = colour;
  context.lineWidth = isDown ? 4 : 2;
  context.beginPath();
  context.arc(...spot, width / 2, 0, 2 * Math.PI);
  context.stroke();
}

// --- The pad at work ---

class Pad {
  history = EMPTY;
  version = 0; // counts the changes
  width = 2; // its place in WIDTHS
  pointer = null; // the mouse, pen or finger that is drawing
  spot = [SIZE / 2, SIZE / 4]; // of the keyboard's pen
  isPenDown = false;
  isKeyboard = false;
  isWaitingForFrame = false;
  // Questions to the kernel: one at a time, and always about the latest drawing
  id = Math.random(); // one model may be shown twice, and each view gets all answers
  asked = null; // the version that the last question was about
  timer = null; // runs while a question waits for its answer

  constructor(model, el) {
    el.innerHTML = PAGE;
    this.model = model;
    this.root = el.querySelector(".digit-pad");
    this.canvas = this.root.querySelector(".digit-pad-canvas");
    this.screen = this.canvas.getContext("2d");
    this.seen = this.root.querySelector(".digit-pad-seen canvas");
    this.verdict = this.root.querySelector(".digit-pad-verdict");
    const hidden = document.createElement("canvas");
    hidden.width = hidden.height = SIZE;
    this.ink = hidden.getContext("2d", { willReadFrequently: true });
    this.listenToButtons();
    this.listenToPointer();
    this.canvas.onkeydown = (event) => this.onKey(event);
    this.canvas.onblur = () => this.leave();
    this.stopGuarding = guardKeys(this.root, "z");
    this.onMessage = (content, buffers) => this.onAnswer(content, buffers);
    model.on("msg:custom", this.onMessage);
    this.onStrokes = () => this.change({ strokes: model.get("strokes"), past: [] });
    model.on("change:strokes", this.onStrokes); // the website's landing page, which draws a digit
    this.draw();
  }
  close() {
    this.stopWaiting();
    this.stopGuarding();
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:strokes", this.onStrokes);
  }

  // The drawing
  change(history) {
    if (history === this.history) return;
    this.history = history;
    this.version++;
    this.drawSoon();
  }
  begin(point) {
    this.change(beginStroke(this.history, WIDTHS[this.width], point));
  }
  extend(point) {
    this.change(extendStroke(this.history, point));
  }
  undo() {
    this.lift();
    this.change(undoLast(this.history));
  }
  clear() {
    this.lift();
    this.change(clearAll(this.history));
  }
  lift() {
    this.pointer = null;
    this.isPenDown = false;
    this.drawSoon();
  }
  resize(by) {
    this.width = changeWidth(this.width, by);
    this.drawSoon();
  }

  // Buttons
  listenToButtons() {
    const [undo, clear, thinner, thicker] = this.root.querySelectorAll("button");
    undo.onclick = () => this.undo();
    clear.onclick = () => this.clear();
    thinner.onclick = () => this.resize(-1);
    thicker.onclick = () => this.resize(+1);
    this.buttons = { undo, clear, thinner, thicker };
  }
  drawButtons({ strokes, past }) {
    const { undo, clear, thinner, thicker } = this.buttons;
    undo.disabled = !past.length;
    undo.textContent = past.length && !strokes.length ? "Undo clear" : "Undo";
    clear.disabled = !strokes.length;
    thinner.disabled = this.width === 0;
    thicker.disabled = this.width === WIDTHS.length - 1;
  }

  // Mouse, pen and finger
  listenToPointer() {
    const place = (event) => toPad(event, this.canvas.getBoundingClientRect());
    this.canvas.onpointerdown = (event) => {
      if (event.button !== 0 || this.pointer !== null) return;
      event.preventDefault();
      this.root.classList.add("digit-pad-pointing");
      this.canvas.focus({ preventScroll: true });
      this.canvas.setPointerCapture(event.pointerId);
      this.lift();
      this.pointer = event.pointerId;
      this.isKeyboard = false;
      this.begin(place(event));
    };
    this.canvas.onpointermove = (event) => {
      if (event.pointerId !== this.pointer) return;
      const all = event.getCoalescedEvents?.() ?? [];
      for (const each of all.length ? all : [event]) this.extend(place(each));
    };
    this.canvas.onpointerup = this.canvas.onpointercancel = (event) => {
      if (event.pointerId === this.pointer) this.lift();
    };
  }

  // Keyboard
  onKey(event) {
    this.root.classList.remove("digit-pad-pointing");
    const act = this.actionFor(event);
    if (!act) return;
    useUp(event);
    this.isKeyboard = true;
    act();
    this.drawSoon();
  }
  /** What a key does, as a function; nothing for a key that the pad does not use. */
  actionFor({ key, ctrlKey, metaKey, shiftKey, repeat }) {
    if (key in ARROWS) return () => this.move(key, shiftKey);
    if (key === " ") return () => this.pressSpace(repeat);
    if (key === "Backspace" || (key === "z" && (ctrlKey || metaKey))) return () => this.undo();
    return key === "Delete" ? () => this.clear() : null;
  }
  move(key, isSmall) {
    this.spot = movePen(this.spot, key, isSmall);
    if (this.isPenDown) this.extend(this.spot);
  }
  pressSpace(isRepeated) {
    if (isRepeated) return;
    if (this.isPenDown) return this.lift();
    this.isPenDown = true;
    this.begin(this.spot);
  }
  leave() {
    this.root.classList.remove("digit-pad-pointing");
    this.isKeyboard = false;
    this.lift();
  }

  // What is shown
  drawSoon() {
    if (this.isWaitingForFrame) return; // it will show this change, too
    this.isWaitingForFrame = true;
    requestAnimationFrame(() => this.draw());
  }
  draw() {
    this.isWaitingForFrame = false;
    this.drawScreen(this.history);
    this.drawButtons(this.history);
    if (this.history.strokes.length) this.ask();
    else this.forget();
  }
  drawScreen({ strokes }) {
    this.screen.setTransform(2, 0, 0, 2, 0, 0); // two pixels a unit, for high-resolution screens
    this.screen.fillStyle = "black";
    this.screen.fillRect(0, 0, SIZE, SIZE);
    drawStrokes(this.screen, strokes);
    if (!this.isKeyboard) return;
    const { spot, isPenDown: isDown } = this;
    drawPen(this.screen, { spot, isDown, width: WIDTHS[this.width], colour: accentOf(this.root) });
  }
  say(text) {
    if (this.verdict.textContent === text) return; // so that screen readers do not repeat it
    this.verdict.textContent = text;
  }

  // Questions to the kernel
  ask() {
    if (this.timer !== null || this.asked === this.version) return;
    this.asked = this.version;
    this.ink.clearRect(0, 0, SIZE, SIZE);
    drawStrokes(this.ink, thinned(this.history.strokes));
    const bytes = averageInk(this.ink.getImageData(0, 0, SIZE, SIZE).data);
    const question = { from: this.id, version: this.version, size: SENT };
    try {
      this.model.send(question, undefined, [bytes.buffer]);
    } catch {
      showBars(this.root, NO_GUESS);
      this.say("The kernel was restarted: run this cell again.");
      return;
    }
    this.timer = setTimeout(() => this.say(LATE), 2000);
  }
  onAnswer({ from, version, probabilities }, [picture]) {
    if (from !== this.id || version !== this.asked) return;
    this.stopWaiting();
    drawPixels(this.seen, 28, 28, greyPixels(bytesOf(picture)));
    if (probabilities) {
      const text = verdictOn(probabilities);
      showBars(this.root, text ? probabilities : NO_GUESS);
      this.say(text || NO_NUMBERS);
    }
    this.ask();
  }
  stopWaiting() {
    clearTimeout(this.timer);
    this.timer = null;
  }
  forget() {
    this.stopWaiting();
    this.asked = null; // so that an answer that is on its way is ignored
    this.seen.getContext("2d").clearRect(0, 0, 28, 28);
    showBars(this.root, NO_GUESS);
    this.say("Draw a large digit.");
  }
}

function render({ model, el }) {
  const pad = new Pad(model, el);
  return () => pad.close();
}

export default { render: ifCanDraw(render) };
