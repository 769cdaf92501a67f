// What the scripts of all pages share; page.py puts the files of a page together into one function. All foreign text (ids,
// class names, reasons) reaches the page through textContent and properties, never as markup. A sample is {id, given,
// suggested (class numbers; -1: none of them), image (data URI), size [width, height], missing (why there is no image)}.
const MARKS = ["right", "relabel", "drop", "unsure"];
const data = JSON.parse(document.getElementById("data").textContent);
const samples = data.samples;
const nameOf = (number) => (number < 0 ? "none of the classes" : data.classes[number]);
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
