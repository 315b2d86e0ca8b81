// Brings the course's widgets to life on the website. In Jupyter a kernel stands behind them; here it is this file,
// and the networks run in worker.js. A place for a widget looks like this, with a still picture to begin with:
//     <div class="live" data-widget="pad" data-network="NetGAP"> ... </div>

const HERE = new URL(".", import.meta.url);

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
    this.tell(`change:${name}`);
  }
  on(event, listener) {
    this.#listeners.set(event, [...(this.#listeners.get(event) ?? []), listener]);
  }
  off(event, listener) {
    const others = (this.#listeners.get(event) ?? []).filter((other) => other !== listener);
    this.#listeners.set(event, others);
  }
  tell(event, ...news) {
    for (const listener of this.#listeners.get(event) ?? []) listener(...news);
  }
  save_changes() {} // there is nobody to tell
}

// --- The worker, which all widgets of a page share ---

const waiting = new Map();
let worker;
let asked = 0;

/** Asks the worker. A question may get several answers, each better than the one before. */
function ask(question, hear) {
  worker ??= startWorker();
  const id = ++asked;
  waiting.set(id, hear);
  worker.postMessage({ id, ...question });
  return id;
}

function startWorker() {
  const started = new Worker(new URL("worker.js", HERE), { type: "module" });
  started.onmessage = ({ data }) => waiting.get(data.id)?.(data);
  started.onerror = () => {
    worker = undefined; // so that the next question starts another one
    for (const hear of waiting.values()) hear({ error: "the worker could not be loaded" });
    waiting.clear();
  };
  return started;
}

const askOnce = (question) =>
  new Promise((resolve, reject) =>
    ask(question, (answers) => (answers.error ? reject(new Error(answers.error)) : resolve(answers))),
  );

// --- What stands behind each widget ---

/** The values a widget starts with, exported from Python; bytes come in base64. */
async function read(name) {
  const answer = await fetch(new URL(`widgets/${name}.json`, HERE));
  if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
  return JSON.parse(await answer.text(), (_, value) =>
    value?.base64 === undefined
      ? value
      : new DataView(Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0)).buffer),
  );
}

/** A choice of networks, for the pad. */
function chooser(networks, onchange) {
  const label = Object.assign(document.createElement("label"), { className: "live-choice" });
  const select = document.createElement("select");
  select.append(...networks.map(({ name, text }) => new Option(text, name)));
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  select.onchange = () => onchange(select, status);
  label.append("network ", select, " ", status);
  return label;
}

const BEHIND = {
  bench: async () => ({ model: new Model(await read("bench")) }),
  film: async () => ({ model: new Model(await read("film")) }),

  /** The lens explains what a network computes for the film's digit. */
  async lens({ network }) {
    const { digit } = await read("film");
    const bytes = new Uint8Array(digit.buffer);
    const picture = Float32Array.from(bytes, (byte) => (byte / 255 - 0.1307) / 0.3081);
    const { layers, numbers } = await askOnce({ task: "trace", network, picture });
    return { model: new Model({ layers, numbers: new DataView(numbers) }) };
  },

  /** The pad sends drawings, and hears what the chosen network reads in them. */
  async pad({ network }) {
    const model = new Model({});
    let latest = null; // the drawing that was sent last
    let question; // the number of the question about it
    function answerLatest() {
      waiting.delete(question);
      const { content, drawing } = latest;
      const task = { task: "read", network, drawing: new Uint8Array(drawing), side: content.size };
      question = ask(task, ({ picture, probabilities }) => {
        if (picture) model.tell("msg:custom", { ...content, probabilities }, [new DataView(picture.buffer)]);
      });
    }
    model.send = (content, _, [drawing]) => {
      latest = { content, drawing };
      answerLatest();
    };
    async function change(select, status) {
      const name = select.value;
      status.textContent = `${name} is being loaded …`;
      const text = await askOnce({ task: "fetch", network: name }).then(
        () => "",
        () => `${name} could not be loaded.`,
      );
      if (select.value !== name) return; // another one was chosen meanwhile
      status.textContent = text;
      if (text) select.value = network;
      else network = name;
      if (latest) answerLatest();
    }
    const [, networks] = await Promise.all([
      askOnce({ task: "fetch", network }),
      fetch(new URL("networks/index.json", HERE)).then((answer) => answer.json()),
    ]);
    const choice = chooser(networks, change);
    choice.querySelector("select").value = network;
    return { model, extra: choice };
  },
};

// --- Waking the widgets ---

async function wake(place) {
  if (place.dataset.state) return; // the second click of a double click
  place.dataset.state = "waking";
  const button = place.querySelector("button");
  const hadFocus = button !== null && button === document.activeElement; // before it is disabled
  if (button) Object.assign(button, { disabled: true, textContent: "Loading …" });
  try {
    const [{ default: widget }, { model, extra }] = await Promise.all([
      import(new URL(`widgets/${place.dataset.widget}.js`, HERE)),
      BEHIND[place.dataset.widget](place.dataset),
    ]);
    const el = document.createElement("div");
    place.querySelector("img").classList.add("live-still"); // it is shown in print
    place.prepend(el, ...(extra ? [extra] : []));
    widget.render({ model, el });
    if (hadFocus) el.querySelector("select, input, button, [tabindex]")?.focus({ preventScroll: true });
    place.dataset.state = "awake";
  } catch (error) {
    place.dataset.state = "failed";
    const note = document.createElement("p");
    note.setAttribute("role", "alert");
    note.textContent = "This could not be loaded. Reload the page to try again.";
    place.append(note);
    console.warn(error);
  } finally {
    button?.remove();
  }
}

/** Starts each widget as it comes near the window; one that needs megabytes waits for its button. */
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
