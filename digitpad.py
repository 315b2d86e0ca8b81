"""A pad to draw digits on: while you draw, the network says what it takes them for.

    DigitPad(model)

It works in JupyterLab, Jupyter Notebook 7, VS Code and Colab, with mouse, finger and keyboard.
"""

import base64
import copy
import math
from pathlib import Path

import anywidget
import torch
import torch.nn.functional as F
from torch import nn

from utils import MEAN, STD, load_weights, warp

HERE = Path(__file__).resolve().parent
PREVIEW = HERE / "Test_Images" / "digit_pad.png"  # what is seen where no widget can be shown


def get_trained(Network):
    """A network of this class with the weights that come with the course."""
    return load_weights(HERE / "checkpoints" / f"{Network.__name__}.pt", Network())


def prepare(drawing):
    """Bring a drawing into MNIST's form; None if it is empty.

    `drawing` holds the ink, from 0 to 255, on a pad of any size. As its authors did for MNIST, the
    digit is scaled to fit 20×20 pixels and laid into 28×28 with its centre of mass in the middle.
    What is smaller than a fifth of the pad stays smaller: a dot must not look like a filled zero.
    """
    inked_rows, inked_columns = ((drawing > 0).any(dim=dim).nonzero() for dim in (1, 0))
    if len(inked_rows) == 0:
        return None
    digit = drawing[inked_rows.min() : inked_rows.max() + 1, inked_columns.min() : inked_columns.max() + 1]
    scale = 20 / max(*digit.shape, max(drawing.shape) / 5)
    rows, columns = (max(1, round(scale * length)) for length in digit.shape)
    digit = digit[None, None].float()
    digit = F.interpolate(digit, size=(rows, columns), mode="bilinear", antialias=True)[0, 0]
    top, left = _start(digit.sum(dim=1)), _start(digit.sum(dim=0))
    picture = torch.zeros(28, 28)
    picture[top : top + rows, left : left + columns] = digit
    return (255 * picture / picture.max()).round().to(torch.uint8)


def _start(ink):
    """Where a side of the digit must begin for its centre of mass to lie in the middle of 28 pixels."""
    centre = (ink * (torch.arange(len(ink)) + 0.5)).sum() / ink.sum()
    start = math.ceil(14 - centre.item())  # rounded up, as all of MNIST's digits are
    return min(max(start, 0), 28 - len(ink))


def recognise(model, picture, views=16):
    """Ten probabilities: the mean over slightly varied views of the picture, always the same ones.

    What all views agree on is a digit; over a scribble they disagree, so nothing is sure.
    """
    # Random numbers of its own: a training may be going on at the same time, and must not notice.
    generator = torch.Generator().manual_seed(0)

    def up_to(limit, *shape):
        return (2 * torch.rand(views, *shape, generator=generator) - 1) * limit

    images = picture.expand(views, 1, 28, 28) / 255
    varied = warp(images, angle=up_to(15), shift=up_to(2, 2), scale=1 + up_to(0.12), smooth=True)
    with torch.no_grad():
        return model((varied - MEAN) / STD).softmax(dim=1).mean(dim=0)


class DigitPad(anywidget.AnyWidget):
    """A widget to draw on. It keeps a copy of the model as it is now; make a new pad after training."""

    def __init__(self, model):
        if not isinstance(model, nn.Module):
            raise TypeError(f"DigitPad wants a network, as in DigitPad(model), got {type(model).__name__}")
        self._network = copy.deepcopy(model).cpu().eval()
        with torch.no_grad():
            shape = list(self._network(torch.zeros(1, 1, 28, 28)).shape)
        if shape != [1, 10]:
            raise ValueError(
                f"DigitPad wants a network that tells ten digits apart, this answers with {shape}"
            )
        super().__init__()
        self.on_msg(self._answer)

    def _answer(self, _, question, buffers):
        """Tell the page what the network makes of the drawing that it sent."""
        size = question["size"]
        picture = prepare(torch.frombuffer(bytearray(buffers[0]), dtype=torch.uint8).view(size, size))
        if picture is None:
            self.send(question | {"probabilities": None}, [bytes(28 * 28)])
        else:
            probabilities = recognise(self._network, picture).tolist()
            self.send(question | {"probabilities": probabilities}, [picture.numpy().tobytes()])

    def __repr__(self):
        return f"DigitPad({type(self._network).__name__})"

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        if PREVIEW.exists():
            data["image/png"] = base64.b64encode(PREVIEW.read_bytes()).decode()
        return data, metadata

    _esm = r"""
const SIZE = 280;               // of the pad, in its own units
const SENT = 140;               // of the drawing that the network gets, in pixels
const WIDTHS = [12, 18, 24, 30, 36];
const NO_GUESS = Array(10).fill(0);
const SURE = 0.7;               // below this probability the pad does not commit itself

function add(parent, tag, properties = {}, attributes = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return parent.appendChild(element);
}

function paint(context, strokes) {
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = "white";
  for (const { width, points } of strokes) {
    context.lineWidth = width;
    context.beginPath();
    context.arc(...points[0], width / 2, 0, 2 * Math.PI);  // a dot is a stroke too
    context.fill();
    context.beginPath();
    for (const point of points) context.lineTo(...point);
    context.stroke();
  }
}

/** The ink of all strokes as bytes, SENT x SENT of them, each the mean over the pixels it covers. */
function inkOf(strokes, context) {
  context.clearRect(0, 0, SIZE, SIZE);
  paint(context, strokes);
  const alpha = context.getImageData(0, 0, SIZE, SIZE).data;
  const step = SIZE / SENT;
  const sums = new Float32Array(SENT * SENT);
  for (let y = 0; y < SIZE; y++)
    for (let x = 0; x < SIZE; x++)
      sums[Math.floor(y / step) * SENT + Math.floor(x / step)] += alpha[4 * (y * SIZE + x) + 3];
  return Uint8Array.from(sums, (sum) => Math.round(sum / (step * step)));
}

function render({ model, el }) {
  const root = add(el, "div", { className: "digit-pad" });
  const left = add(root, "div", { className: "digit-pad-left" });
  const pad = add(left, "canvas", { className: "digit-pad-canvas", tabIndex: 0 }, {
    width: 2 * SIZE, height: 2 * SIZE,  // twice as fine, for screens that are
    role: "application",
    "aria-label": "Drawing pad. Arrow keys move the pen, with Shift in small steps. " +
      "Space lowers and lifts it, Backspace takes back, Delete clears.",
  });
  const screen = pad.getContext("2d");
  const ink = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE })
    .getContext("2d", { willReadFrequently: true });
  const tools = add(left, "div", { className: "digit-pad-tools" });
  const button = (textContent, title, onclick) =>
    add(tools, "button", { type: "button", textContent, title, onclick });
  add(left, "div", {
    className: "digit-pad-keys",
    textContent: "Arrows move the pen, Space lowers and lifts it, Backspace takes back, Delete clears.",
  });

  const middle = add(root, "div", { className: "digit-pad-seen" });
  const seen = add(middle, "canvas", { width: 28, height: 28 }, { role: "img", "aria-label": "picture" });
  add(middle, "div", { textContent: "what the network gets: 28 × 28 pixels" });

  const right = add(root, "div", { className: "digit-pad-answer" });
  const verdict = add(right, "div", { className: "digit-pad-verdict" }, { role: "status" });
  const bars = Array.from({ length: 10 }, (_, digit) => {
    const row = add(right, "div", { className: "digit-pad-row" }, {
      role: "meter", "aria-label": `digit ${digit}`, "aria-valuemin": 0, "aria-valuemax": 100,
    });
    add(row, "span", { textContent: digit });
    const bar = add(add(row, "div", { className: "digit-pad-track" }), "div");
    return { row, bar, percent: add(row, "span") };
  });

  // --- What has been drawn ---
  let strokes = [], past = [], version = 0;  // past: what "Undo" brings back; version counts the changes
  let width = 2, pointer = null, isPenDown = false, isKeyboard = false;

  function change(newStrokes) { strokes = newStrokes; version++; show(); }
  function begin(point) {
    past.push(strokes);
    change([...strokes, { width: WIDTHS[width], points: [point] }]);
  }
  function extend(point) { strokes.at(-1).points.push(point); change(strokes); }
  function lift() { pointer = null; isPenDown = false; show(); }
  function undo() { if (past.length) { lift(); change(past.pop()); } }
  function clear() { if (strokes.length) { lift(); past.push(strokes); change([]); } }

  function resize(by) { width = Math.min(Math.max(width + by, 0), WIDTHS.length - 1); show(); }

  const undoButton = button("Undo", "Take back the last change (Backspace)", undo);
  const clearButton = button("Clear", "Begin anew (Delete)", clear);
  const thinner = button("Thinner", "A thinner pen", () => resize(-1));
  const thicker = button("Thicker", "A thicker pen", () => resize(+1));

  // --- Mouse, pen and finger ---
  const place = (event) => {
    const box = pad.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map((length) => (length * SIZE) / box.width);
  };
  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || pointer !== null) return;
    event.preventDefault();
    pad.focus({ preventScroll: true });
    pad.setPointerCapture(event.pointerId);
    lift();
    [pointer, isKeyboard] = [event.pointerId, false];
    begin(place(event));
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) extend(place(each));
  });
  for (const end of ["pointerup", "pointercancel"])
    pad.addEventListener(end, (event) => { if (event.pointerId === pointer) lift(); });

  // --- Keyboard ---
  // Jupyter must not take the pad's keys for its own shortcuts, but may have Ctrl+S and Shift+Enter.
  function guard({ target, key, ctrlKey, metaKey, shiftKey }) {
    if (!root.contains(target)) return;
    const isJupyters = ((ctrlKey || metaKey) && key !== "z") || (shiftKey && key === "Enter");
    target.toggleAttribute("data-lm-suppress-shortcuts", !isJupyters);
  }
  window.addEventListener("keydown", guard, true);
  let spot = [SIZE / 2, SIZE / 4];
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  pad.addEventListener("keydown", (event) => {
    const { key } = event;
    if (key in moves) {
      const step = event.shiftKey ? 2 : 10;
      spot = spot.map((length, axis) => Math.min(Math.max(length + step * moves[key][axis], 0), SIZE));
      if (isPenDown) extend(spot);
    } else if (key === " ") {
      if (isPenDown) lift();
      else { isPenDown = true; begin(spot); }
    } else if (key === "Backspace" || (key === "z" && (event.ctrlKey || event.metaKey))) undo();
    else if (key === "Delete") clear();
    else return;
    event.preventDefault();
    event.stopPropagation();
    isKeyboard = true;
    show();
  });
  pad.addEventListener("blur", () => { isKeyboard = false; lift(); });

  // --- What is shown ---
  let frame = null;
  function show() { frame ??= requestAnimationFrame(draw); }  // once for all that happens until then
  function draw() {
    frame = null;
    screen.setTransform(1, 0, 0, 1, 0, 0);
    screen.fillStyle = "black";
    screen.fillRect(0, 0, 2 * SIZE, 2 * SIZE);
    screen.scale(2, 2);
    paint(screen, strokes);
    if (isKeyboard) {  // where the pen is
      screen.strokeStyle = "orange";
      screen.lineWidth = isPenDown ? 4 : 2;
      screen.beginPath();
      screen.arc(...spot, WIDTHS[width] / 2, 0, 2 * Math.PI);
      screen.stroke();
    }
    undoButton.disabled = !past.length;
    clearButton.disabled = !strokes.length;
    thinner.disabled = width === 0;
    thicker.disabled = width === WIDTHS.length - 1;
    if (strokes.length) ask();
    else forget();
  }
  function say(text) { if (verdict.textContent !== text) verdict.textContent = text; }
  function showAnswer(probabilities) {
    const best = Math.max(...probabilities);
    bars.forEach(({ row, bar, percent }, digit) => {
      const share = 100 * probabilities[digit];
      row.setAttribute("aria-valuenow", share.toFixed(1));
      row.classList.toggle("digit-pad-best", best > 0 && probabilities[digit] === best);
      bar.style.width = `${share}%`;
      percent.textContent = best > 0 ? `${share.toFixed(0)} %` : "";
    });
    const digit = probabilities.indexOf(best);
    const name = `${digit === 8 ? "an" : "a"} ${digit}`;
    if (best > 0) say(best < SURE ? `Not sure: ${name}?` : `This is ${name}.`);
  }

  // --- Questions to the kernel: one at a time, and always about the latest drawing ---
  const me = Math.random();
  let asked = null;  // the version that the last question was about
  let isWaiting = false, patience = null;
  function ask() {
    if (isWaiting || asked === version) return;
    asked = version;
    try {
      model.send({ from: me, version, size: SENT }, undefined, [inkOf(strokes, ink).buffer]);
    } catch {
      showAnswer(NO_GUESS);
      return say("The kernel was restarted: run this cell again.");
    }
    isWaiting = true;
    patience = setTimeout(() => say(
      "No answer yet: the kernel is busy. (If it was restarted, run this cell again.)"), 2000);
  }
  function forget() {
    isWaiting = false;
    asked = null;  // so that an answer under way is not heard
    clearTimeout(patience);
    seen.getContext("2d").clearRect(0, 0, 28, 28);
    showAnswer(NO_GUESS);
    say("Draw a large digit.");
  }
  function hear(content, buffers) {
    if (content.from !== me || content.version !== asked) return;
    isWaiting = false;
    clearTimeout(patience);
    const { buffer, byteOffset } = buffers[0];
    const grey = new Uint8Array(buffer, byteOffset, 28 * 28);
    const picture = new ImageData(28, 28);
    grey.forEach((value, place) => picture.data.set([value, value, value, 255], 4 * place));
    seen.getContext("2d").putImageData(picture, 0, 0);
    if (content.probabilities) showAnswer(content.probabilities);
    ask();
  }
  model.on("msg:custom", hear);
  draw();
  return () => {
    clearTimeout(patience);
    window.removeEventListener("keydown", guard, true);
    model.off("msg:custom", hear);
  };
}

export default { render };
"""

    _css = """
.digit-pad {
  color: var(--jp-ui-font-color1, var(--vscode-foreground, inherit));
  display: flex; flex-wrap: wrap; gap: 24px; padding: 8px; font: 14px/1.3 system-ui, sans-serif;
}
.digit-pad-left { max-width: 100%; }
.digit-pad-canvas {
  width: 280px; max-width: 100%; height: auto; aspect-ratio: 1; box-sizing: border-box; display: block;
  background: black; cursor: crosshair; touch-action: none;
  border: 1px solid currentColor; border-radius: 6px;
}
.digit-pad-tools { display: flex; gap: 6px; margin-top: 8px; }
.digit-pad-keys { max-width: 280px; margin-top: 6px; font-size: 12px; display: none; }
.digit-pad-canvas:focus-visible ~ .digit-pad-keys { display: block; }
.digit-pad button {
  flex: 1; padding: 5px 0; font: inherit; color: inherit; cursor: pointer;
  background: transparent; border: 1px solid currentColor; border-radius: 4px;
}
.digit-pad button:hover:enabled { background: rgba(128, 128, 128, 0.25); }
.digit-pad button:disabled { opacity: 0.4; cursor: default; }
.digit-pad :focus-visible { outline: 3px solid #3d8bfd; outline-offset: 1px; }
.digit-pad-seen { width: 140px; text-align: center; font-size: 12px; }
.digit-pad-seen canvas {
  width: 140px; height: 140px; background: black; image-rendering: pixelated; margin-bottom: 6px;
  border: 1px solid currentColor; box-sizing: content-box;
}
.digit-pad-answer { flex: 1; min-width: 240px; max-width: 420px; }
.digit-pad-verdict { font-size: 18px; min-height: 32px; }
.digit-pad-row {
  display: flex; align-items: center; gap: 8px; height: 25px; font-variant-numeric: tabular-nums;
}
.digit-pad-row > span:first-child { width: 12px; }
.digit-pad-row > span:last-child { width: 48px; text-align: right; }
.digit-pad-track { flex: 1; height: 14px; background: rgba(128, 128, 128, 0.25); border-radius: 3px; }
.digit-pad-track > div {
  height: 100%; width: 0; background: #3d8bfd; border-radius: 3px; transition: width 80ms;
}
.digit-pad-best { font-weight: bold; }
.digit-pad-best .digit-pad-track > div { background: #f0851e; }
@media (prefers-reduced-motion: reduce) { .digit-pad-track > div { transition: none; } }
"""
