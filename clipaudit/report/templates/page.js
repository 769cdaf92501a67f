// ---- Dialogs.

const dialog = byId("choose");
let chosenFor = null;

function chooseClass(sample) {
  const names = byId("class-names");
  if (!names.children.length) names.append(...data.classes.map((name) => element("option", { value: visible(name) })));
  chosenFor = sample;
  byId("choose-error").hidden = true;
  byId("choose-class").value = "";
  dialog.showModal();
  byId("choose-class").focus();
}

function submitClass(event) {
  event.preventDefault();
  const typed = byId("choose-class").value;
  const problem = byId("choose-error");
  const name = data.classes.find((known) => known === typed || visible(known) === typed);
  if (name === undefined) {
    problem.textContent = visible(`There is no class "${typed}". Choose one of the list.`);
    problem.hidden = false;
    return;
  }
  const held = marks.get(chosenFor.id);
  if (!held || held[1] !== name) setMark(chosenFor, "relabel", name);
  dialog.close();
  const made = cardOf(chosenFor);
  if (made) made.focus();
}

// ---- Keyboard.

function step(key) {
  if (key === "j" || key === "ArrowRight") return 1;
  if (key === "k" || key === "ArrowLeft") return -1;
  if (key === "ArrowDown") return cardsInARow();
  return key === "ArrowUp" ? -cardsInARow() : 0;
}

function markByKey(key) {
  const sample = shown[current];
  if (key === "u") {
    setMark(sample, null, "");
    return;
  }
  if (key === "r") {
    chooseClass(sample);
    return;
  }
  const mark = { 1: "right", 2: "relabel", 3: "drop", d: "drop", x: "unsure" }[key];
  if (mark === "relabel" && !hasOther(sample)) {
    byId("status").textContent = "No other class is suggested for this image: r lets you choose one, 3 drops it.";
    return;
  }
  const label = mark === "relabel" ? nameOf(sample.suggested) : "";
  // A key never takes a mark back by being pressed twice: that is what u is for.
  const held = marks.get(sample.id);
  if (!held || held[0] !== mark || held[1] !== label) setMark(sample, mark, label);
  goTo(current + 1);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (document.querySelector("dialog[open]")) return;
  const key = event.key;
  const inCards = cards.contains(event.target);
  if (key === "?") byId("help").showModal();
  else if (!shown.length) return;
  else if (key === "j" || key === "k" || (inCards && key.startsWith("Arrow"))) goTo(current + step(key));
  else if (current >= 0 && "123drRDuxX".includes(key) && inCards) markByKey(key.toLowerCase());
  else return;
  event.preventDefault();
}

// ---- Examples in the class sections, drawn when a section opens.

function fillExamples(section) {
  if (!section.open) return;
  for (const list of section.querySelectorAll(".thumbs")) {
    if (list.childElementCount) continue;
    const numbers = data.examples[section.dataset.class][Number(list.dataset.side)];
    list.append(...numbers.map((number) => element("li", {}, picture(samples[number], altOf(samples[number])))));
  }
}

// ---- Copies side by side, and images of odd quality.

function fill(list, numbers) {
  list.append(...numbers.map((number) =>
    element("li", {}, picture(samples[number], `Labelled ${nameOf(samples[number].given)}`))));
}

// ---- Begin.

fillClasses(given, samples.map((sample) => sample.given));
fillClasses(suggested, samples.map((sample) => sample.suggested));
loadMarks();
if (!data.inDoubt) verdict.value = "";
render();
cards.classList.remove("waiting");
document.querySelectorAll("[data-copies]").forEach((list) => fill(list, data.copies[Number(list.dataset.copies)]));
document.querySelectorAll("[data-odd]").forEach((list) => fill(list, data.odd[list.dataset.odd]));
showMarks();
showTheme();
byId("filters").addEventListener("input", render);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("reset").addEventListener("click", resetFilters);
byId("more").addEventListener("click", () => {
  const first = cards.children.length;
  showMore();
  goTo(first);
});
byId("theme").addEventListener("click", toggleTheme);
byId("help-open").addEventListener("click", () => byId("help").showModal());
byId("export").addEventListener("click", exportMarks);
byId("import").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", (event) => {
  if (event.target.files.length) importMarks(event.target.files[0]);
  event.target.value = "";
});
byId("clear-marks").addEventListener("click", () => {
  if (!confirm(`Remove all ${plural(marks.size, "mark")}?`)) return;
  marks.clear();
  saveMarks();
  render();
});
byId("choose-form").addEventListener("submit", submitClass);
byId("choose-cancel").addEventListener("click", () => dialog.close());
for (const section of document.querySelectorAll("details.class")) {
  section.addEventListener("toggle", () => fillExamples(section));
  fillExamples(section);
}
document.addEventListener("click", (event) => {
  const link = event.target.closest("button[data-given], button[data-suggested], button[data-verdict]");
  if (link) openInGallery(link);
});
document.addEventListener("keydown", onKey);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
window.addEventListener("storage", (event) => {
  // The same report in another tab: its marks are ours.
  if (event.key !== storageKey) return;
  loadMarks();
  showMarks();
  shown.slice(0, cards.children.length).forEach((sample, position) => showMark(cards.children[position], sample));
});
window.addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});
