// ---- Marks on the page.

function setMark(sample, mark, label) {
  const held = marks.get(sample.id);
  const same = held && held[0] === mark && held[1] === label;
  if (!mark || same) marks.delete(sample.id);
  else marks.set(sample.id, [mark, label]);
  saveMarks();
  const card = cardOf(sample);
  if (card) showMark(card, sample);
}

function describe([mark, label]) {
  if (mark === "relabel") return `relabel to ${label}`;
  return { right: "the label is right", drop: "drop the sample", unsure: "cannot tell" }[mark];
}

function showMarks() {
  const numbers = Object.fromEntries(MARKS.map((mark) => [mark, 0]));
  for (const [mark] of marks.values()) numbers[mark] += 1;
  let text = "No marks yet.";
  if (marks.size) {
    text = `${plural(marks.size, "mark")}: ${MARKS.filter((mark) => mark !== "unsure" || numbers[mark]).map((mark) => `${count(numbers[mark])} ${mark}`).join(", ")}.`;
  }
  if (!storageWorks) text += " This browser keeps no marks for this file: export them before you close it.";
  byId("marks-status").textContent = text;
  byId("export").disabled = marks.size === 0;
  byId("clear-marks").hidden = marks.size === 0;
  byId("marks").classList.toggle("sticky", marks.size > 0);
}

async function importMarks(file) {
  const status = byId("marks-status");
  try {
    const read = readMarks(await file.text());
    for (const [id, mark] of read) marks.set(id, mark);
    saveMarks();
    const known = new Set(samples.map((sample) => sample.id));
    const elsewhere = read.filter(([id]) => !known.has(id)).length;
    render();
    status.textContent += ` Imported ${count(read.length)}.`;
    if (elsewhere) status.textContent += ` ${count(elsewhere)} of them belong to images that are not in this file.`;
  } catch (error) {
    status.textContent = visible(`${file.name} was not imported: ${error.message}.`);
  }
}
