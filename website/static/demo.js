// On the landing page the pad draws digits by itself, until a visitor touches it.

const WIDTH = 24; // of the pen, in the pad's units: the pad is 280 wide and high
const STEP = 6; // from one point of a stroke to the next
const PACE = 16; // milliseconds for each of them
const REST = 2500; // milliseconds for which a finished digit stays

/** Digits as paths; each M begins a stroke. */
const DIGITS = [
  "M90 85 C115 40 190 45 188 95 C186 130 150 136 128 136 C160 136 200 148 198 190 C196 240 115 252 82 212",
  "M98 60 L84 142 L182 142 M164 66 C160 120 154 180 146 236",
  "M84 92 C92 40 190 40 190 96 C190 140 130 180 84 228 C120 220 160 222 206 228",
  "M178 92 C160 46 96 58 98 100 C100 136 180 140 184 186 C186 236 100 242 98 190 C98 146 172 140 178 92",
];

/** The strokes of a digit, as the pad keeps them. */
function strokesOf(digit) {
  return digit.split(/(?=M)/).map((part) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", part);
    const points = [];
    for (let way = 0; way < path.getTotalLength(); way += STEP) {
      const { x, y } = path.getPointAtLength(way);
      points.push([x, y]);
    }
    return { width: WIDTH, points };
  });
}

/** The first points of some strokes: the digit, half drawn. */
function beginOf(strokes, count) {
  const begun = [];
  let left = count;
  for (const { width, points } of strokes) {
    if (left > 0) begun.push({ width, points: points.slice(0, left) });
    left -= points.length;
  }
  return begun;
}

const wait = (time) => new Promise((resolve) => setTimeout(resolve, time));

/** Draws digits on the pad in `el`; only one, and at once, for those who want less motion. */
export async function demonstrate(model, el) {
  const verdict = el.querySelector("[role=status]");
  verdict.ariaLive = "off"; // nobody has asked for these answers
  let isTouched = false;
  function stop() {
    if (isTouched) return;
    isTouched = true;
    verdict.ariaLive = null;
    model.set("strokes", []);
  }
  for (const event of ["pointerdown", "keydown"])
    el.addEventListener(event, stop, { capture: true, once: true });
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    model.set("strokes", strokesOf(DIGITS[0]));
    return;
  }
  for (let n = 0; !isTouched; n = (n + 1) % DIGITS.length) {
    const strokes = strokesOf(DIGITS[n]);
    const length = strokes.reduce((sum, { points }) => sum + points.length, 0);
    for (let count = 1; count <= length && !isTouched; count++) {
      model.set("strokes", beginOf(strokes, count));
      await wait(PACE);
    }
    await wait(REST);
  }
}
