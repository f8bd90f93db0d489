// The parts of the page: data, elements, words and markers.
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const COLORS = 8;
const SVG = "http://www.w3.org/2000/svg";

// Elements: node("p", {class: "x"}, "text", child); text is always set as text, never as markup.
function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const node = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const drawn = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

// Writes a share like every report: halves are rounded up, after digits from binary fractions are removed.
function percent(value, digits = 2) {
  if (value === null) return "";
  const scale = 10 ** digits;
  return (Math.round(Number((100 * scale * value).toFixed(8))) / scale).toFixed(digits);
}
const count = (value) => (value === null ? "unknown" : value.toLocaleString("en"));
const brief = (value) => Number(value.toPrecision(3)).toLocaleString("en", { notation: "compact" });
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const words = (name) => name.replaceAll("_", " ");
const folds = (entry) => (entry.complete ? `${entry.folds}` : `${entry.folds} of ${entry.folds_of_task}`);
const color = (entry) => `var(--c${entry.look % COLORS})`; // --c0 to --c7 are in the style sheet
const boardOf = (entry) => DATA.boards[entry.board];
const titleOf = (board) => `${board.task}, ${board.protocol}, ${board.labels_text}`;

// The seven markers of the figures, in their order, about (0, 0), 5 units in reach.
const SHAPES = [
  "M-4.6 0A4.6 4.6 0 1 1 4.6 0A4.6 4.6 0 1 1 -4.6 0Z", "M-4.2 -4.2H4.2V4.2H-4.2Z", "M0 -5L5 4.2H-5Z", "M0 -5.4L5.4 0L0 5.4L-5.4 0Z",
  "M0 5L5 -4.2H-5Z", "M-1.8 -5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8Z",
  "M-2.4 -5L0 -2.5L2.4 -5L5 -2.4L2.5 0L5 2.4L2.4 5L0 2.5L-2.4 5L-5 2.4L-2.5 0L-5 -2.4Z",
];
const shape = (entry, attributes) =>
  drawn("path", { d: SHAPES[entry.look % SHAPES.length], class: "glyph-shape", style: { fill: color(entry), stroke: color(entry) }, ...attributes });
const glyph = (entry) => drawn("svg", { class: "glyph", viewBox: "-6 -6 12 12", "aria-hidden": "true" }, shape(entry));
