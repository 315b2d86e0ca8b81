// What stands in for Jupyter in the tests: the model of a widget, and its kernel, which the test plays.
// The page knows it as `stage`.

/** Bytes as anywidget gives them, at an odd place of a larger buffer. */
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const longer = new Uint8Array([200, ...bytes]);
  return new DataView(longer.buffer, 1, bytes.length);
}

class Stage {
  #values = {};
  saved = {}; // what Python knows
  sent = []; // what the kernel was asked
  listeners = {};
  isDead = false; // the kernel

  get(name) {
    return this.#values[name];
  }
  set(name, value) {
    this.#values[name] = value;
  }
  save_changes() {
    Object.assign(this.saved, this.#values);
  }
  send(content, _, [ink]) {
    if (this.isDead) throw Error("Cannot send");
    this.sent.push({ ...content, ink: [...new Uint8Array(ink)] });
  }
  on(event, listener) {
    this.listeners[event] = listener;
  }
  off(event) {
    delete this.listeners[event];
  }

  /** Sends an event to the widget. */
  tell(event, ...news) {
    this.listeners[event]?.(...news);
  }
  /** Changes values, as Python does. */
  change(values) {
    for (const [name, value] of Object.entries(values))
      this.set(name, value?.base64 === undefined ? value : decode(value.base64));
    this.save_changes();
    for (const name of Object.keys(values)) this.tell(`change:${name}`);
  }
}

/** Loads a module from its text, as anywidget does. */
export const load = (text) =>
  import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));

/** Shows a widget: its script, its style sheet, and the values that Python shares. */
export async function show(script, css, values) {
  globalThis.stage?.close(); // the page may have shown another one
  document.body.replaceChildren();
  const stage = new Stage();
  stage.change(values);
  const style = document.createElement("style");
  style.textContent = css;
  document.head.replaceChildren(style);
  const { default: widget } = await load(script);
  stage.close = widget.render({ model: stage, el: document.body });
  globalThis.stage = stage;
}
