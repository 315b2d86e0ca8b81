// What stands behind the course's widgets on the website, in place of Jupyter's kernel: a model for
// each widget, and the networks in worker.js, which all widgets of a page share.

import { bytesOf, element, fromBase64 } from "./look.js";

export const FOLDER = new URL(".", import.meta.url); // of the website's scripts

/** The part of a Jupyter widget's model that the course's widgets use. */
export class Model {
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

export function askOnce(question) {
  return new Promise((resolve, reject) => {
    ask(question, (answer) => {
      if (answer.error) reject(new Error(answer.error));
      else resolve(answer);
    });
  });
}

/** The values a widget starts with, exported from Python; bytes come in base64. */
export async function read(name) {
  const answer = await fetch(new URL(`widgets/${name}.json`, FOLDER));
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
  const revive = (_, value) => (value?.base64 === undefined ? value : fromBase64(value.base64));
  return JSON.parse(await answer.text(), revive);
}

/** The networks whose weights can be fetched: { name, text }. */
export async function listNetworks() {
  const answer = await fetch(new URL("networks/index.json", FOLDER));
  return answer.json();
}

/** Shows a widget in a place. */
export async function render(name, model, el) {
  const { default: widget } = await import(new URL(`widgets/${name}.js`, FOLDER));
  widget.render({ model, el });
}

/**
 * A choice of networks, and a place that says what it is doing. `load` fetches the one with this
 * name, and returns a function that takes it into use.
 */
function chooser(networks, chosen, load) {
  const select = element("select", ...networks.map(({ name, text }) => new Option(text, name)));
  select.value = chosen;
  const status = element("span");
  status.setAttribute("role", "status");
  let inUse = chosen;
  select.onchange = async () => {
    const name = select.value;
    status.textContent = `${name} is being loaded …`;
    const use = await load(name).catch(() => null);
    if (select.value !== name) return; // another one was chosen meanwhile
    status.textContent = use ? "" : `${name} could not be loaded.`;
    if (use) inUse = name;
    select.value = inUse;
    use?.();
  };
  const label = element("label", "network ", select, " ", status);
  label.className = "live-choice";
  return label;
}

// --- The pad and the lens ---

/** Answers the pad's questions with a network that can be changed. */
export class Reader {
  network; // its name
  #latest = null; // the drawing that was sent last
  #question; // the number of the question about it
  model = new Model({});
  onPicture = () => {}; // gets the picture of 28×28 pixels that the drawing becomes

  constructor(network) {
    this.network = network;
    this.model.send = (content, _, [drawing]) => {
      this.#latest = { content, drawing: bytesOf(drawing) };
      this.answer();
    };
  }
  /** Answers the latest question; once more, if the network has changed since. */
  answer() {
    if (this.#latest === null) return;
    waiting.delete(this.#question);
    const { content, drawing } = this.#latest;
    const task = { task: "read", network: this.network, drawing, side: content.size };
    this.#question = ask(task, ({ picture, probabilities }) => {
      if (!picture) return;
      this.model.notify("msg:custom", { ...content, probabilities }, [picture]);
      this.onPicture(picture);
    });
  }

  /** A choice of networks; `onChange` is called when another one is in use. */
  chooser(networks, onChange = () => {}) {
    return chooser(networks, this.network, async (name) => {
      await askOnce({ task: "fetch", network: name });
      return () => {
        this.network = name;
        this.answer();
        onChange();
      };
    });
  }
}

/** Keeps a lens up to date: with what a network computes for the picture that came last. */
export class Tracer {
  #next = null; // the question that is asked after the one that is under way
  #asking = null;
  model = new Model({});

  /** Shows what a network computes for 28×28 grey pixels; done when the newest picture is shown. */
  show(network, pixels) {
    this.#next = { task: "trace", network, pixels };
    this.#asking ??= this.#askAll().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }
  async #askAll() {
    while (this.#next !== null) {
      const question = this.#next;
      this.#next = null;
      const { layers, buffer } = await askOnce(question);
      this.model.set("layers", layers);
      this.model.set("buffer", buffer);
    }
  }
}
