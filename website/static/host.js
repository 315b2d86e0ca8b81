// Brings the course's widgets to life on the website. In Jupyter a kernel stands behind them; here
// it is this file, and the networks run in worker.js. A place for a widget looks like this, with a
// still picture to begin with:
//     <div class="live" data-widget="pad" data-network="NetGAP"> ... </div>

import { normalise } from "./layers.js";
import { bytesOf, element, fromBase64 } from "./look.js";

const FOLDER = new URL(".", import.meta.url); // of this script

/** The part of a Jupyter widget's model that the course's widgets use. */
class Model {
  #values;
  #listeners = new Map();
  constructor(values) {
    this.#values = values;
  }
  get(name) {
    return this.#values[name];
  }
  set(name, value) {
    if (Object.is(this.#values[name], value)) return;
    this.#values[name] = value;
    this.notify(`change:${name}`);
  }
  on(event, listener) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
  }
  off(event, listener) {
    const others = (this.#listeners.get(event) ?? []).filter((other) => other !== listener);
    this.#listeners.set(event, others);
  }
  notify(event, ...news) {
    for (const listener of this.#listeners.get(event) ?? []) listener(...news);
  }
  save_changes() {} // there is nobody to tell
}

// --- The worker, which all widgets of a page share ---

const waiting = new Map(); // what to do with the answers to each question
let worker;
let asked = 0; // the number of the last question

/** Asks the worker. A question may get several answers, each better than the one before. */
function ask(question, onAnswer) {
  worker ??= startWorker();
  asked += 1;
  const id = asked;
  waiting.set(id, onAnswer);
  worker.postMessage({ id, ...question });
  return id;
}

function startWorker() {
  const started = new Worker(new URL("worker.js", FOLDER), { type: "module" });
  started.onmessage = ({ data }) => waiting.get(data.id)?.(data);
  started.onerror = () => {
    worker = undefined; // so that the next question starts another one
    for (const onAnswer of waiting.values()) onAnswer({ error: "the worker could not be loaded" });
    waiting.clear();
  };
  return started;
}

function askOnce(question) {
  return new Promise((resolve, reject) => {
    ask(question, (answer) => {
      if (answer.error) reject(new Error(answer.error));
      else resolve(answer);
    });
  });
}

// --- What stands behind each widget, in place of a kernel ---

/** The values a widget starts with, exported from Python; bytes come in base64. */
async function read(name) {
  const answer = await fetch(new URL(`widgets/${name}.json`, FOLDER));
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
  const revive = (_, value) => (value?.base64 === undefined ? value : fromBase64(value.base64));
  return JSON.parse(await answer.text(), revive);
}

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

/** Answers the pad's questions with a network that can be changed. */
class Reader {
  #network; // its name
  #latest = null; // the drawing that was sent last
  #question; // the number of the question about it
  model = new Model({});

  constructor(network) {
    this.#network = network;
    this.model.send = (content, _, [drawing]) => {
      this.#latest = { content, drawing: bytesOf(drawing) };
      this.#answerLatest();
    };
  }
  #answerLatest() {
    waiting.delete(this.#question);
    const { content, drawing } = this.#latest;
    const task = { task: "read", network: this.#network, drawing, side: content.size };
    this.#question = ask(task, ({ picture, probabilities }) => {
      if (picture) this.model.notify("msg:custom", { ...content, probabilities }, [picture]);
    });
  }

  /** A choice of networks, and a place that says what it is doing. */
  chooser(networks) {
    const select = document.createElement("select");
    select.append(...networks.map(({ name, text }) => new Option(text, name)));
    select.value = this.#network;
    const status = document.createElement("span");
    status.setAttribute("role", "status");
    select.onchange = () => this.#change(select, status);
    const label = element("label", "network ", select, " ", status);
    label.className = "live-choice";
    return label;
  }
  async #change(select, status) {
    const name = select.value;
    status.textContent = `${name} is being loaded …`;
    let isLoaded = true;
    await askOnce({ task: "fetch", network: name }).catch(() => {
      isLoaded = false;
    });
    if (select.value !== name) return; // another one was chosen meanwhile
    status.textContent = isLoaded ? "" : `${name} could not be loaded.`;
    if (isLoaded) this.#network = name;
    else select.value = this.#network;
    if (this.#latest) this.#answerLatest();
  }
}

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
