// What the widgets' scripts share; look.css has what their style sheets share. Jupyter loads each
// script on its own, so `Widget.script` in look.py puts this file in front of it.

// --- Numbers ---

export const range = (count) => [...Array(count).keys()];

export const clamp = (number, lowest, highest) => Math.min(Math.max(number, lowest), highest);

/** A number as text, with a true minus sign; a number that is rounded to 0 has none. */
export function fixed(number, decimals) {
  const text = number.toFixed(decimals).replace("Infinity", "∞");
  return text.replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−");
}

/** Where an accuracy is on the lessons' axis, stretched towards 100 %: 0 up to 50 %, 1 at 100 %. */
export function axisShare(accuracy) {
  const stretch = (percent) => -Math.log(Math.max(100.1 - percent, 0.1));
  const lowest = stretch(50);
  return (stretch(Math.max(accuracy, 50)) - lowest) / (stretch(100) - lowest);
}

// --- Bytes ---

/** A value's bytes: anywidget gives a DataView, other hosts an ArrayBuffer or a typed array. */
export function bytesOf(value) {
  if (!ArrayBuffer.isView(value)) return new Uint8Array(value);
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}

/** The same as 32-bit numbers, in memory of their own: the bytes may begin at an odd place. */
export const floatsOf = (value) => new Float32Array(bytesOf(value).slice().buffer);

/** The bytes that a text stands for. */
export const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// --- What is on the page ---

/** An element with this content: other elements and texts. A text such as "<b>" stays a text. */
export function element(tag, ...content) {
  const made = document.createElement(tag);
  made.append(...content);
  return made;
}

/** The orange of what is chosen or best; look.css says which. */
export const accentOf = (part) => getComputedStyle(part).getPropertyValue("--course-accent");

/** RGBA pixels from greys, each from 0 to 255. */
export function greyPixels(greys) {
  const rgba = new Uint8ClampedArray(4 * greys.length).fill(255);
  for (let place = 0; place < greys.length; place++)
    rgba.fill(greys[place], 4 * place, 4 * place + 3);
  return rgba;
}

/** Gives a canvas the size of a picture, and the picture. */
export function drawPixels(canvas, width, height, rgba) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
}

/** Squares of cells side by side in one picture: in rows of at most `most`, with gaps of a pixel. */
export function gridOf(count, most, width, height) {
  const columns = Math.min(count, most);
  const gridWidth = columns * (width + 1) - 1;
  return {
    width: gridWidth,
    height: Math.ceil(count / columns) * (height + 1) - 1,
    /** The pixel for a cell of a square. */
    place(square, cell) {
      const top = Math.floor(square / columns) * (height + 1) + Math.floor(cell / width);
      return top * gridWidth + (square % columns) * (width + 1) + (cell % width);
    },
  };
}

/** Whether the browser lets a page draw and read it back: some block that, to hide its user. */
function canDraw() {
  try {
    const context = document.createElement("canvas").getContext("2d");
    context.fillRect(0, 0, 1, 1);
    const [red, , , opacity] = context.getImageData(0, 0, 1, 1).data;
    return red < 50 && opacity > 200; // black
  } catch {
    return false;
  }
}

/** A widget's `render` for browsers that let it draw; the others get a sentence. */
export const ifCanDraw = (render) => (parts) => {
  if (canDraw()) return render(parts);
  const reason = "This browser blocks drawings (canvas). Allow them for this page, then reload it.";
  parts.el.append(element("p", reason));
};

// --- Ten probability bars, one for each digit ---

const bar = (digit) => `
  <div class="course-row" role="meter" aria-label="digit ${digit}"
    aria-valuemin="0" aria-valuemax="100">
    <span>${digit}</span><div class="course-track"><div></div></div><span></span>
  </div>`;

export const BARS = range(10).map(bar).join("");

/** Shows ten probabilities in a widget's bars; nothing for zeros or NaN, which are no answer. */
export function showBars(root, probabilities) {
  const best = Math.max(...probabilities);
  const isAnswer = best > 0;
  for (const [digit, row] of root.querySelectorAll(".course-row").entries()) {
    const percent = isAnswer ? 100 * probabilities[digit] : 0;
    row.setAttribute("aria-valuenow", percent.toFixed(1));
    row.classList.toggle("course-best", isAnswer && probabilities[digit] === best);
    row.querySelector(".course-track > div").style.width = `${percent}%`;
    row.lastElementChild.textContent = isAnswer ? `${percent.toFixed(0)} %` : "";
  }
}

// --- The keyboard ---

/**
 * Keeps a widget's keys from Jupyter, which would use them as shortcuts. Jupyter may have Ctrl+S,
 * Shift+Enter and the like; `own` is a key that the widget itself uses with Ctrl. Returns a
 * function that ends this.
 */
export function guardKeys(root, own = "") {
  function guard({ target, key, ctrlKey, metaKey, shiftKey }) {
    if (!root.contains(target)) return;
    const isCommand = (ctrlKey || metaKey) && key !== own;
    const isRunCell = shiftKey && key === "Enter";
    target.toggleAttribute("data-lm-suppress-shortcuts", !isCommand && !isRunCell);
  }
  window.addEventListener("keydown", guard, true);
  return () => window.removeEventListener("keydown", guard, true);
}

/** Marks a key press as used, by the page and by all around it. */
export function useUp(event) {
  event.preventDefault();
  event.stopPropagation();
}
