// The confusion matrix: a table that can be read entry by entry. With many classes it is a picture and a list of the worst.
const MANY_CLASSES = 40, NUMBERED_CLASSES = 14, WORST = 15;

function confusion(entry) {
  const details = entry.details;
  const classes = DATA.classes[details.classes], flat = details.confusion, size = classes.length;
  const counts = new Map(), sums = new Array(size).fill(0), off = [];
  for (let n = 0; n < flat.length; n += 3) {
    counts.set(flat[n] * size + flat[n + 1], flat[n + 2]);
    sums[flat[n]] += flat[n + 2];
    if (flat[n] !== flat[n + 1]) off.push([flat[n], flat[n + 1], flat[n + 2]]);
  }
  const at = (i, j) => counts.get(i * size + j) || 0;
  const share = (i, j) => (sums[i] ? at(i, j) / sums[i] : 0);
  const say = (i, j) => `${classes[i]} taken for ${classes[j]}: ${count(at(i, j))} of ${count(sums[i])} (${percent(share(i, j), 1)} %)`;
  const readout = node("p", { class: "readout", "aria-live": "polite" }, "Point at an entry, or move with the arrow keys, to read it.");
  const show = (i, j) => { readout.textContent = say(i, j); };
  const worst = off.sort((a, b) => b[2] - a[2]).slice(0, WORST);
  const list = node("ol", {}, worst.map(([i, j]) => node("li", {}, say(i, j))));
  const picture = size > MANY_CLASSES ? largeMatrix(size, share, show) : smallMatrix(classes, at, share, say, show);
  return [heading("Confusion matrix"),
    node("p", { class: "about" }, `Clips in the test sets of ${behind(entry)}; ${size} classes: rows are true classes, `,
      "columns the predicted classes, in percent of the row."),
    node("div", { class: "scroll" }, picture), readout,
    worst.length ? node("details", {}, node("summary", {}, "Most often confused, in words"), list) : node("p", {}, "No clip was taken for another class.")];
}
const heat = (share) => `color-mix(in srgb, var(--heat) ${percent(share, 1)}%, var(--wash))`;
function arrows(event, size, place, move) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!steps) return;
  event.preventDefault();
  move(...place.map((each, n) => Math.min(size - 1, Math.max(0, each + steps[n]))));
}
function smallMatrix(classes, at, share, say, show) {
  const size = classes.length, cells = [];
  const focus = (i, j) => cells[i][j].focus();
  const body = classes.map((name, i) => {
    cells.push(classes.map((_, j) => node("td", { tabindex: i || j ? -1 : 0, "aria-label": say(i, j),
      onmouseenter: () => show(i, j), onfocus: () => show(i, j),
      onkeydown: (event) => arrows(event, size, [i, j], focus),
      style: { background: heat(share(i, j)) } }, at(i, j) ? percent(share(i, j), 0) : "")));
    return node("tr", {}, node("th", { scope: "row" }, name), cells[i]);
  });
  return node("table", { class: size > NUMBERED_CLASSES ? "matrix many" : "matrix" },
    node("caption", { class: "hidden" }, "Confusion matrix, percent of each true class"),
    node("thead", {}, node("tr", {}, node("td", { style: { background: "none" } }), classes.map((name) => node("th", { scope: "col" }, name)))),
    node("tbody", {}, body));
}
function largeMatrix(size, share, show) {
  const label = `Confusion matrix of ${size} classes; the arrow keys read its entries, and the list below names the largest`;
  const canvas = node("canvas", { width: size, height: size, tabindex: 0, role: "img", "aria-label": label });
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  let place = [0, 0];
  for (let i = 0; i < size; i += 1)
    for (let j = 0; j < size; j += 1) image.data.set([40, 120, 220, Math.round(255 * Math.sqrt(share(i, j)))], 4 * (i * size + j));
  context.putImageData(image, 0, 0);
  const move = (i, j) => { place = [i, j]; show(i, j); };
  canvas.addEventListener("mousemove", (event) => {
    const box = canvas.getBoundingClientRect(), inside = (value) => Math.min(size - 1, Math.max(0, Math.floor(value * size)));
    move(inside((event.clientY - box.top) / box.height), inside((event.clientX - box.left) / box.width));
  });
  canvas.addEventListener("keydown", (event) => arrows(event, size, place, move));
  return canvas;
}
