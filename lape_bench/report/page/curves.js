// Learning curves: one panel per quantity of a stage, one line per cell.
const AHEAD = "validation_", SCORE = "validation";

function curvePanels(curves, metric) {
  const panels = new Map();
  for (const { seed, fold, stages } of curves)
    for (const [stage, quantities] of Object.entries(stages))
      for (const [quantity, [epochs, values]] of Object.entries(quantities)) {
        // A validation quantity shares the panel of the train quantity.
        const same = quantity.slice(AHEAD.length), beside = quantity.startsWith(AHEAD) && same in quantities;
        const name = quantity === SCORE ? `${metric} on validation` : words(beside ? same : quantity), title = `${stage}: ${name}`;
        const line = { cell: `seed ${seed}${fold ? `, fold ${fold}` : ""}`, validation: beside, epochs, values };
        if (!panels.has(title)) panels.set(title, []);
        panels.get(title).push(line);
      }
  return [heading("Learning curves"),
    node("p", { class: "about" }, `Over epochs, one line for each of ${plural(curves.length, "cell")}; validation is dashed.`),
    node("div", { class: "panels" }, [...panels].map(([title, lines]) => curvePanel(title, lines)))];
}

function extent(values) {
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

function curvePanel(title, lines) {
  const width = 210, height = 130, margin = { left: 40, right: 8, top: 6, bottom: 22 };
  const finite = lines.flatMap((line) => line.values).filter((value) => value !== null);
  if (!finite.length) return node("figure", {}, node("figcaption", {}, `${title}: no finite value`));
  const [x0, x1] = extent(lines.flatMap((line) => line.epochs)), [y0, y1] = extent(finite);
  const xAt = (value) => margin.left + ((width - margin.left - margin.right) * (value - x0)) / (x1 - x0);
  const yAt = (value) => height - margin.bottom - ((height - margin.top - margin.bottom) * (value - y0)) / (y1 - y0);
  const step = (line, n) => (n && line.values[n - 1] !== null ? "L" : "M"); // after a gap the pen is lifted
  const course = (line) =>
    line.values.map((value, n) => (value === null ? "" : `${step(line, n)}${xAt(line.epochs[n]).toFixed(1)} ${yAt(value).toFixed(1)}`)).join("");
  const say = (line) => `${line.cell}${line.validation ? ", validation" : ""} from ${line.values[0]} to ${line.values.at(-1)}`;
  const look = (line) => ({
    fill: "none", stroke: line.validation ? "var(--c1)" : "var(--c0)", strokeWidth: 1.4, opacity: lines.length > 4 ? 0.6 : 1,
  });
  const label = `${title} over epochs ${x0} to ${x1}: ${lines.slice(0, 12).map(say).join("; ")}`;
  return node("figure", {}, node("figcaption", {}, title),
    drawn("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
      frame(width, height, margin, ticks(x0, x1, 4), ticks(y0, y1, 4), xAt, yAt, brief, (tick) => `${tick}`),
      lines.map((line) =>
        drawn("path", { d: course(line), "stroke-dasharray": line.validation ? "4 3" : null, style: look(line) }, drawn("title", {}, line.cell)))));
}
