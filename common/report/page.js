"use strict";
// Sorting, filters and the choice of theme. The page is complete without this script.

function cellValue(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value ?? cell.textContent.trim();
}

function compareCells(first, second) {
  if (first === "" || second === "") return (first === "") - (second === "");
  const numbers = [Number(first), Number(second)];
  if (!numbers.some(Number.isNaN)) return numbers[0] - numbers[1];
  return first.localeCompare(second, undefined, { numeric: true });
}

function sortBy(table, heading) {
  const column = heading.cellIndex;
  const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => {
    const values = [cellValue(one, column), cellValue(other, column)];
    // Unknown values come last in both directions.
    return values.includes("") ? compareCells(...values) : sign * compareCells(...values);
  });
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortBy(table, heading));
  }
}

const filters = document.querySelector(".filters");
const boxes = filters ? [...filters.querySelectorAll("input")] : [];

function applyFilters() {
  const off = { backend: new Set(), strategy: new Set(), status: new Set() };
  for (const box of boxes) if (!box.checked) off[box.name].add(box.value);
  for (const element of document.querySelectorAll("main [data-backend], main [data-strategy], main [data-status]")) {
    const hidden = Object.keys(off).some((name) => off[name].has(element.getAttribute(`data-${name}`)));
    element.classList.toggle("filtered", hidden);
  }
  const numbers = (rows) => new Set([...document.querySelectorAll(rows)].map((row) => row.dataset.run)).size;
  const [shown, all] = [numbers("tr[data-run]:not(.filtered)"), numbers("tr[data-run]")];
  filters.querySelector("output").textContent = `${shown} of ${all} runs shown`;
}

if (filters) {
  filters.hidden = false;
  // After a reload the browser may restore the boxes as they were left.
  filters.addEventListener("change", applyFilters);
  applyFilters();
}

const theme = document.querySelector(".theme");
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return (document.documentElement.dataset.theme ?? (prefersDark.matches ? "dark" : "light")) === "dark";
}

function nameTheme() {
  theme.textContent = isDark() ? "Light colours" : "Dark colours";
}

theme.hidden = false;
nameTheme();
prefersDark.addEventListener("change", nameTheme);
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});

// On paper nothing can be unfolded, so print with the marked details open.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details[data-print]:not([open])")];
  for (const element of opened) element.open = true;
});
window.addEventListener("afterprint", () => {
  for (const element of opened) element.open = false;
});
