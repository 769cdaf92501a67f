// ---- Marks: a map from id to [mark, label], kept in the browser where it lets us. A page shows them by its showMarks().

const marks = new Map();
const storageKey = `clipaudit-marks-${data.key}`;
let storageWorks = true;
let unsaved = false;

function isMark(value) {
  return Array.isArray(value) && MARKS.includes(value[0]) && typeof value[1] === "string";
}

function loadMarks() {
  marks.clear();
  try {
    const held = JSON.parse(localStorage.getItem(storageKey) || "[]");
    for (const [id, mark] of held) if (typeof id === "string" && isMark(mark)) marks.set(id, mark);
  } catch (error) {
    // No storage, or not what we wrote there: the page begins without marks.
  }
}

function saveMarks() {
  try {
    localStorage.setItem(storageKey, JSON.stringify([...marks]));
    storageWorks = true;
  } catch (error) {
    storageWorks = false;
  }
  unsaved = !storageWorks && marks.size > 0;
  showMarks();
}

// ---- Export and import: RFC 4180, UTF-8, columns id, mark, label. What a spreadsheet would run as a formula gets an
// apostrophe in front, which import and clipaudit apply take away (escape_formula and unescape_formula in text.py).

const FORMULA = /^'*[=+\-@\t\r]/;

function unescapeFormula(field) {
  return field.startsWith("'") && FORMULA.test(field) ? field.slice(1) : field;
}

function quote(text) {
  const field = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]|^\s|\s$/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
}

function toCsv() {
  const rows = [...marks].map(([id, [mark, label]]) => [id, mark, mark === "relabel" ? label : ""]);
  return [["id", "mark", "label"], ...rows].map((row) => row.map(quote).join(",") + "\r\n").join("");
}

function exportMarks() {
  const url = URL.createObjectURL(new Blob([toCsv()], { type: "text/csv" }));
  element("a", { href: url, download: "marks.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  unsaved = false;
}

function parseCsv(text) {
  const rows = [];
  let row = [], field = "", quoted = false;
  const endRow = () => {
    row.push(field);
    if (row.length > 1 || row[0]) rows.push(row);
    row = [];
    field = "";
  };
  for (let at = text.charCodeAt(0) === 0xfeff ? 1 : 0; at < text.length; at += 1) {
    const character = text[at];
    if (quoted) {
      if (character !== '"') field += character;
      else if (text[at + 1] === '"') { field += '"'; at += 1; }
      else quoted = false;
    } else if (character === '"' && !field) quoted = true;
    else if (character === ",") { row.push(field); field = ""; }
    else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") at += 1;
      endRow();
    } else field += character;
  }
  endRow();
  return rows;
}

function readMarks(text) {
  const [header, ...lines] = parseCsv(text);
  const [id, mark, label] = ["id", "mark", "label"].map((name) => (header || []).indexOf(name));
  if (id < 0 || mark < 0 || label < 0) throw new Error("the first line must name the columns id, mark and label");
  const known = new Set(samples.map((sample) => sample.id));
  const idOf = (text) => (known.has(text) ? text : unescapeFormula(text));
  const labelOf = (text) => (data.classes.includes(text) ? text : unescapeFormula(text));
  // A queue.csv may be filled in only in part.
  const rows = lines.map((row, number) => [row, `row ${number + 2}`]).filter(([row]) => row[mark] || row[label]);
  return rows.map(([row, where]) => {
    if (!row[id]) throw new Error(`${where} has no id`);
    if (!MARKS.includes(row[mark])) throw new Error(`${where}: the mark is "${row[mark]}", none of ${MARKS.join(", ")}`);
    const relabel = row[mark] === "relabel";
    const name = relabel ? labelOf(row[label]) : "";
    if (relabel && !data.classes.includes(name)) throw new Error(`${where}: there is no class "${name}"`);
    return [idOf(row[id]), [row[mark], name]];
  });
}
