// Axes, scores over a logarithmic axis, and a board's scatter: score against cost.
function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) found.push(Number((n * step).toPrecision(6)));
  return found;
}
function logTicks(low, high) {
  const wide = Math.log10(high / low) > 2.5, found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
    for (const step of wide ? [1] : [1, 2, 5]) found.push(step * 10 ** power);
  const inside = found.filter((tick) => tick >= low && tick <= high);
  return inside.filter((_, n) => n % Math.ceil(inside.length / 6) === 0);
}
function frame(width, height, margin, xs, ys, xAt, yAt, xText, yText) {
  const bottom = height - margin.bottom, right = width - margin.right;
  return [
    ys.map((tick) => [drawn("line", { class: "axis", x1: margin.left, x2: right, y1: yAt(tick), y2: yAt(tick) }),
      drawn("text", { x: margin.left - 6, y: yAt(tick) + 4, "text-anchor": "end" }, yText(tick))]),
    xs.map((tick) => [drawn("line", { class: "axis", x1: xAt(tick), x2: xAt(tick), y1: bottom, y2: bottom + 4 }),
      drawn("text", { x: xAt(tick), y: bottom + 16, "text-anchor": "middle" }, xText(tick))]),
    drawn("path", { class: "axis", d: `M${margin.left} ${margin.top}V${bottom}H${right}` }),
  ].flat(3);
}

// Approximate width of a marker in the units of a plot.
const MARKER = 10;
const INTERVALS = "with 95 % intervals; the notes of the board say what they cover, and intervals of close points are shifted";

// Markers are at their values. Intervals of close markers are fanned out within the marker, so that they do not overlap.
function points(entries, xOf, yAt, [from, to], kind) {
  // Sorted by place, then by score, and not like the table. This is also the drawing order.
  const placed = entries.map((entry) => ({ entry, x: xOf(entry) }));
  placed.sort((a, b) => a.x - b.x || a.entry.score - b.entry.score || a.entry.look - b.entry.look);
  return placed.map((point) => {
    const { entry, x } = point, score = 100 * entry.score, half = 100 * (entry.interval || 0);
    const near = placed.filter((other) => other.entry.interval && Math.abs(other.x - x) < MARKER);
    const beside = x + (near.length > 1 ? MARKER * (near.indexOf(point) / (near.length - 1) - 0.5) : 0);
    const ends = { x1: beside, x2: beside, y1: yAt(Math.max(from, score - half)), y2: yAt(Math.min(to, score + half)) };
    return drawn("g", { class: "point", id: `${kind}-${entry.id}`, onclick: () => openRecord(entry),
      onmouseenter: (event) => mark(entry, event), onmouseleave: unmark },
      half ? drawn("line", { ...ends, style: { stroke: color(entry), strokeWidth: 1.5 } }) : null,
      shape(entry, { transform: `translate(${x.toFixed(2)} ${yAt(score).toFixed(2)})` }));
  });
}

// Scores of entries over the values of `of`, on an axis that exceeds the values by the factor `room`.
function overLog(entries, { of, room, xTicks, xText, name, label, caption, kind, lines = () => [] }) {
  const width = 330, height = 230, margin = { left: 40, right: 10, top: 8, bottom: 40 };
  const values = entries.map(of), low = Math.min(...values) / room, high = Math.max(...values) * room, scale = scaleOf(entries), [from, to] = scale;
  const xAt = (value) => margin.left + ((width - margin.left - margin.right) * Math.log(value / low)) / Math.log(high / low);
  const yAt = (value) => height - margin.bottom - ((height - margin.top - margin.bottom) * (value - from)) / (to - from);
  const xOf = (entry) => xAt(of(entry));
  return node("figure", {}, drawn("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    frame(width, height, margin, xTicks(low, high), ticks(from, to, 5), xAt, yAt, xText, (tick) => `${tick}`),
    lines(xOf, (entry) => yAt(100 * entry.score)), points(entries, xOf, yAt, scale, kind),
    drawn("text", { x: (width + margin.left) / 2, y: height - 6, "text-anchor": "middle" }, name)),
  node("figcaption", {}, caption));
}

function scatter(all, metric, board) {
  const entries = all.filter((entry) => entry[state.cost] !== null), unknown = all.length - entries.length;
  if (!entries.length) return null;
  const cost = state.cost, name = COSTS[cost], least = cost === "minutes" ? 0.001 : 1; // zero has no logarithm
  const of = (entry) => Math.max(least, entry[cost]), costs = entries.map(of);
  const say = (entry) => `${entry.system} ${percent(entry.score, 1)} % at ${brief(entry[cost])}`;
  const below = entries.some((entry) => entry[cost] < least) ? `; fewer ${cost} than ${least} are drawn there` : "";
  return overLog(entries, {
    of, name, room: Math.max(2, (Math.max(...costs) / Math.min(...costs)) ** 0.12), xTicks: logTicks, xText: brief, kind: "point",
    label: `${metric} against ${name} on ${titleOf(board)}: ${entries.slice(0, 8).map(say).join("; ")}`,
    caption: `${metric} in %, ${INTERVALS}${below}${unknown ? `; ${name} unknown of ${plural(unknown, "system")}` : ""}`,
  });
}
