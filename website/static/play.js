// The playground's page. The training itself runs in trainer.js; what reads drawings and shows maps
// runs in worker.js, with the latest weights.

import { askOnce, FOLDER, listNetworks, Reader, render, Tracer } from "./backend.js";
import { Curve, drawAccuracy, drawFilters, drawLoss } from "./charts.js";
import { drawPixels, element, greyPixels } from "./look.js";
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
  loss = new Curve();
  measured = []; // accuracies
  news = null; // the latest from the worker
  speed = null; // images a second, lately
  table = null;
  pictures = [];
  chosen = 0; // the unseen digit that is looked into; null: the drawing
  drawing = null;
  reader = null;
  tracer = new Tracer();
  lens = null; // it is added when there is something to show

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
    new ResizeObserver(() => this.draw()).observe(find(".play-charts"));
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
    this.speed = null;
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
  showStatus({ steps, images, seconds, rate }, before) {
    const count = (number) => Math.round(number).toLocaleString("en");
    const duration = seconds - (before?.seconds ?? 0);
    if (duration > 0.1) {
      const latest = (images - (before?.images ?? 0)) / duration;
      this.speed = 0.8 * (this.speed ?? latest) + 0.2 * latest; // steady enough to read
    }
    const speed = steps > 1 && this.speed ? ` · ${count(this.speed)} images a second` : "";
    const isSlow = seconds > 10 && this.speed < SLOW && this.settings.net !== "NetMicro";
    const hint = isSlow ? ": slow, NetMicro needs the least time" : "";
    const progress = `Step ${count(steps)} · ${count(images)} images · ${seconds.toFixed(1)} s`;
    this.status(progress + speed + hint);
    find(".play-rate").textContent = `now ${Number(rate.toPrecision(2))}`;
  }
  draw() {
    const news = this.news ?? { steps: 0 }; // the charts are empty before the training
    drawLoss(find(".play-loss"), this.loss, news);
    drawAccuracy(find(".play-accuracy"), this.measured, news);
    if (this.news) this.drawFilters();
  }
  drawFilters() {
    const first = this.table.find(({ kind }) => kind === "convolution");
    const count = first.shape[0] * first.kernel ** 2;
    const filters = this.news.weights.subarray(first.weight, first.weight + count);
    drawFilters(find(".play-filters"), filters, first.kernel);
  }
  showDigits(labels) {
    this.labels = labels;
    const buttons = this.pictures.map((picture, n) => {
      const canvas = document.createElement("canvas");
      drawPixels(canvas, 28, 28, greyPixels(picture));
      const button = element("button", canvas, element("b", "…"), element("span", "…"));
      button.type = "button";
      button.onclick = () => this.choose(n);
      return button;
    });
    find(".play-digits").replaceChildren(...buttons);
    this.markChosen();
  }
  showAnswers(answers) {
    for (const [n, button] of find(".play-digits").childNodes.entries()) {
      const best = Math.max(...answers[n]);
      const digit = best > 0 ? answers[n].indexOf(best) : -1; // there may be no number at all
      const share = best > 0 ? `${Math.round(100 * best)} %` : "";
      const [, read, sure] = button.childNodes;
      read.textContent = best > 0 ? digit : "?";
      sure.textContent = share;
      button.classList.toggle("play-wrong", digit !== this.labels[n]);
      const said = best > 0 ? `a ${digit} (${share})` : "nothing";
      button.setAttribute("aria-label", `a ${this.labels[n]}; the network reads ${said}`);
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

  // The same network in the pad and in the lens
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
    const trained = await listNetworks();
    const networks = [{ name: YOURS, text: "the one that you train" }, ...trained];
    const place = document.createElement("div");
    find(".play-pad").replaceChildren(this.reader.chooser(networks), place);
    await render("pad", this.reader.model, place);
  }
  onPicture(picture) {
    const isNew = this.drawing?.some((pixel, n) => pixel !== picture[n]) ?? true;
    this.drawing = picture;
    if (!isNew) return;
    this.chosen = null;
    this.markChosen();
    this.trace();
  }
  /** Shows all maps of what is looked into. */
  async trace() {
    if (!this.table) return;
    const pixels = this.chosen === null ? this.drawing : this.pictures[this.chosen];
    await this.tracer.show(YOURS, pixels);
    this.lens ??= this.addLens();
  }
  async addLens() {
    const place = document.createElement("div");
    find(".play-lens").replaceChildren(place);
    await render("lens", this.tracer.model, place);
    place.querySelector(".lens-all")?.click(); // all maps are shown from the start
  }
}

if (find(".play")) new Playground();
