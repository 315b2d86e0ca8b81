// Brings the course's widgets to life on the website. In Jupyter a kernel stands behind them; here
// it is backend.js, and the networks run in worker.js. A place for a widget looks like this, with a
// still picture to begin with:
//     <div class="live" data-widget="pad" data-network="NetGAP"> ... </div>

import { askOnce, FOLDER, Model, Reader, read } from "./backend.js";
import { normalise } from "./layers.js";
import { bytesOf, element } from "./look.js";

// --- What stands behind each widget, in place of a kernel ---

const BEHIND = {
  bench: async () => ({ model: new Model(await read("bench")) }),
  film: async () => ({ model: new Model(await read("film")) }),

  /** The lens explains what a network computes for the film's digit. */
  async lens({ network }) {
    const { digit } = await read("film");
    const picture = Float32Array.from(bytesOf(digit), normalise);
    const { layers, buffer } = await askOnce({ task: "trace", network, picture });
    return { model: new Model({ layers, buffer }) };
  },

  /** The pad sends drawings, and shows what the chosen network reads in them. */
  async pad({ network }) {
    const reader = new Reader(network);
    const [networks] = await Promise.all([
      fetch(new URL("networks/index.json", FOLDER)).then((answer) => answer.json()),
      askOnce({ task: "fetch", network }),
    ]);
    return { model: reader.model, extra: reader.chooser(networks) };
  },
};

// --- Waking the widgets ---

async function wake(place) {
  if (place.dataset.state) return; // the second click of a double click
  place.dataset.state = "waking";
  const button = place.querySelector("button");
  const hadFocus = button !== null && button === document.activeElement; // before it is disabled
  if (button) {
    button.disabled = true;
    button.textContent = "Loading …";
  }
  try {
    const el = await start(place);
    if (hadFocus) focusFirst(el);
    place.dataset.state = "awake";
  } catch (error) {
    place.dataset.state = "failed";
    const note = element("p", "This could not be loaded. Reload the page to try again.");
    note.setAttribute("role", "alert");
    place.append(note);
    console.warn(error);
  } finally {
    button?.remove();
  }
}

/** Puts the widget into its place; returns the element that holds it. */
async function start(place) {
  const [{ default: widget }, { model, extra }] = await Promise.all([
    import(new URL(`widgets/${place.dataset.widget}.js`, FOLDER)),
    BEHIND[place.dataset.widget](place.dataset),
  ]);
  const el = document.createElement("div");
  place.querySelector("img").classList.add("live-still"); // it is shown in print
  if (extra) place.prepend(extra);
  place.prepend(el);
  widget.render({ model, el });
  return el;
}

function focusFirst(el) {
  el.querySelector("select, input, button, [tabindex]")?.focus({ preventScroll: true });
}

/** Starts a widget as it comes near the window; one that needs megabytes waits for its button. */
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

for (const place of document.querySelectorAll(".live")) {
  const button = place.querySelector("button");
  if (button) button.onclick = () => wake(place);
  else watcher.observe(place);
}

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
