// One board: its table, a bar for each score, and the text shown on hovering.
const COLUMNS = [
  { key: "rank", name: "rank", of: (e) => (e.rank ? e.rank[0] : Infinity), number: true, when: DATA.entries.some((e) => e.rank) },
  { key: "system", name: "system", of: (e) => e.system.toLowerCase() },
  { key: "score", name: "score %", of: (e) => e.score, number: true },
  { key: "std", name: "±", label: "standard deviation over seeds", of: (e) => e.std ?? -1, number: true },
  { key: "seeds", name: "seeds × folds", of: (e) => e.seeds * e.folds, number: true },
  { key: "parameters", name: "parameters", of: (e) => e.parameters ?? -1, number: true },
  { key: "minutes", name: "minutes", of: (e) => e.minutes, number: true },
].filter((column) => column.when !== false);

function section(number, entries, others) {
  const board = DATA.boards[number];
  const metric = words(board.metric);
  const about = `${board.suite}, ${metric}, manifest ${board.manifest_hash.slice(0, 12)}`;
  const badges = [board.data === "synthetic" ? "synthetic" : null, board.preparation || null];
  const heading = `board-${number}`;
  return node("section", { class: "board", "aria-labelledby": heading },
    node("h2", { id: heading }, titleOf(board), badges.map((badge) => badge && node("span", { class: "badge" }, badge))),
    node("p", { class: "about" }, about), board.notes.map((note) => node("p", { class: "about" }, note)),
    node("div", { class: "sides" }, table(number, entries, metric),
      node("div", {}, scatter(entries, metric, board), others.length ? labelCurves(others, metric, board) : null)));
}

function table(number, entries, metric) {
  const heads = COLUMNS.map((column) => {
    const active = column.key === state.sort;
    const first = ["system", "rank"].includes(column.key) ? "asc" : "desc";
    const order = active ? (state.order === "asc" ? "desc" : "asc") : first;
    const flip = () => change({ sort: column.key, order });
    return node("th", { scope: "col", role: "columnheader", class: column.number ? "number" : null,
      "aria-sort": active ? (state.order === "asc" ? "ascending" : "descending") : "none" },
      node("button", { type: "button", class: "sort", id: `sort-${number}-${column.key}`, "aria-label": column.label, onclick: flip },
        column.key === "score" ? `${metric} %` : column.name));
  });
  const scale = scaleOf(entries);
  // Roles are explicit, since a table that is shown as cards on a phone would lose them.
  return node("table", { role: "table" },
    node("caption", { class: "hidden" }, `${titleOf(DATA.boards[number])}, bars from ${scale[0]} to ${scale[1]} %`),
    node("thead", { role: "rowgroup" }, node("tr", { role: "row" }, heads)),
    node("tbody", { role: "rowgroup" }, entries.map((entry) => row(entry, scale))));
}

function scaleOf(entries) {
  const seeds = entries.flatMap((entry) => entry.by_seed.map(([, score]) => 100 * score));
  const low = Math.min(...seeds, ...entries.map((entry) => 100 * (entry.score - (entry.interval || 0))));
  const high = Math.max(...seeds, ...entries.map((entry) => 100 * (entry.score + (entry.interval || 0))));
  const step = high - low < 20 ? 5 : 10;
  const from = Math.max(0, Math.floor(low / step) * step), to = Math.min(100, Math.ceil(high / step) * step);
  return to > from ? [from, to] : [Math.max(0, from - step), Math.min(100, to + step)];
}

function row(entry, scale) {
  const described = { onmouseenter: (event) => mark(entry, event), onmouseleave: unmark };
  const cells = {
    rank: entry.rank ? (entry.rank[0] === entry.rank[1] ? `${entry.rank[0]}` : `${entry.rank[0]} to ${entry.rank[1]}`) : "",
    std: percent(entry.std, 1), seeds: `${entry.seeds} × ${folds(entry)}`,
    parameters: count(entry.parameters), minutes: entry.minutes.toFixed(1),
  };
  return node("tr", { role: "row", id: `row-${entry.id}`, onclick: () => openRecord(entry), ...described }, COLUMNS.map((column) => {
    if (column.key === "system") return node("td", { role: "cell", class: "name" }, systemButton(entry));
    if (column.key === "score")
      return node("td", { role: "cell", class: "bars number" }, node("div", { class: "score" }, bar(entry, scale), node("b", {}, percent(entry.score, 1))));
    return node("td", { role: "cell", class: "number", "data-label": column.name }, cells[column.key]);
  }));
}

function nameParts(entry) {
  const cut = entry.system.search(/ [([]/); // start of settings, version or size
  return cut < 0 ? [entry.system, ""] : [entry.system.slice(0, cut), entry.system.slice(cut)];
}
function systemButton(entry) {
  const [name, rest] = nameParts(entry);
  return node("button", { type: "button", class: "system", id: `open-${entry.id}`, "aria-haspopup": "dialog", "aria-describedby": "tip",
    onclick: (event) => { event.stopPropagation(); openRecord(entry); },
    onfocus: (event) => mark(entry, event), onblur: unmark },
    glyph(entry), node("span", {}, name, rest ? node("small", {}, rest) : null,
      entry.reference ? node("small", {}, entry.card === null ? " reference" : " submission") : null));
}

function bar(entry, [from, to]) {
  const at = (value) => `${Math.min(100, Math.max(0, (100 * (100 * value - from)) / (to - from)))}%`;
  const children = entry.by_seed.length > 1 ? entry.by_seed.map(([, score]) => node("i", { class: "seed", style: { left: at(score) } })) : [];
  if (entry.interval !== null) {
    const low = at(entry.score - entry.interval), high = at(entry.score + entry.interval);
    children.unshift(node("i", { class: "interval", style: { left: low, width: `${parseFloat(high) - parseFloat(low)}%` } }));
  }
  return node("div", { class: "bar", "aria-hidden": "true" }, children, node("i", { class: "mean", style: { left: at(entry.score) } }));
}

// The 95 % interval of a score in words, and what it covers.
function intervalText(entry) {
  const unit = entry.grouped ? "groups of clips" : "clips";
  const over = { "groups and seeds": `over ${unit} and seeds`, groups: `over ${unit}, of this run alone`, seeds: "over seeds alone, on these test clips" };
  const low = Math.max(0, entry.score - entry.interval), high = Math.min(1, entry.score + entry.interval);
  return `95 % interval ${percent(low, 1)} to ${percent(high, 1)} %, ${over[entry.interval_over]}`;
}

// The text that is shown if a system is hovered or focused.
function told(entry) {
  const lines = [`${words(boardOf(entry).metric)} ${percent(entry.score, 1)} %` + (entry.std === null ? "" : ` ± ${percent(entry.std, 1)} over seeds`)];
  if (entry.interval !== null)
    lines.push(intervalText(entry));
  else lines.push(`no interval: ${entry.complete ? (entry.groups === 1 ? "all test clips are of one group" : entry.seeds > 1 ? "nothing varies" : "one seed") : "no seed has every fold"}`);
  const seeds = entry.by_seed.map(([seed, score]) => `${seed}: ${percent(score, 1)}`);
  lines.push(`seeds ${seeds.slice(0, 12).join(", ")}${seeds.length > 12 ? ", ..." : ""}`);
  lines.push(`${folds(entry)} fold${entry.folds_of_task === 1 ? "" : "s"}, ${count(entry.parameters)} parameters, ${entry.minutes.toFixed(1)} minutes per cell`);
  return lines.join("\n");
}
function mark(entry, event) {
  unmark();
  for (const id of ["row", "point", "step"].map((kind) => `${kind}-${entry.id}`)) if (byId(id)) byId(id).classList.add("marked");
  const tip = byId("tip"), box = event.currentTarget.getBoundingClientRect();
  tip.textContent = `${entry.system}\n${told(entry)}`;
  tip.hidden = false;
  const left = event.type === "focus" ? box.left : event.clientX + 14;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
  const below = box.bottom + 6;
  tip.style.top = `${below + tip.offsetHeight > innerHeight ? Math.max(4, box.top - tip.offsetHeight - 6) : below}px`;
}
function hideTip() { byId("tip").hidden = true; }
function unmark() {
  hideTip();
  for (const each of document.querySelectorAll(".marked")) each.classList.remove("marked");
}
