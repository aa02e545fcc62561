// What a page gains with scripts: charts of its tables, and views that refresh themselves. Everything is there without.

import "htmx.org/dist/htmx.esm.js";
import uPlot from "uplot";

const HEIGHT = 220;
/** Told apart in light and in dark, also by people who see few colours. */
const COLOURS = ["#3b82f6", "#d97706", "#059669", "#c026d3", "#dc2626", "#0891b2", "#65a30d", "#7c3aed"];
/** What lies between two marks of a chart's days, in seconds. */
const DAYS = [1, 2, 7, 14, 28].map((days) => days * 86_400);
const drawn = new Map();

/** A cell's number; nothing is a gap in the line. */
function numberIn(cell) {
  const value = cell.querySelector("data")?.value;
  return value === undefined ? null : Number(value);
}

/** The numbers of a table: its first column is time, its columns of numbers are the series. The last one is their sum. */
function seriesOf(table) {
  const heads = [...table.tHead.rows[0].cells];
  const places = heads.flatMap((head, place) => (head.classList.contains("n") ? [place] : []));
  const rows = [...table.tBodies[0].rows].filter((row) => row.cells.length === heads.length);
  rows.sort((a, b) => a.cells[0].textContent.localeCompare(b.cells[0].textContent));
  const times = rows.map((row) => Date.parse(`${row.cells[0].textContent.trim()}T00:00:00Z`) / 1000);
  const column = (place) => rows.map((row) => numberIn(row.cells[place]));
  return { names: places.map((place) => heads[place].textContent), data: [times, ...places.map(column)] };
}

function draw(figure) {
  const table = document.getElementById(figure.dataset.chart);
  if (table === null) return;
  const { names, data } = seriesOf(table);
  if (data[0].length < 2) return;
  figure.hidden = false;
  const style = getComputedStyle(document.body);
  const axis = { stroke: style.color, grid: { stroke: style.getPropertyValue("--line") } };
  const money = (self, values) => values.map((value) => `$${value}`);
  const series = names.map((label, at) => ({
    label,
    stroke: at === names.length - 1 ? style.color : COLOURS[at % COLOURS.length],
    dash: at === names.length - 1 ? [4, 4] : undefined,
    width: 2,
    value: (self, value) => (value === null ? "" : `$${value}`),
  }));
  const options = {
    width: figure.clientWidth,
    height: HEIGHT,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    series: [{ label: "Day", value: "{YYYY}-{MM}-{DD}" }, ...series],
    axes: [{ ...axis, incrs: DAYS, values: "{YYYY}-{MM}-{DD}", space: 100 }, { ...axis, values: money, size: 70 }],
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
