// Exercises whose answers are numbers get fields on the page, below the cell that checks them in the
// notebook. answers.json, written by website/build.py, has the same numbers and hints as the notebook:
// for each answer, cases to expect, [number, tolerance, hint], and a hint for all others.

import { element } from "./look.js";

/** The number that a text stands for, 51,264 and −0.5 included; NaN if it is none. */
export function parse(text) {
  const plain = text.trim().replace("−", "-");
  const isGrouped = /^-?[1-9]\d{0,2}([,_ ]\d{3})+$/.test(plain);
  return plain === "" ? Number.NaN : Number(isGrouped ? plain.replaceAll(/[,_ ]/g, "") : plain);
}

/** Whether two numbers are equal, but for a share of the larger one. */
const isClose = (a, b, tolerance) =>
  Math.abs(a - b) <= tolerance * Math.max(Math.abs(a), Math.abs(b));

/** What is wrong with an answer; null if it is right. */
export function hintFor(answer, { cases, hint }) {
  const known = cases.find(([number, tolerance]) => isClose(answer, number, tolerance));
  return known ? known[2] : hint;
}

/** The line that the check prints, for the texts of all answers by name. */
export function check(texts, numbers) {
  for (const [name, text] of Object.entries(texts)) {
    if (text.trim() === "") return `✗ ${name} is still open.`;
    const answer = parse(text);
    if (!Number.isFinite(answer)) return `✗ ${name} should be a number, not "${text}".`;
    const hint = hintFor(answer, numbers[name]);
    const end = hint?.endsWith("?") ? "" : ".";
    if (hint !== null) return `✗ ${name} is not ${text.trim()}: ${hint}${end}`;
  }
  return "✓ Right!";
}

function show(place, numbers) {
  const form = element("form");
  const fields = {};
  for (const name of Object.keys(numbers)) {
    fields[name] = element("input");
    fields[name].autocomplete = "off";
    form.append(element("label", name, fields[name]));
  }
  const verdict = element("p");
  verdict.setAttribute("role", "status");
  form.append(element("button", "Check"), verdict);
  form.onsubmit = (event) => {
    event.preventDefault();
    const texts = Object.entries(fields).map(([name, field]) => [name, field.value]);
    verdict.textContent = check(Object.fromEntries(texts), numbers);
  };
  place.append(form);
}

const places = document.querySelectorAll(".answers");
if (places.length) {
  const checks = await (await fetch(new URL("answers.json", import.meta.url))).json();
  for (const place of places) show(place, checks[place.dataset.check]);
}
