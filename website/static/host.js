// Brings the course's widgets to life on the website. In Jupyter a kernel stands behind them; here
// it is backend.js, and the networks run in worker.js. A place for a widget looks like this, with a
// still picture to begin with:
//     <div class="live" data-widget="pad" data-network="NetGAP"> ... </div>

import { askOnce, chooser, FOLDER, Model, Reader, read } from "./backend.js";
import { demonstrate } from "./demo.js";
import { normalise } from "./layers.js";
import { bytesOf, element } from "./look.js";

// --- What stands behind each widget, in place of a kernel ---

const BEHIND = {
  bench: async () => ({ model: new Model(await read("bench")) }),
  film: async () => ({ model: new Model(await read("film")) }),

  /** The lens explains what the chosen network computes for the film's digit. */
  async lens({ network }) {
    const [{ digit }, networks] = await Promise.all([read("film"), listNetworks()]);
    const picture = Float32Array.from(bytesOf(digit), normalise);
    const trace = (name) => askOnce({ task: "trace", network: name, picture });
    const { layers, buffer } = await trace(network);
    const model = new Model({ layers, buffer });
    const extra = chooser(networks, network, async (name) => {
      const numbers = await trace(name);
      return () => {
        model.set("layers", numbers.layers);
        model.set("buffer", numbers.buffer);
      };
    });
    return { model, extra };
  },

  /** The pad sends drawings, and shows what the chosen network reads in them. */
  async pad({ network }) {
    const reader = new Reader(network);
    const [networks] = await Promise.all([listNetworks(), askOnce({ task: "fetch", network })]);
    return { model: reader.model, extra: reader.chooser(networks) };
  },
};

async function listNetworks() {
  const answer = await fetch(new URL("networks/index.json", FOLDER));
  return answer.json();
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
  const [{ default: widget }, { model, extra }] = await Promise.all([
    import(new URL(`widgets/${place.dataset.widget}.js`, FOLDER)),
    BEHIND[place.dataset.widget](place.dataset),
  ]);
  const el = document.createElement("div");
  place.querySelector("img").classList.add("live-still"); // it is shown in print
  if (extra) place.prepend(extra);
  place.prepend(el);
  widget.render({ model, el });
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
