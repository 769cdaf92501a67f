// What all of the report's script shares; page.py puts its files together into one function. All foreign text (ids,
// class names, reasons) reaches the page through textContent and properties, never as markup. A sample is {id, given,
// suggested (class numbers), probability, score, clean, rescued, reviewed, failed (bits: zero-shot consistency,
// zero-shot loss, induced consistency, induced loss), why, image (data URI), size [width, height], missing (why there
// is no image)}, and with a truth {truth (name), wrong (given label)}.
const PAGE_SIZE = 24;
const MARKS = ["right", "relabel", "drop"];
const data = JSON.parse(document.getElementById("data").textContent);
const samples = data.samples;
const nameOf = (number) => data.classes[number];
const byId = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en-US");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

function element(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
