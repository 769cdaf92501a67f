// The samples of the report are, besides what data.js says, {probability, score, clean, rescued, settled, failed (places in
// data.verdicts), why}, and with a truth {truth (name), wrong (given label)}. A verdict is [estimate, selector], in words.
const PAGE_SIZE = 24;

// ---- Filters and order.

const controls = ["given", "suggested", "verdict", "low", "high", "mark", "text"].map((name) => byId(`filter-${name}`));
const [given, suggested, verdict, low, high, markFilter, text] = controls;
const sort = byId("sort");
const verdicts = {
  doubt: (sample) => !sample.clean && !sample.settled,
  clean: (sample) => sample.clean,
  rescued: (sample) => sample.rescued,
  stranger: (sample) => sample.stranger,
  accused: (sample) => !sample.settled && !sample.clean && sample.wrong === false,
  missed: (sample) => !sample.settled && sample.clean && sample.wrong === true,
};
for (let number = 0; number <= data.verdicts.length; number += 1) {
  verdicts[`f${number}`] = (sample) => verdicts.doubt(sample) && sample.failed.length === number;
}
const compareNames = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
const orders = {
  score: (a, b) => a.score - b.score,
  "score-down": (a, b) => b.score - a.score,
  probability: (a, b) => b.probability - a.probability,
  "off-topic": (a, b) => b.offTopic - a.offTopic,
  given: (a, b) => compareNames(nameOf(a.given), nameOf(b.given)) || a.score - b.score,
  suggested: (a, b) => compareNames(nameOf(a.suggested), nameOf(b.suggested)) || a.score - b.score,
  id: (a, b) => compareNames(a.id, b.id),
};
const searched = samples.map((sample) =>
  [sample.id, nameOf(sample.given), nameOf(sample.suggested), sample.why, sample.truth || ""].join("\n").toLowerCase());

function matching() {
  const words = text.value.trim().toLowerCase();
  const from = low.value === "" ? -Infinity : Number(low.value);
  const to = high.value === "" ? Infinity : Number(high.value);
  const passes = verdicts[verdict.value] || (() => true);
  const markOf = (sample) => (marks.get(sample.id) || ["none"])[0];
  return samples
    .filter((sample, position) =>
      (given.value === "" || String(sample.given) === given.value)
      && (suggested.value === "" || String(sample.suggested) === suggested.value)
      && passes(sample)
      && sample.score >= from && sample.score <= to
      && (markFilter.value === "" || markOf(sample) === markFilter.value)
      && searched[position].includes(words))
    .sort(orders[sort.value]);
}

function fillClasses(select, numbers) {
  const known = [...new Set(numbers)].sort((a, b) => a - b);
  select.append(...known.map((number) => element("option", { value: String(number), textContent: nameOf(number) })));
}

function resetFilters() {
  for (const control of controls) control.value = "";
  render();
}

// A class of which no image is in this file is no option yet: choosing it must show none, not all.
function filterByClass(select, number) {
  if (number !== undefined && ![...select.options].some((option) => option.value === number)) {
    fillClasses(select, [Number(number)]);
  }
  select.value = number === undefined ? "" : number;
}

// The page's numbers are links into the gallery: a class, a confusion cell, a kind of error.
function openInGallery(link) {
  for (const control of controls) control.value = "";
  filterByClass(given, link.dataset.given);
  filterByClass(suggested, link.dataset.suggested);
  verdict.value = link.dataset.verdict || (link.dataset.suggested === undefined ? "" : "doubt");
  render();
  // The browser's way back then leads to the number that was chosen.
  if (location.hash !== "#gallery") location.hash = "gallery";
  byId("gallery").scrollIntoView();
  byId("cards").focus({ preventScroll: true });
}

// ---- The gallery.

const cards = byId("cards");
const cellCounts = new Map(data.cells.map(([from, to, number]) => [`${from},${to}`, number]));
let shown = [];
let current = -1;

function cardOf(sample) {
  const position = shown.indexOf(sample);
  return position >= 0 ? cards.children[position] : null;
}

function picture(sample, alt) {
  if (!sample.image) {
    return element("span", { className: "picture missing", role: "img", "aria-label": `${alt}; no image: ${sample.missing}`, title: sample.missing }, "no image");
  }
  const image = element("img", { alt, src: sample.image, width: sample.size[0], height: sample.size[1], decoding: "async" });
  return element("span", { className: "picture" }, image);
}

const altOf = (sample) => `Labelled ${nameOf(sample.given)}, suggested ${nameOf(sample.suggested)}`;

const [estimates, selectors] = [0, 1].map((part) => [...new Set(data.verdicts.map((verdict) => verdict[part]))]);

function verdictTable(sample) {
  const cell = (estimate, selector) => {
    const failed = sample.failed.some((number) => data.verdicts[number][0] === estimate && data.verdicts[number][1] === selector);
    return element("td", { className: failed ? "fails" : "passes" },
      element("span", { textContent: failed ? "✕" : "✓", "aria-hidden": "true" }),
      element("span", { className: "hidden", textContent: `${selector}: ${failed ? "in doubt" : "clean"}` }));
  };
  const heads = selectors.map((name) => element("th", { scope: "col", textContent: name }));
  const rows = estimates.map((name) => element("tr", {},
    element("th", { scope: "row", textContent: name }), ...selectors.map((selector) => cell(name, selector))));
  return element("table", { className: "verdicts" },
    element("thead", {}, element("tr", {}, element("td"), ...heads)),
    element("tbody", {}, ...rows));
}

const hasOther = (sample) => sample.suggested >= 0 && sample.suggested !== sample.given;

function markButtons(sample) {
  const button = (mark, label, text, key) => {
    const made = element("button", { type: "button", title: `${describe([mark, label])} (key ${key})`, "aria-label": describe([mark, label]) }, text);
    made.dataset.mark = mark;
    made.addEventListener("click", () => setMark(sample, mark, label));
    return made;
  };
  const buttons = [button("right", "", "Right", "1")];
  if (hasOther(sample)) {
    const name = nameOf(sample.suggested);
    buttons.push(button("relabel", name, `→ ${name}`, "2"));
  }
  buttons.push(button("drop", "", "Drop", "3"));
  buttons.push(button("unsure", "", "Cannot tell", "x"));
  const other = element("button", { type: "button", title: "Relabel to a class of your choice (key r)" });
  other.dataset.mark = "other";
  other.addEventListener("click", () => chooseClass(sample));
  return element("div", { className: "actions" }, ...buttons, other);
}

function card(sample, position) {
  const from = element("span", { className: "given", textContent: nameOf(sample.given) });
  const to = element("b", { textContent: nameOf(sample.suggested) });
  const title = element("p", { className: "title" }, from);
  if (sample.suggested !== sample.given) {
    title.append(element("span", { className: "muted", "aria-hidden": "true", textContent: " → " }),
      element("span", { className: "hidden", textContent: " suggested " }), to, " ");
    title.append(element("span", { className: "muted", textContent: sample.probability.toFixed(2), title: data.probability }));
  }
  const facts = element("p", { className: "fine" }, `score ${sample.score.toFixed(3)}`);
  if (sample.settled) facts.append(sample.clean ? " · reviewed: clean" : " · reviewed: dropped");
  else if (sample.clean) facts.append(sample.rescued ? " · kept for an empty class" : " · called clean");
  if (sample.truth !== undefined) {
    facts.append(" · ", element("span", { className: sample.wrong ? "accent" : "", textContent: sample.wrong ? `truly ${sample.truth}` : "label is true" }));
  }
  const made = element("li", { className: "card", tabIndex: -1 },
    element("div", { className: "top" }, picture(sample, altOf(sample)),
      element("div", { className: "head" }, title, facts, verdictTable(sample))),
    element("p", { className: "why", textContent: sample.why }),
    element("p", { className: "path", textContent: sample.id }),
    markButtons(sample));
  made.addEventListener("focusin", () => { if (current !== position) makeCurrent(position); });
  showMark(made, sample);
  return made;
}

function showMark(made, sample) {
  const mark = marks.get(sample.id);
  made.classList.toggle("marked", Boolean(mark));
  const suggestion = nameOf(sample.suggested);
  for (const button of made.querySelectorAll("[data-mark]")) {
    const kind = button.dataset.mark;
    const own = Boolean(mark) && mark[0] === "relabel" && (mark[1] !== suggestion || !hasOther(sample));
    const pressed = kind === "other" ? own : Boolean(mark) && mark[0] === kind && !own;
    button.setAttribute("aria-pressed", String(pressed));
    if (kind === "other") button.textContent = own ? visible(`→ ${mark[1]}`) : "Other …";
  }
}

function showStatus() {
  let words = shown.length ? `${plural(shown.length, "image")} of the ${count(samples.length)} in this file` : "No image in this file fits";
  if (shown.length > cards.children.length) words += `, ${count(cards.children.length)} shown`;
  const cell = cellCounts.get(`${given.value},${suggested.value}`);
  if (cell && verdict.value === "doubt") words += `; the data set has ${count(cell)} such labels in doubt`;
  byId("status").textContent = `${words}.`;
  byId("more").hidden = shown.length <= cards.children.length;
  byId("more").textContent = `Show ${count(Math.min(2 * PAGE_SIZE, shown.length - cards.children.length))} more`;
}

function render() {
  shown = matching();
  current = -1;
  cards.replaceChildren(...shown.slice(0, PAGE_SIZE).map(card));
  if (cards.firstChild) cards.firstChild.tabIndex = 0;
  showStatus();
}

function showMore() {
  const first = cards.children.length;
  cards.append(...shown.slice(first, first + 2 * PAGE_SIZE).map((sample, position) => card(sample, first + position)));
  showStatus();
}

function makeCurrent(position) {
  const before = cards.children[current] || cards.firstChild;
  before.tabIndex = -1;
  before.removeAttribute("aria-current");
  current = position;
  cards.children[position].tabIndex = 0;
  cards.children[position].setAttribute("aria-current", "true");
}

function goTo(position) {
  if (!shown.length) return;
  const target = Math.min(Math.max(position, 0), shown.length - 1);
  while (target >= cards.children.length) showMore();
  makeCurrent(target);
  cards.children[target].focus({ preventScroll: true });
  cards.children[target].scrollIntoView({ block: "nearest" });
}

// Cards in a row of the grid, from where the browser has put them.
function cardsInARow() {
  const top = cards.firstChild.offsetTop;
  const next = [...cards.children].findIndex((other) => other.offsetTop !== top);
  return next < 0 ? cards.children.length : next;
}
