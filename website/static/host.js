// Brings the course's widgets to life on the website. In Jupyter a kernel stands behind them; here
// it is backend.js, and the networks run in worker.js. A place for a widget looks like this, with a
// still picture to begin with:
//     <div class="live" data-widget="pad" data-network="NetGAP"> ... </div>

import { askOnce, listNetworks, Model, Reader, read, render, Tracer } from "./backend.js";
import { demonstrate } from "./demo.js";
import { bytesOf, element } from "./look.js";

// --- What stands behind each widget, in place of a kernel ---

const BEHIND = {
  bench: async () => ({ model: new Model(await read("bench")) }),
  film: async () => ({ model: new Model(await read("film")) }),

  /** The lens explains what the chosen network computes: for the film's digit, or a drawing. */
  async lens({ network }) {
    const [{ digit }, networks] = await Promise.all([read("film"), listNetworks()]);
    const reader = new Reader(network);
    const tracer = new Tracer();
    let pixels = bytesOf(digit);
    const show = () => tracer.show(reader.network, pixels);
    await show();
    reader.onPicture = (picture) => {
      pixels = picture;
      show();
    };
    const pad = opener("Draw a digit for it", (place) => render("pad", reader.model, place));
    return { model: tracer.model, extra: [reader.chooser(networks, show), pad] };
  },

  /** The pad sends drawings, and shows what the chosen network reads in them. */
  async pad({ network }) {
    const reader = new Reader(network);
    const [networks] = await Promise.all([listNetworks(), askOnce({ task: "fetch", network })]);
    const tracer = new Tracer();
    let isTraced = false;
    let pixels;
    const lens = opener("Look inside", async (place) => {
      isTraced = true;
      await tracer.show(reader.network, pixels);
      await render("lens", tracer.model, place);
    });
    const button = lens.querySelector("button");
    button.disabled = true; // there is nothing to see inside yet
    reader.onPicture = (picture) => {
      pixels = picture;
      button.disabled = false;
      if (isTraced) tracer.show(reader.network, pixels);
    };
    return { model: reader.model, extra: [reader.chooser(networks), lens] };
  },
};

/** A button, and below it what it opens: a function makes that at the first press. */
function opener(text, make) {
  const button = element("button", text);
  button.type = "button";
  button.ariaExpanded = "false";
  button.className = "live-opener";
  const below = element("div");
  below.hidden = true;
  let isMade = false;
  button.onclick = async () => {
    below.hidden = !below.hidden;
    button.ariaExpanded = String(!below.hidden);
    if (isMade) return;
    isMade = true;
    try {
      await make(below);
    } catch {
      isMade = false;
      below.textContent = "This could not be loaded. Close it, then open it again.";
    }
  };
  return element("div", button, below);
}

// --- Waking the widgets ---

async function wake(place) {
  try {
    await start(place);
    place.dataset.state = "awake";
  } catch (error) {
    place.dataset.state = "failed";
    const note = element("p", "This could not be loaded. Reload the page to try again.");
    note.setAttribute("role", "alert");
    place.append(note);
    console.warn(error);
  }
}

/** Puts the widget into its place. */
async function start(place) {
  const { model, extra = [] } = await BEHIND[place.dataset.widget](place.dataset);
  const el = element("div");
  await render(place.dataset.widget, model, el);
  place.querySelector("img").classList.add("live-still"); // it is shown in print
  place.prepend(el, ...extra);
  if ("demo" in place.dataset) demonstrate(model, el);
}

/** Starts a widget as it comes near the window. */
const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries)
      if (isIntersecting) {
        watcher.unobserve(target);
        wake(target);
      }
  },
  { rootMargin: "400px" },
);

for (const place of document.querySelectorAll(".live")) watcher.observe(place);

// --- Paper is white: a page is printed in the light theme ---

const root = document.documentElement;
let theme;
addEventListener("beforeprint", () => {
  theme = root.dataset.theme;
  root.dataset.theme = "light";
});
addEventListener("afterprint", () => {
  root.dataset.theme = theme;
});
