// Label curves: one line per system, through its scores on boards that differ only in the number of labels.
const ALIKE = ["task", "data", "protocol", "metric", "manifest_hash", "card_version", "protocol_version", "labels_unit"];

// The chosen entries of all boards of such a group, for its first board; none for the others, or if there is only one.
function overLabels(number, found) {
  const alike = [...found.keys()].filter((other) => ALIKE.every((key) => DATA.boards[other][key] === DATA.boards[number][key]));
  return alike.length > 1 && alike[0] === number ? alike.flatMap((other) => found.get(other)) : [];
}

function labelCurves(entries, metric, board) {
  const of = (entry) => boardOf(entry).labels_amount, systems = new Map();
  for (const entry of entries) systems.set(entry.system, [...(systems.get(entry.system) || []), entry]);
  const say = (line) => `${line[0].system} ${line.map((entry) => `${percent(entry.score, 1)} % at ${boardOf(entry).labels}`).join(", ")}`;
  const curve = (line, xOf, yOf) => drawn("path", { d: `M${line.map((entry) => `${xOf(entry).toFixed(2)} ${yOf(entry).toFixed(2)}`).join("L")}`,
    style: { fill: "none", stroke: color(line[0]), strokeWidth: 1.4, opacity: 0.7 } });
  const amounts = [...new Set(entries.map(of))];
  return overLog(entries, {
    of, name: board.labels_unit, room: 1.4, xTicks: () => amounts, xText: (tick) => `${Number(tick.toPrecision(3))}`, kind: "step",
    lines: (xOf, yOf) => [...systems.values()].map((line) => curve(line, xOf, yOf)),
    label: `${metric} over labels on ${board.task}, ${board.protocol}: ${[...systems.values()].slice(0, 8).map(say).join("; ")}`,
    caption: `${metric} in % over labels, ${INTERVALS}`,
  });
}
