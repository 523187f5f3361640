"use strict";

function sortValue(row, column, numeric) {
  const cell = row.cells[column];
  if (!numeric) return cell.textContent.trim();
  return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
}

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

function sortRows(body, original, column, numeric, direction) {
  if (!direction) return body.append(...original);
  const keyed = original.map((row) => ({ row, value: sortValue(row, column, numeric) }));
  const missing = ({ value }) => value === null || value === "" || value === "–";
  keyed.sort((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return direction * compare(a.value, b.value);
  });
  body.append(...keyed.map(({ row }) => row));
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  if (original.length < 2) return;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort";
    button.append(...head.childNodes);
    head.append(button);
    const numeric = head.classList.contains("n") || original.every((row) => row.cells[column].dataset.v !== undefined);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")] ?? "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      sortRows(body, original, column, numeric, { ascending: 1, descending: -1 }[next] ?? 0);
    });
  });
}

function makeFilterable(form) {
  const rows = [...form.parentElement.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
  const input = form.querySelector(".words");
  const boxes = [...form.querySelectorAll("select")];
  const count = form.querySelector(".count");

  function filter() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = boxes.filter((box) => box.selectedIndex > 0);
    let shown = 0;
    rows.forEach((row, i) => {
      const fits =
        words.every((word) => texts[i].includes(word)) &&
        chosen.every((box) => row.cells[box.dataset.column].textContent === box.value);
      row.hidden = !fits;
      shown += fits;
    });
    count.textContent = `${shown} of ${rows.length} rows`;
  }

  form.addEventListener("input", filter);
  form.addEventListener("change", filter); // of a select box, which not every browser calls input
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector(".clear").addEventListener("click", () => {
    form.reset();
    filter();
  });
  form.hidden = false;
  filter();
}

/* A tree whose leaves are JSON texts, as YAML. The texts stay as they are: 1.0 must not become 1. */
function toYaml(tree, indent = "") {
  return Object.entries(tree)
    .map(([key, value]) => {
      const name = indent + (/^[A-Za-z_]\w*$/.test(key) ? key : JSON.stringify(key));
      return typeof value === "string" ? `${name}: ${value}\n` : `${name}:\n${toYaml(value, `${indent}  `)}`;
    })
    .join("");
}

/* Configurations: {shared: [[path, value]], differing: [[path, values]], points: {hash: [number of the value, ...]}}, values as
   JSON texts, null where a point lacks the key. */
function makeViewer(viewer, configs) {
  function put(tree, path, text) {
    const place = path.slice(0, -1).reduce((at, key) => (at[key] ??= {}), tree);
    place[path.at(-1)] = text;
  }

  function show() {
    const hash = location.hash.replace(/^#point-/, "");
    if (!location.hash.startsWith("#point-") || !Object.hasOwn(configs.points, hash)) return;
    const own = configs.differing
      .map(([path, values], i) => [path, values[configs.points[hash][i]]])
      .filter(([, text]) => text !== null);
    const tree = {};
    [...configs.shared, ...own].forEach(([path, text]) => put(tree, path, text));
    viewer.querySelector(".hash").textContent = hash;
    viewer.querySelector(".own").textContent = own.map(([path, text]) => `${path.join(".")}: ${text}`).join("\n");
    viewer.querySelector(".whole").textContent = toYaml(tree);
    viewer.hidden = false;
    viewer.open = true;
    viewer.scrollIntoView();
  }

  document.querySelectorAll(".scripted").forEach((note) => (note.hidden = false));
  addEventListener("hashchange", show);
  addEventListener("click", (event) => event.target.closest?.('a[href^="#point-"]') && setTimeout(show)); // the same one again
  show();
}

document.querySelectorAll("table").forEach(makeSortable);
document.querySelectorAll("form.filters").forEach(makeFilterable);
const viewer = document.getElementById("one-point");
if (viewer) makeViewer(viewer, JSON.parse(document.getElementById("configs").textContent));
