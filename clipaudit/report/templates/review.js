// One sample after the other. With hidden suggestions a person says first that the label is wrong ("2"), and sees the
// suggestion only then: it must not lead the judgement.

const MATCHES = 12;
const SMALL = 100;
let current = 0;
// The sample of which the person has said that the label is wrong, and not yet what is right.
let pending = null;

const sampleNow = () => samples[current];
const isSame = (sample) => sample.suggested === sample.given || sample.suggested < 0;

function describe([mark, label]) {
  if (mark === "relabel") return `wrong: it is ${label}`;
  return { right: "the label is right", drop: "drop the sample", unsure: "cannot tell" }[mark];
}

// ---- What is shown.

function showPicture(sample) {
  const place = byId("picture");
  if (!sample.image) {
    place.replaceChildren(element("p", { className: "missing" }, `no image: ${sample.missing}`));
    return;
  }
  const small = Math.max(...sample.size) < SMALL;
  const alt = `Sample ${current + 1}, labelled ${nameOf(sample.given)}`;
  place.replaceChildren(element("img", { alt, src: sample.image, className: small ? "small" : "" }));
}

function suggestionWords(sample) {
  const known = data.showSuggestions || pending === sample || marks.has(sample.id);
  if (!known) return [];
  if (isSame(sample)) return ["No other class is suggested."];
  const words = ["Suggested: ", element("b", { textContent: nameOf(sample.suggested) })];
  return pending === sample ? [...words, ". 2 or Enter: yes; r: another class; 3: none fits; Escape: back"] : words;
}

function show() {
  const sample = sampleNow();
  byId("sample").hidden = false;
  byId("finished").hidden = true;
  showPicture(sample);
  byId("label").replaceChildren("Labelled ", element("b", { textContent: nameOf(sample.given) }));
  byId("path").textContent = visible(sample.id);
  closeOther();
  showJudgement();
}

function showJudgement() {
  const sample = sampleNow();
  const mark = marks.get(sample.id);
  byId("suggestion").replaceChildren(...suggestionWords(sample));
  byId("mark").textContent = mark ? visible(`Marked: ${describe(mark)}`) : "";
  const asks = isSame(sample) || (!data.showSuggestions && pending !== sample && !mark);
  byId("second").lastChild.textContent = asks ? " The label is wrong" : " The suggested class is right";
  const suggested = nameOf(sample.suggested);
  const pressed = mark && { right: "1", drop: "3", unsure: "?", relabel: mark[1] === suggested ? "2" : "r" }[mark[0]];
  for (const button of document.querySelectorAll("[data-key]")) {
    button.setAttribute("aria-pressed", String(button.dataset.key === pressed));
  }
  showMarks();
}

function showMarks() {
  const done = samples.filter((sample) => marks.has(sample.id)).length;
  byId("progress").textContent = `${count(current + 1)} of ${count(samples.length)}, ${count(done)} marked`;
  byId("done").max = samples.length;
  byId("done").value = done;
  byId("export").disabled = marks.size === 0;
  byId("marks-status").textContent = storageWorks
    ? "Marks stay in this browser until you export them."
    : "This browser keeps no marks for this file: export them before you close it.";
}

function goTo(position) {
  pending = null;
  current = Math.min(Math.max(position, 0), samples.length - 1);
  show();
}

// The next sample without a mark, after this one or from the beginning.
function goOn() {
  const after = [...samples.keys()].map((step) => (current + 1 + step) % samples.length);
  const next = after.find((position) => !marks.has(samples[position].id));
  if (next !== undefined) {
    goTo(next);
    return;
  }
  pending = null;
  showMarks();
  byId("sample").hidden = true;
  byId("finished").hidden = false;
  byId("export").focus();
}

// ---- Marks.

function setMark(mark, label) {
  marks.set(sampleNow().id, [mark, label]);
  pending = null;
  saveMarks();
  goOn();
}

function takeBack() {
  marks.delete(sampleNow().id);
  pending = null;
  saveMarks();
  show();
}

function second() {
  const sample = sampleNow();
  if (!data.showSuggestions && pending !== sample && !marks.has(sample.id)) {
    pending = sample;
    showJudgement();
    if (isSame(sample)) openOther();
    return;
  }
  if (isSame(sample)) openOther();
  else setMark("relabel", nameOf(sample.suggested));
}

// ---- Another class.

let matches = [];
let chosen = 0;

function openOther() {
  byId("other").hidden = false;
  byId("other-class").value = "";
  showMatches();
  byId("other-class").focus();
  byId("other").scrollIntoView({ block: "center" });
}

function closeOther() {
  if (byId("other").contains(document.activeElement)) byId("sample").focus();
  byId("other").hidden = true;
}

function showMatches() {
  const typed = byId("other-class").value.trim().toLowerCase();
  const starts = data.classes.filter((name) => visible(name).toLowerCase().startsWith(typed));
  const holds = data.classes.filter((name) => visible(name).toLowerCase().includes(typed) && !starts.includes(name));
  matches = [...starts, ...holds].slice(0, MATCHES);
  chosen = 0;
  byId("other-error").hidden = true;
  drawMatches();
}

function drawMatches() {
  byId("matches").replaceChildren(...matches.map((name, number) => {
    const item = element("li", { role: "option", id: `match-${number}`, textContent: name });
    item.setAttribute("aria-selected", String(number === chosen));
    item.addEventListener("mousedown", (event) => {
      event.preventDefault();
      setMark(...judged(name));
    });
    return item;
  }));
  byId("other-class").setAttribute("aria-expanded", String(matches.length > 0));
  byId("other-class").setAttribute("aria-activedescendant", matches.length ? `match-${chosen}` : "");
}

// Who chooses the given class says that it is right.
function judged(name) {
  return name === nameOf(sampleNow().given) ? ["right", ""] : ["relabel", name];
}

function takeChosen() {
  if (matches.length) {
    setMark(...judged(matches[chosen]));
    return;
  }
  byId("other-error").textContent = visible(`There is no class "${byId("other-class").value}".`);
  byId("other-error").hidden = false;
}

function onOtherKey(event) {
  if (event.key === "Escape") closeOther();
  else if (event.key === "Enter") takeChosen();
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const step = event.key === "ArrowDown" ? 1 : -1;
    chosen = matches.length ? (chosen + step + matches.length) % matches.length : 0;
    drawMatches();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

// ---- Keyboard.

const actions = {
  1: () => setMark("right", ""),
  2: second,
  3: () => setMark("drop", ""),
  r: openOther,
  "?": () => setMark("unsure", ""),
};
const steps = {
  arrowright: () => goTo(current + 1),
  n: () => goTo(current + 1),
  arrowleft: () => goTo(current - 1),
  p: () => goTo(current - 1),
  u: takeBack,
  backspace: takeBack,
  e: () => { if (marks.size) exportMarks(); },
  h: () => { byId("keys").hidden = !byId("keys").hidden; },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input")) return;
  const key = event.key.toLowerCase();
  const finished = !byId("finished").hidden;
  if (pending && (key === "escape" || key === "enter")) {
    if (key === "enter") second();
    else goTo(current);
  } else if (!finished && actions[key]) actions[key]();
  else if (finished && key === "arrowleft") goTo(current);
  else if (steps[key] && !(finished && key !== "e" && key !== "h")) steps[key]();
  else return;
  event.preventDefault();
}

async function importMarks(file) {
  try {
    const known = new Set(samples.map((sample) => sample.id));
    const read = readMarks(await file.text()).filter(([id]) => known.has(id));
    for (const [id, mark] of read) marks.set(id, mark);
    saveMarks();
    goOn();
    byId("marks-status").textContent = `Imported ${plural(read.length, "mark")}.`;
  } catch (error) {
    byId("marks-status").textContent = visible(`${file.name} was not imported: ${error.message}.`);
  }
}

// ---- Begin.

loadMarks();
current = samples.length - 1;
goOn();
showTheme();
for (const button of document.querySelectorAll("[data-key]")) {
  button.addEventListener("click", () => actions[button.dataset.key]());
}
byId("other").addEventListener("submit", (event) => event.preventDefault());
byId("other-class").addEventListener("input", showMatches);
byId("other-class").addEventListener("keydown", onOtherKey);
byId("theme").addEventListener("click", toggleTheme);
byId("export").addEventListener("click", exportMarks);
byId("import").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", (event) => {
  if (event.target.files.length) importMarks(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("keydown", onKey);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
window.addEventListener("storage", (event) => {
  if (event.key !== storageKey) return;
  loadMarks();
  showJudgement();
});
window.addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});
