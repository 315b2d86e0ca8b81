// The playground's settings, and how they stand in an address: play.html?rate=1&digits=100. What an
// address says is checked like any other input. Nothing in this file needs a page.

export const MISTAKES = ["uncleared", "raw", "equal", "noeval"];

/** For each setting: the values that it can have, and the usual one. */
export const SETTINGS = {
  net: { choices: ["NetMicro", "NetMini", "NetGAP", "NetFC"], usual: "NetMini" },
  rate: { choices: [0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], usual: 0.03 },
  fall: { choices: [0, 1], usual: 1 },
  batch: { choices: [16, 32, 64, 128], usual: 32 },
  digits: { lowest: 100, highest: 4000, usual: 4000 },
  augment: { choices: [0, 1], usual: 0 },
  uncleared: { choices: [0, 1], usual: 0 },
  raw: { choices: [0, 1], usual: 0 },
  equal: { choices: [0, 1], usual: 0 },
  noeval: { choices: [0, 1], usual: 0 },
  seed: { lowest: 0, highest: 999999, usual: null }, // of all random numbers; null: a new one
};

const names = Object.keys(SETTINGS);
const MOST = 3; // sentences about an address, which may be as long as anybody likes

export const usualSettings = () =>
  Object.fromEntries(names.map((name) => [name, SETTINGS[name].usual]));

/** The value that a text stands for; undefined if the setting cannot have it. */
function readValue({ choices, lowest, highest }, text) {
  if (choices) return choices.find((choice) => String(choice) === text);
  const isInside = /^\d{1,6}$/.test(text) && Number(text) >= lowest && Number(text) <= highest;
  return isInside ? Number(text) : undefined;
}

const describe = ({ choices, lowest, highest }) =>
  choices ? choices.join(", ") : `a whole number from ${lowest} to ${highest}`;

/** The settings in an address, and a sentence for each part that makes no sense. */
export function parse(query) {
  const settings = usualSettings();
  const complaints = [];
  for (const [name, text] of new URLSearchParams(query)) {
    const value = Object.hasOwn(SETTINGS, name) ? readValue(SETTINGS[name], text) : undefined;
    if (value !== undefined) settings[name] = value;
    else if (Object.hasOwn(SETTINGS, name))
      complaints.push(
        `The address asks for ${name}=${text.slice(0, 20)}. Possible: ${describe(SETTINGS[name])}.`,
      );
    else complaints.push(`The address names “${name.slice(0, 20)}”, which is not a setting.`);
  }
  return { settings, complaints: complaints.slice(0, MOST) };
}

/** The address's part for these settings: those that are not the usual ones. */
export function format(settings) {
  const changed = names.filter((name) => settings[name] !== SETTINGS[name].usual);
  return new URLSearchParams(changed.map((name) => [name, settings[name]])).toString();
}
