// The playground's page. The training itself runs in trainer.js; what reads drawings and shows maps
// runs in worker.js, with the latest weights.

import { askOnce, FOLDER, Model, Reader } from "./backend.js";
import { Curve, drawAccuracy, drawFilters, drawLoss, drawMaps } from "./charts.js";
import { connect } from "./layers.js";
import { clamp, drawPixels, element, greyPixels } from "./look.js";
import { format, parse, SETTINGS } from "./settings.js";

const YOURS = "yours"; // the visitor's network, in worker.js
const SLOW = 60; // images a second
const find = (selector) => document.querySelector(selector);
const percent = (share) => `${(100 * share).toFixed(1)} %`;

class Playground {
  settings;
  trainer = null; // the worker; it is started when it is needed
  isRunning = false;
  isResuming = false; // when the tab is seen again
  table = null;
  pictures = [];
  chosen = 0; // the unseen digit that is looked into; null: the drawing
  drawing = null;
  reader = null;
  lens = null;
  isTracing = false;

  constructor() {
    this.start = find(".play-start");
    this.start.onclick = () => this.toggle();
    find(".play-step").onclick = () => this.order({ type: "step" });
    find(".play-over").onclick = () => this.open();
    find(".play-save").onclick = () => this.order({ type: "save" });
    this.fields = new Map(
      [...document.querySelectorAll(".play [name]")].map((field) => [field.name, field]),
    );
    for (const [name, field] of this.fields) this.connectField(name, field);
    this.listenToPage();
    this.readAddress();
  }

  // Settings
  connectField(name, field) {
    if (field.matches("select"))
      field.append(...SETTINGS[name].choices.map((choice) => new Option(choice, choice)));
    field.oninput = () => {
      if (field.type === "checkbox") this.settings[name] = Number(field.checked);
      else this.settings[name] = name === "net" ? field.value : Number(field.value);
      this.showSettings();
      history.replaceState(null, "", this.address());
      if (name === "net" || name === "equal") this.open({ isOnly: this.trainer !== null });
      else if (this.trainer) this.send({ type: "change", settings: this.settings });
    };
  }
  address() {
    const query = format(this.settings);
    return query ? `?${query}` : location.pathname;
  }
  readAddress() {
    const { settings, complaints } = parse(location.search);
    this.settings = settings;
    this.showSettings();
    this.notice(complaints.join(" "));
  }
  showSettings() {
    for (const [name, field] of this.fields)
      if (field.type === "checkbox") field.checked = this.settings[name] === 1;
      else field.value = this.settings[name];
    find(".play-count").textContent = this.settings.digits.toLocaleString("en");
  }
  notice(text) {
    const notice = find(".play-notice");
    notice.hidden = text === "";
    notice.textContent = text;
  }

  // The page around it
  listenToPage() {
    document.addEventListener("keydown", (event) => {
      const isElsewhere = event.target.closest("button, input, select, a, summary, [tabindex]");
      if (event.key !== " " || isElsewhere || event.repeat) return;
      event.preventDefault();
      this.toggle();
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.isRunning) {
        this.isResuming = true;
        this.pause();
      } else if (!document.hidden && this.isResuming) {
        this.isResuming = false;
        this.run();
      }
    });
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='play.html?']");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      history.pushState(null, "", link.href);
      this.useAddress();
      find(".play").scrollIntoView();
      this.start.focus({ preventScroll: true });
    });
    addEventListener("popstate", () => this.useAddress());
    addEventListener("resize", () => this.draw());
  }
  useAddress() {
    this.pause();
    this.readAddress();
    this.open();
  }

  // Orders to the worker that trains
  send(order) {
    this.trainer.postMessage(order);
  }
  /** Starts the worker with a fresh network; `isOnly` false: nothing is shown yet, so do not. */
  open({ isOnly = true } = {}) {
    if (!isOnly) return;
    if (this.trainer === null) {
      this.trainer = new Worker(new URL("trainer.js", FOLDER), { type: "module" });
      this.trainer.onmessage = ({ data }) => this[`on${data.type}`](data);
      this.trainer.onerror = () => this.onfailed({ error: "trainer.js could not be loaded" });
    }
    this.loss = new Curve();
    this.measured = [];
    this.news = null;
    this.status("Loading …");
    const { isRunning } = this;
    this.send({ type: "open", settings: this.settings });
    if (isRunning) this.run();
  }
  order(order) {
    if (this.trainer === null || this.news?.isBroken) this.open();
    this.send(order);
  }
  toggle() {
    if (this.isRunning) this.pause();
    else this.run();
  }
  run() {
    this.order({ type: "run" });
    this.setRunning(true);
  }
  pause() {
    if (this.isRunning) this.send({ type: "pause" });
    this.setRunning(false);
  }
  setRunning(isRunning) {
    this.isRunning = isRunning;
    this.start.textContent = isRunning ? "Pause" : "Start";
  }

  // What the worker says
  onopened({ pictures, labels, table }) {
    this.table = table.layers;
    this.pictures = pictures;
    this.showDigits(labels);
    find(".play-save").disabled = false;
  }
  onnews(news) {
    const before = this.news;
    this.news = news;
    for (const loss of news.losses) this.loss.add(loss);
    if (news.measured) this.addMeasured(news.measured);
    this.draw();
    this.showAnswers(news.answers);
    this.showStatus(news, before);
    this.adopt(news.weights);
    if (news.isBroken) this.onbroken(news);
  }
  addMeasured(measured) {
    if (this.measured.at(-1)?.step === measured.step) this.measured.pop();
    this.measured.push(measured);
    if (this.measured.length > 400) this.measured = this.measured.filter((_, n) => n % 2 === 0);
    find(".play-training").textContent = percent(measured.training);
    find(".play-unseen").textContent = percent(measured.unseen);
  }
  onbroken({ steps }) {
    this.setRunning(false);
    const reason = this.settings.uncleared
      ? "Each step repeated the gradients of all earlier ones, so the weights grew beyond all limits."
      : "The steps were too large, so the weights grew beyond all limits.";
    const cure = this.settings.uncleared ? "Clear the gradients" : "Choose a smaller learning rate";
    this.status(
      `At step ${steps}, the loss stopped being a number. ${reason} ${cure}, then start over.`,
    );
  }
  onfile({ file, net }) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = `${net}.safetensors`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }
  onfailed({ error }) {
    this.setRunning(false);
    this.trainer?.terminate();
    this.trainer = null;
    const isOld = /CompileError|WebAssembly|DecompressionStream/.test(error);
    this.notice(
      isOld
        ? "This browser cannot train: it lacks WebAssembly with SIMD, which browsers have had since 2023."
        : "The training could not be loaded. Check your connection, then press Start again.",
    );
    this.status("Nothing has been trained yet.");
    console.warn(error);
  }

  // What is shown
  status(text) {
    find(".play-status").textContent = text;
  }
  showStatus({ steps, images, seconds }, before) {
    const count = (number) => Math.round(number).toLocaleString("en");
    const duration = seconds - (before?.seconds ?? 0);
    const isTimed = duration > 0.1;
    if (isTimed) this.speed = (images - (before?.images ?? 0)) / duration;
    const speed = steps > 1 && this.speed ? ` · ${count(this.speed)} images a second` : "";
    const isSlow = seconds > 10 && this.speed < SLOW && this.settings.net !== "NetMicro";
    const hint = isSlow ? ": slow, NetMicro needs the least time" : "";
    const progress = `Step ${count(steps)} · ${count(images)} images · ${seconds.toFixed(1)} s`;
    this.status(progress + speed + hint);
  }
  draw() {
    if (!this.news) return;
    drawLoss(find(".play-loss"), this.loss, this.news);
    drawAccuracy(find(".play-accuracy"), this.measured, this.news);
    const first = this.table.find(({ kind }) => kind === "convolution");
    const count = first.shape[0] * first.kernel ** 2;
    const filters = this.news.weights.subarray(first.weight, first.weight + count);
    drawFilters(find(".play-filters"), filters, first.kernel);
  }
  showDigits(labels) {
    this.answerTexts = [];
    const buttons = this.pictures.map((picture, n) => {
      const canvas = document.createElement("canvas");
      drawPixels(canvas, 28, 28, greyPixels(picture));
      const text = element("span", "…");
      this.answerTexts.push({ text, label: labels[n] });
      const button = element("button", canvas, text);
      button.type = "button";
      button.onclick = () => this.choose(n);
      return button;
    });
    find(".play-digits").replaceChildren(...buttons);
    this.markChosen();
  }
  showAnswers(answers) {
    for (const [n, probabilities] of answers.entries()) {
      const { text, label } = this.answerTexts[n];
      const best = Math.max(...probabilities);
      const digit = probabilities.indexOf(best);
      const isAnswer = best > 0;
      text.textContent = isAnswer ? `${digit} (${Math.round(100 * best)} %)` : "no answer";
      const button = text.parentElement;
      button.classList.toggle("play-wrong", digit !== label);
      button.setAttribute("aria-label", `a ${label}; the network reads ${text.textContent}`);
    }
  }
  choose(n) {
    this.chosen = n;
    this.markChosen();
    this.trace();
  }
  markChosen() {
    for (const [n, button] of find(".play-digits").childNodes.entries())
      button.setAttribute("aria-pressed", n === this.chosen);
  }

  // The same network in the pad, in the overview and in the lens
  async adopt(weights) {
    const { net: source, raw } = this.settings;
    const copy = weights.slice();
    await askOnce({ task: "adopt", network: YOURS, source, weights: copy, isRaw: raw === 1 });
    if (this.reader === null) await this.addPad();
    else this.reader.answer();
    this.trace();
  }
  async addPad() {
    this.reader = new Reader(YOURS);
    this.reader.onPicture = (picture) => this.onPicture(picture);
    const [{ default: pad }, trained] = await Promise.all([
      import(new URL("widgets/pad.js", FOLDER)),
      fetch(new URL("networks/index.json", FOLDER)).then((answer) => answer.json()),
    ]);
    const networks = [{ name: YOURS, text: "the one that you train" }, ...trained];
    const place = document.createElement("div");
    find(".play-pad").replaceChildren(this.reader.chooser(networks), place);
    pad.render({ model: this.reader.model, el: place });
  }
  onPicture(picture) {
    const isNew = this.drawing?.some((pixel, n) => pixel !== picture[n]) ?? true;
    this.drawing = picture;
    if (!isNew) return;
    this.chosen = null;
    this.markChosen();
    this.trace();
  }
  /** Shows all maps of what is looked into; one question at a time. */
  async trace() {
    if (this.isTracing || !this.table) return;
    this.isTracing = true;
    const pixels = this.chosen === null ? this.drawing : this.pictures[this.chosen];
    const answer = await askOnce({ task: "trace", network: YOURS, pixels });
    this.isTracing = false;
    this.showMaps(connect(answer.layers, answer.buffer));
    await this.showLens(answer);
  }
  showMaps(layers) {
    const overview = find(".play-overview");
    const names = layers.map(({ name }) => name).join();
    if (this.shownLayers !== names) {
      overview.replaceChildren(...layers.map((layer, n) => this.layerPicture(layer, n)));
      this.shownLayers = names;
    }
    for (const [n, canvas] of overview.querySelectorAll("canvas").entries())
      drawMaps(canvas, layers[n]);
  }
  layerPicture(layer, n) {
    const [count, height, width] = layer.shape;
    const canvas = document.createElement("canvas");
    const grid = drawMaps(canvas, layer);
    const scale = grid.height === 1 ? 24 : Math.max(1, Math.round(28 / width));
    canvas.style.width = `${scale * grid.width}px`;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "button");
    const maps = count === 1 ? `${height} × ${width}` : `${count} maps of ${height} × ${width}`;
    const title = `${n}. ${layer.name}: ${maps}`;
    canvas.setAttribute("aria-label", `${title}. Show how it is computed.`);
    canvas.onclick = ({ clientX, clientY }) => {
      const box = canvas.getBoundingClientRect();
      const columns = height * width === 1 ? count : grid.columns;
      const column = Math.floor(((clientX - box.left) / box.width) * columns);
      const cellHeight = (box.height * (height + 1)) / (grid.height + 1);
      const map = Math.floor((clientY - box.top) / cellHeight) * columns + column;
      this.lookAt(n, clamp(map, 0, count - 1));
    };
    canvas.onkeydown = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.lookAt(n, 0);
    };
    const made = element("div", title, canvas);
    made.className = "play-layer";
    return made;
  }
  lookAt(layer, map) {
    this.lens?.set("place", [layer, map]);
    find(".play-lens").scrollIntoView({ block: "nearest" });
  }
  async showLens({ layers, buffer }) {
    if (this.lens === null) {
      this.lens = new Model({ layers, buffer });
      const { default: lens } = await import(new URL("widgets/lens.js", FOLDER));
      lens.render({ model: this.lens, el: find(".play-lens") });
      return;
    }
    this.lens.set("layers", layers);
    this.lens.set("buffer", buffer);
  }
}

if (find(".play")) new Playground();
