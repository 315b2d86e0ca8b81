// Trains outside the page's thread, so that the page answers while the network learns. The page
// sends orders; it gets news several times a second.

import { describe, fetchFile, pause } from "./engine.js";
import { readDigits, Session, SHOWN } from "./session.js";
import { loadKernels } from "./training.js";

const FOLDER = new URL(".", import.meta.url);
const SLICE = 30; // milliseconds of work before orders are let in
const NEWS = 300; // milliseconds between news
const SHARE = 5; // measuring takes at most one part in so many of the time
const FIRST_UNSEEN = 4000;

let kernels;
let digits;
let session;
let isRunning = false;
let isWorking = false;
let seconds = 0; // of training
let nextMeasuring = 0; // when the accuracy is measured again, in those seconds

async function open(settings) {
  kernels ??= loadKernels(new URL("kernels.wasm", FOLDER));
  digits ??= fetchDigits();
  const [loaded, read, table] = await Promise.all([
    kernels,
    digits,
    describe(settings.net, new URL("networks/", FOLDER)),
  ]);
  session = new Session(loaded, read, table, settings);
  seconds = 0;
  nextMeasuring = 1; // what it knows before it has learned is told below
  const shown = [...Array(SHOWN).keys()].map((n) => FIRST_UNSEEN + n);
  const pictures = shown.map((n) => read.picture(n).slice());
  const labels = shown.map((n) => read.labels[n]);
  postMessage({ type: "opened", pictures, labels, table, settings });
  tell(true);
}

async function fetchDigits() {
  const answer = await fetchFile("digits.bin.gz", FOLDER);
  const stream = answer.body.pipeThrough(new DecompressionStream("gzip"));
  return readDigits(new Uint8Array(await new Response(stream).arrayBuffer()));
}

/** Sends the page what has changed. */
function tell(isMeasuring) {
  const { steps, images, losses, rate, isBroken } = session;
  session.losses = [];
  const news = { type: "news", steps, images, losses, rate, isBroken, seconds };
  if (isMeasuring && !isBroken) news.measured = session.measure();
  postMessage({ ...news, answers: session.answers(), weights: session.weights() });
}

/** Works in short slices until it is told to stop. */
async function work() {
  if (isWorking) return;
  isWorking = true;
  let lastNews = performance.now();
  while (isRunning) {
    const began = performance.now();
    while (isRunning && performance.now() - began < SLICE) takeStep();
    if (performance.now() - lastNews > NEWS || !isRunning) {
      tellInTime();
      lastNews = performance.now();
    }
    seconds += (performance.now() - began) / 1000;
    await pause();
  }
  isWorking = false;
}

/** Tells the news; now and then, and when training stops, with the accuracy. */
function tellInTime() {
  const began = performance.now();
  const isMeasuring = seconds >= nextMeasuring || !isRunning;
  tell(isMeasuring);
  const cost = (performance.now() - began) / 1000;
  if (isMeasuring) nextMeasuring = seconds + Math.max(1, SHARE * cost);
}

function takeStep() {
  session.step();
  if (session.isBroken) isRunning = false;
}

const ORDERS = {
  async open({ settings }) {
    isRunning = false;
    await open(settings);
  },
  run() {
    isRunning = !session.isBroken;
    return work();
  },
  pause() {
    if (!isRunning) return;
    isRunning = false;
    tell(true);
  },
  step() {
    if (session.isBroken) return;
    const began = performance.now();
    session.step();
    seconds += (performance.now() - began) / 1000;
    tell(true);
  },
  change({ settings }) {
    session.change(settings);
  },
  save() {
    postMessage({ type: "file", file: session.file(), net: session.settings.net });
  },
};

let opened = Promise.resolve(); // the latest network is there; other orders wait for it

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "open") opened = ORDERS.open(data);
    await opened;
    if (data.type !== "open") await ORDERS[data.type](data);
  } catch (error) {
    isRunning = false;
    isWorking = false;
    postMessage({ type: "failed", error: String(error) }); // the page starts another worker
  }
};
