// What all of the report's script shares; page.py puts its files together into one function. All foreign text (ids,
// class names, reasons) reaches the page through textContent and properties, never as markup. A sample is {id, given,
// suggested (class numbers), probability, score, clean, rescued, reviewed, failed (places in data.verdicts), why, image
// (data URI), size [width, height], missing (why there is no image)}, and with a truth {truth (name), wrong (given
// label)}. A verdict is [estimate, selector], in words.
const PAGE_SIZE = 24;
const MARKS = ["right", "relabel", "drop"];
const data = JSON.parse(document.getElementById("data").textContent);
const samples = data.samples;
const nameOf = (number) => data.classes[number];
const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

// Text as the command line shows it, too: with escapes for control and direction characters.
function visible(text) {
  return text.replace(/[\p{C}\p{Z}]/gu, (character) => {
    const code = character.codePointAt(0);
    if (character === " ") return character;
    if (code < 0x100) return { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character] || `\\x${code.toString(16).padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

const TEXTS = new Set(["textContent", "title", "alt", "aria-label"]);

function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    const shown = TEXTS.has(name) ? visible(value || "") : value;
    if (name in made) made[name] = shown;
    else made.setAttribute(name, shown);
  }
  made.append(...children.map((child) => (typeof child === "string" ? visible(child) : child)));
  return made;
}
