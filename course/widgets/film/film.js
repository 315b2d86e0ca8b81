// The training film, an anywidget: Jupyter calls `render` to fill the element `el`. Python has computed all frames
// (see __init__.py); here they are only shown, so the film needs no kernel.

// --- Pure functions: they need no page, so tests can call them ---

/** The bytes of a trait, as anywidget (DataView) or another host gives them. */
export const bytesOf = (view) =>
  view instanceof DataView
    ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
    : new Uint8Array(view);

/** Red for positive weights, blue for negative ones, white for 0: the byte 128. */
export function colourOf(byte) {
  const strength = (byte - 128) / 127;
  const pale = Math.round(255 * (1 - Math.abs(strength)));
  return strength > 0 ? [255, pale, pale] : [pale, pale, 255];
}

const greyOf = (byte) => [byte, byte, byte];

/** Pictures side by side, `columns` in a row with a pixel between them: [width, height, RGBA]. */
export function sheet(bytes, [count, height, width], columns, colour) {
  const rows = Math.ceil(count / columns);
  const [full, tall] = [columns * (width + 1) - 1, rows * (height + 1) - 1];
  const rgba = new Uint8ClampedArray(4 * full * tall);
  for (let n = 0; n < count; n++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const [left, top] = [(n % columns) * (width + 1), Math.floor(n / columns) * (height + 1)];
        const place = 4 * ((top + y) * full + left + x);
        rgba.set([...colour(bytes[(n * height + y) * width + x]), 255], place);
      }
  return [full, tall, rgba];
}

/** The points of a curve of accuracies, on the lessons' axis, stretched towards 100 %. */
export function curvePoints(accuracies, frames, [width, height]) {
  const stretch = (accuracy) => -Math.log(Math.max(100.1 - accuracy, 0.1));
  const [low, high] = [stretch(50), stretch(100)];
  return accuracies.map((accuracy, n) => {
    const share = (stretch(Math.max(accuracy, 50)) - low) / (high - low);
    return [((n + 1) / Math.max(frames - 1, 1)) * width, height * (1 - share)];
  });
}

// --- What is on the page ---

const SIZE = [260, 150]; // of the curves
const LINES = [99.8, 99, 95, 80];

const ROWS = [...Array(10).keys()].map(
  (digit) => `
    <div class="course-row" role="meter" aria-label="digit ${digit}" aria-valuemin="0" aria-valuemax="100">
      <span>${digit}</span><div class="course-track"><div></div></div><span></span></div>`,
);

const grid = LINES.map((accuracy) => {
  const [[, y]] = curvePoints([accuracy], 2, SIZE);
  return `<line x1="0" x2="${SIZE[0]}" y1="${y}" y2="${y}"/><text x="-4" y="${y + 3}">${accuracy} %</text>`;
});

const PAGE = `
<div class="course-widget film">
  <label class="film-slider"><span></span><input type="range" min="0" value="0" step="1"></label>
  <figure class="film-filters"><canvas></canvas><figcaption class="film-change"></figcaption></figure>
  <figure class="film-maps"><canvas></canvas><figcaption>what the first of them make of the digit, after ReLU</figcaption></figure>
  <figure class="film-curve"><svg viewBox="-38 -6 ${SIZE[0] + 44} ${SIZE[1] + 12}">${grid.join("")}<polyline/><polyline/><line class="film-now"/></svg>
    <figcaption>accuracy: <span></span>, <span></span></figcaption></figure>
  <figure class="film-answer"><canvas></canvas><figcaption>the network's answer:</figcaption><div>${ROWS.join("")}</div></figure>
</div>`;

function render({ model, el }) {
  el.innerHTML = PAGE;
  const root = el.querySelector(".film");
  const slider = root.querySelector("input");
  const [filters, maps, digit] = root.querySelectorAll("canvas");
  const [training, test] = root.querySelectorAll("polyline");
  const now = root.querySelector(".film-now");
  const rows = [...root.querySelectorAll(".course-row")];

  function paint(canvas, [width, height, rgba]) {
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  }
  function frame(name, sizes, number) {
    const size = sizes.reduce((a, b) => a * b);
    return bytesOf(model.get(name)).subarray(number * size, (number + 1) * size);
  }
  function draw() {
    const answers = model.get("answers");
    if (!answers.length) {
      root.querySelector(".film-slider span").textContent =
        "Nothing has been recorded yet: run the training first.";
      return;
    }
    const [epoch, sizes, curves] = [Number(slider.value), model.get("sizes"), model.get("curves")];
    const start = model.get("start") ?? 0; // how many epochs were over before the first frame
    const when =
      start + epoch === 0
        ? "before training"
        : `after epoch ${start + epoch} of ${start + answers.length - 1}`;
    root.querySelector(".film-slider span").textContent = when;
    paint(filters, sheet(frame("filters", sizes.filters, epoch), sizes.filters, 8, colourOf));
    paint(maps, sheet(frame("maps", sizes.maps, epoch), sizes.maps, 4, greyOf));
    paint(digit, sheet(bytesOf(model.get("digit")), [1, 28, 28], 1, greyOf));
    for (const [line, name] of [
      [training, "train_acc"],
      [test, "test_acc"],
    ]) {
      const points = curvePoints(curves[name].slice(0, epoch), answers.length, SIZE);
      line.setAttribute("points", points.map((point) => point.join(",")).join(" "));
    }
    const x = (epoch / Math.max(answers.length - 1, 1)) * SIZE[0];
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: 0, y2: SIZE[1] }))
      now.setAttribute(name, value);
    const percent = (name) => (epoch === 0 ? " –" : ` ${curves[name][epoch - 1].toFixed(2)} %`);
    const [first, second] = root.querySelectorAll(".film-curve figcaption span");
    first.textContent = `training${percent("train_acc")}`;
    second.textContent = `${model.get("measured_on")}${percent("test_acc")}`;
    const change =
      epoch === 0 ? when : `changed by ${model.get("changes")[epoch - 1].toFixed(1)} % in this epoch`;
    root.querySelector(".film-change").textContent = `filters of the first layer, ${change}`;
    const best = Math.max(...answers[epoch]);
    for (const [n, row] of rows.entries()) {
      const share = 100 * answers[epoch][n];
      row.setAttribute("aria-valuenow", share.toFixed(1));
      row.classList.toggle("course-best", answers[epoch][n] === best);
      row.querySelector(".course-track > div").style.width = `${share}%`;
      row.lastElementChild.textContent = `${share.toFixed(0)} %`;
    }
  }
  function read() {
    slider.max = Math.max(model.get("answers").length - 1, 0);
    slider.value = 0;
    draw();
  }
  slider.oninput = draw;

  // Jupyter must not use the film's keys for its shortcuts, but may have Ctrl+S and Shift+Enter.
  function guard({ target, key, ctrlKey, metaKey, shiftKey }) {
    if (root.contains(target))
      target.toggleAttribute(
        "data-lm-suppress-shortcuts",
        !(ctrlKey || metaKey || (shiftKey && key === "Enter")),
      );
  }
  window.addEventListener("keydown", guard, true);
  model.on("change:answers", read);
  read();
  return () => {
    window.removeEventListener("keydown", guard, true);
    model.off("change:answers", read);
  };
}

export default { render };
