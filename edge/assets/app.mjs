// What a page gains with scripts: charts of its tables, and views that refresh themselves. Everything is there without.

import "htmx.org/dist/htmx.esm.js";
import uPlot from "uplot";

import "./place.mjs";

const HEIGHT = 220;
/** Told apart in light and in dark, also by people who see few colours. */
const COLOURS = ["#3b82f6", "#d97706", "#059669", "#c026d3", "#dc2626", "#0891b2", "#65a30d", "#7c3aed"];
/** What lies between two marks of a chart's days, in seconds. */
const DAYS = [1, 2, 7, 14, 28].map((days) => days * 86_400);
const drawn = new Map();

/** The numbers of a table: its first column is time, its columns of numbers are the series. What has no number is `none`. */
function seriesOf(table, none) {
  const heads = [...table.tHead.rows[0].cells];
  const places = heads.flatMap((head, place) => (head.classList.contains("n") ? [place] : []));
  const rows = [...table.tBodies[0].rows].filter((row) => row.cells.length === heads.length);
  rows.sort((a, b) => a.cells[0].textContent.localeCompare(b.cells[0].textContent));
  const times = rows.map((row) => Date.parse(`${row.cells[0].textContent.trim()}T00:00:00Z`) / 1000);
  const number = (cell) => (cell === null ? none : Number(cell.value));
  const column = (place) => rows.map((row) => number(row.cells[place].querySelector("data")));
  return { names: places.map((place) => heads[place].textContent), data: [times, ...places.map(column)] };
}

function draw(figure) {
  const table = document.getElementById(figure.dataset.chart);
  if (table === null) return;
  // Money adds up, and its last column is the sum; what has another unit does not.
  const unit = figure.dataset.unit;
  const sums = unit === undefined;
  const { names, data } = seriesOf(table, sums ? 0 : null);
  if (data[0].length < 2) return;
  figure.hidden = false;
  const style = getComputedStyle(document.body);
  const axis = { stroke: style.color, grid: { stroke: style.getPropertyValue("--line") } };
  const shown = (value) => (sums || unit === "USD" ? `$${value}` : unit === "ms" ? `${value} ms` : `${value}`);
  const isSum = (at) => sums && at === names.length - 1;
  const series = names.map((label, at) => ({
    label,
    stroke: isSum(at) ? style.color : COLOURS[at % COLOURS.length],
    dash: isSum(at) ? [4, 4] : undefined,
    width: 2,
    value: (self, value) => (value === null ? "" : shown(value)),
  }));
  const options = {
    width: figure.clientWidth,
    height: HEIGHT,
    // The last day's name is wider than half its place.
    padding: [null, 40, null, null],
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    series: [{ label: "Day", value: "{YYYY}-{MM}-{DD}" }, ...series],
    axes: [{ ...axis, incrs: DAYS, values: "{YYYY}-{MM}-{DD}", space: 100 }, { ...axis, values: (self, values) => values.map(shown), size: 70 }],
  };
  drawn.get(figure)?.destroy();
  const chart = new uPlot(options, data, figure);
  // The table below says the same in words.
  chart.root.setAttribute("aria-hidden", "true");
  drawn.set(figure, chart);
}

function drawAll() {
  for (const figure of drawn.keys()) if (!figure.isConnected) drawn.delete(figure);
  for (const figure of document.querySelectorAll("figure[data-chart]")) draw(figure);
}

let waiting;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
document.addEventListener("htmx:afterSettle", drawAll);
drawAll();
