// The drawing pad, an anywidget: Jupyter calls `render` to fill the element `el`, and `model` carries
// messages to the kernel and back. Anywidget loads this file on its own, so it cannot import others.

const SIZE = 280; // width and height of the pad, in its own units
const SENT = 140; // width and height of the drawing that the kernel gets, in pixels
const WIDTHS = [12, 18, 24, 30, 36]; // of the pen, in the pad's units
const SHARE = 0.15; // the widest pen, as a part of the drawing's size
const SURE = 0.7; // below this probability the pad does not commit itself
const NO_GUESS = Array(10).fill(0);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// --- Pure functions: they need no page, so tests can call them ---

const clamp = (number, lowest, highest) => Math.min(Math.max(number, lowest), highest);

/** Where an event took place, in the pad's units: the page may show the pad (`box`) larger or smaller. */
export function toPad({ clientX, clientY }, box) {
  return [clientX - box.left, clientY - box.top].map((length) => (length * SIZE) / box.width);
}

/** Where an arrow key moves the pen, which never leaves the pad. Small steps are for details. */
export function movePen(spot, key, isSmall) {
  const step = isSmall ? 2 : 10;
  return spot.map((length, axis) => clamp(length + step * ARROWS[key][axis], 0, SIZE));
}

/** The next place in WIDTHS. It needs limits because a fast click arrives before its button is disabled. */
export const changeWidth = (width, by) => clamp(width + by, 0, WIDTHS.length - 1);

/** The strokes now, and those before each change. No history is ever modified, so Undo can just go back. */
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

/** Removes all strokes; Undo brings them back. An empty pad stays the same object: nothing has changed. */
export function clearAll(history) {
  return history.strokes.length ? { strokes: [], past: [...history.past, history.strokes] } : history;
}

/** Goes back one change; where there is none, the same object comes back. */
export function undoLast(history) {
  return history.past.length ? { strokes: history.past.at(-1), past: history.past.slice(0, -1) } : history;
}

/** The strokes as the network gets them: in a small drawing, a thick pen would fill the holes of a digit. */
export function thinned(strokes) {
  const points = strokes.flatMap((stroke) => stroke.points);
  const lengths = [0, 1].map((axis) => {
    const places = points.map((point) => point[axis]);
    return Math.max(...places) - Math.min(...places);
  });
  const widest = SHARE * Math.max(...lengths);
  return strokes.map(({ width, points }) => ({
    width: widest > 2 ? Math.min(width, widest) : width,
    points,
  }));
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
  "Arrow keys move the pen (Shift: small steps), Space lowers and lifts it, Backspace undoes, Delete clears.";

const ROWS = NO_GUESS.map(
  (_, digit) => `
    <div class="course-row" role="meter" aria-label="digit ${digit}" aria-valuemin="0" aria-valuemax="100">
      <span>${digit}</span><div class="course-track"><div></div></div><span></span>
    </div>`,
);

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
    <div class="digit-pad-verdict" role="status"></div>${ROWS.join("")}
  </div>
  <div class="digit-pad-seen">
    <canvas width="28" height="28" role="img" aria-label="picture"></canvas>
    <div>what the network sees: 28 × 28 pixels</div>
  </div>
</div>`;

function paint(context, strokes) {
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

/** Draws the pad, and an orange circle for the keyboard's pen if there is one. */
function showDrawing(context, strokes, pen) {
  context.setTransform(2, 0, 0, 2, 0, 0); // two pixels per unit, for high-resolution screens
  context.fillStyle = "black";
  context.fillRect(0, 0, SIZE, SIZE);
  paint(context, strokes);
  if (!pen) return;
  context.strokeStyle = "orange";
  context.lineWidth = pen.isDown ? 4 : 2;
  context.beginPath();
  context.arc(...pen.spot, pen.width / 2, 0, 2 * Math.PI);
  context.stroke();
}

function showPicture(context, { buffer, byteOffset }) {
  const picture = new ImageData(28, 28);
  const grey = new Uint8Array(buffer, byteOffset, 28 * 28);
  for (const [place, value] of grey.entries()) picture.data.set([value, value, value, 255], 4 * place);
  context.putImageData(picture, 0, 0);
}

function showBars(rows, probabilities) {
  const best = Math.max(...probabilities);
  for (const [digit, row] of rows.entries()) {
    const share = 100 * probabilities[digit];
    row.setAttribute("aria-valuenow", share.toFixed(1));
    row.classList.toggle("course-best", best > 0 && probabilities[digit] === best);
    row.querySelector(".course-track > div").style.width = `${share}%`;
    row.lastElementChild.textContent = best > 0 ? `${share.toFixed(0)} %` : "";
  }
}

// --- The pad at work ---

function render({ model, el }) {
  el.innerHTML = PAGE;
  const root = el.querySelector(".digit-pad");
  const pad = root.querySelector(".digit-pad-canvas");
  const verdict = root.querySelector(".digit-pad-verdict");
  const rows = [...root.querySelectorAll(".course-row")];
  const [undoButton, clearButton, thinner, thicker] = root.querySelectorAll("button");
  const screen = pad.getContext("2d");
  const seen = root.querySelector(".digit-pad-seen canvas").getContext("2d");
  const hidden = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
  const ink = hidden.getContext("2d", { willReadFrequently: true });

  let history = EMPTY;
  let version = 0; // counts the changes
  let width = 2; // its place in WIDTHS
  let pointer = null; // the mouse, pen or finger that is drawing
  let spot = [SIZE / 2, SIZE / 4]; // of the keyboard's pen
  let isPenDown = false;
  let isKeyboard = false;

  function change(newHistory) {
    if (newHistory === history) return;
    history = newHistory;
    version++;
    show();
  }
  function lift() {
    pointer = null;
    isPenDown = false;
    show();
  }
  function resize(by) {
    width = changeWidth(width, by);
    show();
  }
  const begin = (point) => change(beginStroke(history, WIDTHS[width], point));
  const extend = (point) => change(extendStroke(history, point));
  function replace(newHistory) {
    lift();
    change(newHistory);
  }
  const undo = () => replace(undoLast(history));
  const clear = () => replace(clearAll(history));
  undoButton.onclick = undo;
  clearButton.onclick = clear;
  thinner.onclick = () => resize(-1);
  thicker.onclick = () => resize(+1);

  // Mouse, pen and finger
  const place = (event) => toPad(event, pad.getBoundingClientRect());
  pad.onpointerdown = (event) => {
    if (event.button !== 0 || pointer !== null) return;
    event.preventDefault();
    root.classList.add("digit-pad-pointing");
    pad.focus({ preventScroll: true });
    pad.setPointerCapture(event.pointerId);
    lift();
    pointer = event.pointerId;
    isKeyboard = false;
    begin(place(event));
  };
  pad.onpointermove = (event) => {
    if (event.pointerId !== pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) extend(place(each));
  };
  pad.onpointerup = pad.onpointercancel = (event) => {
    if (event.pointerId === pointer) lift();
  };

  // Keyboard. Jupyter must not use the pad's keys for its shortcuts, but may have Ctrl+S and Shift+Enter.
  function guard({ target, key, ctrlKey, metaKey, shiftKey }) {
    if (!root.contains(target)) return;
    const isJupyters = ((ctrlKey || metaKey) && key !== "z") || (shiftKey && key === "Enter");
    target.toggleAttribute("data-lm-suppress-shortcuts", !isJupyters);
  }
  window.addEventListener("keydown", guard, true);
  pad.onkeydown = (event) => {
    const { key } = event;
    root.classList.remove("digit-pad-pointing");
    if (key in ARROWS) {
      spot = movePen(spot, key, event.shiftKey);
      if (isPenDown) extend(spot);
    } else if (key === " ") {
      if (isPenDown && !event.repeat) lift();
      else if (!event.repeat) {
        isPenDown = true;
        begin(spot);
      }
    } else if (key === "Backspace" || (key === "z" && (event.ctrlKey || event.metaKey))) undo();
    else if (key === "Delete") clear();
    else return;
    event.preventDefault();
    event.stopPropagation();
    isKeyboard = true;
    show();
  };
  pad.onblur = () => {
    root.classList.remove("digit-pad-pointing");
    isKeyboard = false;
    lift();
  };

  // What is shown
  let isDrawing = false;
  function show() {
    if (!isDrawing) requestAnimationFrame(draw); // once for all that happens until then
    isDrawing = true;
  }
  function draw() {
    isDrawing = false;
    const { strokes, past } = history;
    showDrawing(screen, strokes, isKeyboard ? { spot, width: WIDTHS[width], isDown: isPenDown } : null);
    undoButton.disabled = !past.length;
    undoButton.textContent = past.length && !strokes.length ? "Undo clear" : "Undo";
    clearButton.disabled = !strokes.length;
    thinner.disabled = width === 0;
    thicker.disabled = width === WIDTHS.length - 1;
    if (strokes.length) ask();
    else forget();
  }
  function say(text) {
    if (verdict.textContent !== text) verdict.textContent = text; // so screen readers do not repeat it
  }

  // Questions to the kernel: one at a time, and always about the latest drawing
  const me = Math.random(); // one model may be shown twice, and each view hears all answers
  let asked = null; // the version that the last question was about
  let timer = null; // runs while a question waits for its answer
  function ask() {
    if (timer !== null || asked === version) return;
    asked = version;
    ink.clearRect(0, 0, SIZE, SIZE);
    paint(ink, thinned(history.strokes));
    const bytes = averageInk(ink.getImageData(0, 0, SIZE, SIZE).data);
    try {
      model.send({ from: me, version, size: SENT }, undefined, [bytes.buffer]);
    } catch {
      showBars(rows, NO_GUESS);
      return say("The kernel was restarted: run this cell again.");
    }
    const late = "No answer yet: the kernel is busy. (If it was restarted, run this cell again.)";
    timer = setTimeout(() => say(late), 2000);
  }
  function stopWaiting() {
    clearTimeout(timer);
    timer = null;
  }
  function hear(content, buffers) {
    if (content.from !== me || content.version !== asked) return;
    stopWaiting();
    showPicture(seen, buffers[0]);
    if (content.probabilities) {
      const answer = verdictOn(content.probabilities);
      showBars(rows, answer ? content.probabilities : NO_GUESS);
      say(answer || "The network's answers are not numbers: train it again with a smaller learning rate.");
    }
    ask();
  }
  function forget() {
    stopWaiting();
    asked = null; // so that an answer that is on its way is ignored
    seen.clearRect(0, 0, 28, 28);
    showBars(rows, NO_GUESS);
    say("Draw a large digit.");
  }
  model.on("msg:custom", hear);
  draw();
  return () => {
    stopWaiting();
    window.removeEventListener("keydown", guard, true);
    model.off("msg:custom", hear);
  };
}

export default { render };
