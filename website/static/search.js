// Searches the website: passages.json, written by website/conf.py, has the text of each section and
// of each entry of the glossary. A passage is found if each word of the query begins a word in it.

import { element } from "./look.js";

const MOST = 40; // results on the page
const AROUND = 90; // letters of the excerpt before and after what was found

/** Text as it is compared: 1x1 is 1×1, and a thin space is a space. Each letter stays one letter. */
const plain = (text) =>
  text.toLowerCase().replace(/\s/g, " ").replace(/×/g, "x").replace(/−/g, "-");

/** A pattern that finds a word, or its plural, where a word begins. */
function patternOf(word) {
  const stem = word.length > 4 ? word.replace(/s$/, "") : word;
  const escaped = stem.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  return new RegExp(`(?<![a-z0-9])${escaped}`, "g");
}

/** How well a passage fits; 0 if a word is missing. Words of its heading count most. */
function score({ heading, text }, patterns) {
  const [plainHeading, plainText] = [plain(heading), plain(text)];
  let sum = 0;
  for (const pattern of patterns) {
    const inHeading = plainHeading.match(pattern)?.length ?? 0;
    const inText = plainText.match(pattern)?.length ?? 0;
    if (inHeading + inText === 0) return 0;
    sum += 10 * inHeading + Math.min(inText, 5);
  }
  return sum;
}

/** The passages that fit, best first. */
export function find(query, passages) {
  const words = plain(query).split(" ").filter(Boolean);
  if (words.length === 0) return [];
  const patterns = words.map(patternOf);
  const scored = passages.map((passage) => ({ passage, points: score(passage, patterns) }));
  const found = scored.filter(({ points }) => points > 0).sort((a, b) => b.points - a.points);
  return found.map(({ passage }) => ({ ...passage, place: placeIn(passage.text, patterns) }));
}

/** Where the first word stands in a text: [begin, end]; at its beginning if only the heading has it. */
function placeIn(text, patterns) {
  const match = [...plain(text).matchAll(patterns[0])][0];
  return match ? [match.index, match.index + match[0].length] : [0, 0];
}

/** The words around a place, with the place marked. */
function excerpt(text, [begin, end]) {
  const start = begin > AROUND ? text.indexOf(" ", begin - AROUND) : 0;
  const stop = end + AROUND < text.length ? text.lastIndexOf(" ", end + AROUND) : text.length;
  const marked = element("mark", text.slice(begin, end));
  const before = `${start > 0 ? "… " : ""}${text.slice(start, begin)}`;
  const after = `${text.slice(end, Math.max(stop, end))}${stop < text.length ? " …" : ""}`;
  return element("p", before, marked, after);
}

/** The address of a passage; browsers that know text fragments go to the very words. */
function addressOf({ page, anchor, text, place: [begin, end] }) {
  const rest = text.slice(end).match(/^[^\s]*/)[0];
  const words = text.slice(begin, end) + rest;
  const fragment = words ? `:~:text=${encodeURIComponent(words).replaceAll("-", "%2D")}` : "";
  return `${page}.html#${anchor}${fragment}`;
}

function resultOf(found) {
  const link = element("a", found.heading);
  link.href = addressOf(found);
  const where = found.heading === found.title ? [] : [element("span", ` in ${found.title}`)];
  return element("li", link, ...where, excerpt(found.text, found.place));
}

async function show(query, place) {
  const answer = await fetch(new URL("passages.json", import.meta.url));
  const found = find(query, await answer.json());
  const count = found.length === 1 ? "1 passage" : `${found.length || "No"} passages`;
  const more = found.length > MOST ? ` The first ${MOST} are:` : "";
  place.replaceChildren(
    element("p", `${count} with “${query}”.${more}`),
    element("ul", ...found.slice(0, MOST).map(resultOf)),
  );
}

const place = document.querySelector("#search-results");
const query = new URLSearchParams(location.search).get("q")?.trim();
if (place && query) {
  place.setAttribute("role", "status");
  for (const field of document.querySelectorAll("input[name=q]")) field.value = query;
  show(query, place);
}
