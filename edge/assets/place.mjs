// A page that refreshes itself leaves its reader where they are: the row they look at stays at its height, a table stays
// scrolled sideways, and what had the focus has it again.

let place;

/** The row that is first to see, by its link: other rows come above it. */
function firstRow() {
  for (const row of document.querySelectorAll("#parts tbody tr")) {
    const { top } = row.getBoundingClientRect();
    const link = row.querySelector("a[href]");
    if (top >= 0 && link !== null) return { href: link.getAttribute("href"), top };
  }
  return undefined;
}

const rowOf = (href) => document.querySelector(`#parts tbody a[href="${CSS.escape(href)}"]`)?.closest("tr");
const regions = () => [...document.querySelectorAll("#parts .scroll[aria-labelledby]")];
const labelOf = (region) => region.getAttribute("aria-labelledby");

/** How to find again what has the focus. */
function focused() {
  const element = document.activeElement;
  if (element === null || element.closest("#parts") === null) return undefined;
  if (element.id !== "") return `#${CSS.escape(element.id)}`;
  const [name, value] = element.matches("a[href]")
    ? ["href", element.getAttribute("href")]
    : ["aria-labelledby", labelOf(element)];
  return value === null ? undefined : `#parts [${name}="${CSS.escape(value)}"]`;
}

document.addEventListener("htmx:beforeSwap", () => {
  place = {
    // At the top of the page one wants to see what comes.
    row: scrollY > 0 ? firstRow() : undefined,
    sideways: new Map(regions().map((region) => [labelOf(region), region.scrollLeft])),
    focus: focused(),
  };
});

document.addEventListener("htmx:afterSettle", () => {
  if (place === undefined) return;
  for (const region of regions()) region.scrollLeft = place.sideways.get(labelOf(region)) ?? 0;
  if (place.focus !== undefined) document.querySelector(place.focus)?.focus({ preventScroll: true });
  const row = place.row === undefined ? undefined : rowOf(place.row.href);
  if (row !== undefined && row !== null) scrollBy(0, row.getBoundingClientRect().top - place.row.top);
  place = undefined;
});
