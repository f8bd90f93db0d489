// Axes, and a board's scatter: score against cost.
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

function scatter(entries, metric, board) {
  const cost = state.cost === "minutes" ? "minutes" : "parameters";
  const width = 330, height = 230, margin = { left: 40, right: 10, top: 8, bottom: 40 };
  const least = cost === "minutes" ? 0.01 : 1;
  const costs = entries.map((entry) => Math.max(least, entry[cost]));
  const reach = Math.max(2, (Math.max(...costs) / Math.min(...costs)) ** 0.12);
  const low = Math.min(...costs) / reach, high = Math.max(...costs) * reach, [from, to] = scaleOf(entries);
  const xAt = (value) => margin.left + ((width - margin.left - margin.right) * Math.log(value / low)) / Math.log(high / low);
  const yAt = (value) => height - margin.bottom - ((height - margin.top - margin.bottom) * (value - from)) / (to - from);
  // Systems of one cost stand side by side, or their intervals would cover each other.
  const same = new Map();
  entries.forEach((entry, n) => { const key = Math.round(xAt(costs[n]) / 8); same.set(key, [...(same.get(key) || []), n]); });
  const points = [...same.values()].flatMap((group) => group.map((n, place) => {
    const entry = entries[n], score = 100 * entry.score, half = 100 * (entry.interval || 0);
    const x = xAt(costs[n]) + (place - (group.length - 1) / 2) * Math.min(10, 90 / group.length);
    const ends = { x1: x, x2: x, y1: yAt(Math.max(from, score - half)), y2: yAt(Math.min(to, score + half)) };
    return drawn("g", { class: "point", id: `point-${entry.id}`, onclick: () => openRecord(entry),
      onmouseenter: (event) => mark(entry, event), onmouseleave: unmark },
      half ? drawn("line", { ...ends, style: { stroke: colour(entry), strokeWidth: 1.5 } }) : null,
      shape(entry, { transform: `translate(${x.toFixed(1)} ${yAt(score).toFixed(1)})` }));
  }));
  const name = cost === "minutes" ? "minutes of learning a cell" : "parameters";
  const say = (entry) => `${entry.system} ${percent(entry.score)} % at ${brief(entry[cost])}`;
  const label = `${metric} against ${name} on ${titleOf(board)}: ${entries.slice(0, 8).map(say).join("; ")}`;
  return node("figure", {}, drawn("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    frame(width, height, margin, logTicks(low, high), ticks(from, to, 5), xAt, yAt, brief, (tick) => `${tick}`), points,
    drawn("text", { x: (width + margin.left) / 2, y: height - 6, "text-anchor": "middle" }, name)),
  node("figcaption", {}, `${metric} in %, with 95 % intervals`));
}
