"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8, DEFAULTS = { suite: "", task: "", protocol: "", labels: "", data: "", find: "", sort: "score", order: "desc", cost: "parameters", open: "" };
const FILTERS = { suite: "Suite", task: "Task", protocol: "Protocol", labels: "Labels", data: "Data" };
const BOARDS_AT_ONCE = 20; // the rest follows in slices, so that typing never waits for thousands of rows
const MANY_CLASSES = 40, NUMBERED_CLASSES = 14, WORST = 15;
let state = { ...DEFAULTS }, rest = 0;

// Elements: node("p", {class: "x"}, "text", child); text is always set as text, never as markup.
function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const node = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const drawn = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

const percent = (value, digits = 2) => (value === null ? "" : (100 * value).toFixed(digits));
const count = (value) => value.toLocaleString("en");
const brief = (value) => Number(value.toPrecision(3)).toLocaleString("en", { notation: "compact" });
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;
const words = (name) => name.replaceAll("_", " ");
const shares = (board) => `${Number((100 * board.label_fraction).toPrecision(3))} %`;
const folds = (entry) => (entry.complete ? `${entry.folds}` : `${entry.folds} of ${entry.folds_of_task}`);
const colour = (entry) => `var(--c${entry.look % COLOURS})`;
const boardOf = (entry) => DATA.boards[entry.board];
const titleOf = (board) => `${board.task}, ${board.protocol}, ${board.label_fraction < 1 ? `${shares(board)} of labels` : "all labels"}`;

// The seven markers of the figures, in their order, about (0, 0), 5 units in reach.
const SHAPES = [
  "M-4.6 0A4.6 4.6 0 1 1 4.6 0A4.6 4.6 0 1 1 -4.6 0Z", "M-4.2 -4.2H4.2V4.2H-4.2Z", "M0 -5L5 4.2H-5Z", "M0 -5.4L5.4 0L0 5.4L-5.4 0Z",
  "M0 5L5 -4.2H-5Z", "M-1.8 -5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8Z",
  "M-2.4 -5L0 -2.5L2.4 -5L5 -2.4L2.5 0L5 2.4L2.4 5L0 2.5L-2.4 5L-5 2.4L-2.5 0L-5 -2.4Z",
];
const shape = (entry, attributes) =>
  drawn("path", { d: SHAPES[entry.look % SHAPES.length], class: "glyph-shape", style: { fill: colour(entry) }, ...attributes });
const glyph = (entry) => drawn("svg", { class: "glyph", viewBox: "-6 -6 12 12", "aria-hidden": "true" }, shape(entry));

const COLUMNS = [
  { key: "rank", name: "rank", of: (e) => (e.rank ? e.rank[0] : Infinity), number: true, when: DATA.entries.some((e) => e.rank) },
  { key: "system", name: "system", of: (e) => e.system.toLowerCase() },
  { key: "score", name: "score %", of: (e) => e.score, number: true },
  { key: "deviation", name: "±", label: "deviation over seeds", of: (e) => e.deviation ?? -1, number: true },
  { key: "seeds", name: "seeds × folds", of: (e) => e.seeds * e.folds, number: true },
  { key: "parameters", name: "parameters", of: (e) => e.parameters, number: true },
  { key: "minutes", name: "minutes", of: (e) => e.minutes, number: true },
].filter((column) => column.when !== false);

// State, and the address that holds it.
function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = { ...DEFAULTS };
  for (const key of Object.keys(DEFAULTS)) if (given.has(key)) state[key] = given.get(key);
  if (!COLUMNS.some((column) => column.key === state.sort)) state.sort = DEFAULTS.sort;
}
function writeState() {
  const told = new URLSearchParams();
  for (const key of Object.keys(DEFAULTS)) if (state[key] !== DEFAULTS[key]) told.set(key, state[key]);
  const text = told.toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}
function change(values) {
  Object.assign(state, values);
  writeState();
  render();
}

function openRecord(entry) {
  state.open = entry.id;
  writeState();
  showDrawer();
}

const values = {
  suite: (board) => board.suite, task: (board) => board.task, protocol: (board) => board.protocol, labels: shares, data: (board) => board.data,
};
function buildFilters() {
  const form = byId("filters");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const [key, name] of Object.entries(FILTERS)) {
    const options = [...new Set(DATA.boards.map(values[key]))];
    options.sort(key === "labels" ? (a, b) => parseFloat(a) - parseFloat(b) : undefined);
    const select = node("select", { id: `filter-${key}`, onchange: (event) => change({ [key]: event.target.value }) },
      node("option", { value: "" }, "all"), options.map((option) => node("option", { value: option }, option)));
    form.append(node("label", {}, name, select));
  }
  form.append(
    node("label", {}, "Figure", node("select", { id: "filter-cost", onchange: (event) => change({ cost: event.target.value }) },
      node("option", { value: "parameters" }, "by parameters"), node("option", { value: "minutes" }, "by minutes"))),
    node("label", { class: "wide" }, "Systems", node("input", { id: "filter-find", type: "search", placeholder: "part of a name",
      autocomplete: "off", oninput: (event) => change({ find: event.target.value }) })));
}
function showFilters() {
  for (const key of [...Object.keys(FILTERS), "cost", "find"]) {
    const control = byId(`filter-${key}`);
    if (control.value !== state[key]) control.value = state[key];
  }
}

function chosen() {
  const found = new Map();
  const find = state.find.trim().toLowerCase();
  for (const entry of DATA.entries) {
    const board = boardOf(entry);
    if (Object.keys(FILTERS).every((key) => !state[key] || values[key](board) === state[key]) && entry.system.toLowerCase().includes(find))
      found.set(entry.board, [...(found.get(entry.board) || []), entry]);
  }
  const column = COLUMNS.find((each) => each.key === state.sort);
  const sign = state.order === "asc" ? 1 : -1;
  const compare = (a, b) => (column.of(a) < column.of(b) ? -sign : column.of(a) > column.of(b) ? sign : b.score - a.score);
  for (const entries of found.values()) entries.sort(compare);
  return found;
}

function render() {
  showFilters();
  hideTip();
  const focused = document.activeElement && document.activeElement.id;
  const found = chosen();
  const systems = [...found.values()].reduce((sum, entries) => sum + entries.length, 0);
  byId("count").textContent = `${plural(found.size, "board")}, ${plural(systems, "score")}. A row opens the record.`;
  const boards = [...found];
  const draw = (slice) => slice.map(([number, entries]) => section(number, entries));
  byId("boards").replaceChildren(...draw(boards.slice(0, BOARDS_AT_ONCE)));
  clearTimeout(rest);
  const follow = (from) => {
    if (from >= boards.length) return;
    byId("boards").append(...draw(boards.slice(from, from + BOARDS_AT_ONCE)));
    rest = setTimeout(follow, 0, from + BOARDS_AT_ONCE);
  };
  rest = setTimeout(follow, 0, BOARDS_AT_ONCE);
  if (!found.size)
    byId("boards").append(node("p", {}, "No board has that. ",
      node("button", { type: "button", class: "clear", onclick: () => change({ ...DEFAULTS }) }, "Show all")));
  if (focused && byId(focused)) byId(focused).focus();
  showDrawer();
}

function section(number, entries) {
  const board = DATA.boards[number];
  const metric = words(board.metric);
  const about = `${board.suite}, ${metric}, manifest ${board.manifest.slice(0, 12)}`;
  const badges = [board.data === "synthetic" ? "synthetic" : null, board.several ? `manifest ${board.manifest.slice(0, 6)}` : null];
  const heading = `board-${number}`;
  return node("section", { class: "board", "aria-labelledby": heading },
    node("h2", { id: heading }, titleOf(board), badges.map((badge) => badge && node("span", { class: "badge" }, badge))),
    node("p", { class: "about" }, about),
    node("div", { class: "sides" }, table(number, entries, metric), scatter(entries, metric, board)));
}

function table(number, entries, metric) {
  const heads = COLUMNS.map((column) => {
    const active = column.key === state.sort;
    const flip = () => change({ sort: column.key, order: active ? (state.order === "asc" ? "desc" : "asc") : ["system", "rank"].includes(column.key) ? "asc" : "desc" });
    return node("th", { scope: "col", role: "columnheader", class: column.number ? "number" : null,
      "aria-sort": active ? (state.order === "asc" ? "ascending" : "descending") : "none" },
      node("button", { type: "button", id: `sort-${number}-${column.key}`, "aria-label": column.label, onclick: flip },
        column.key === "score" ? `${metric} %` : column.name));
  });
  const scale = scaleOf(entries);
  // Roles are said outright: as cards on a phone, a table would lose them.
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
    deviation: percent(entry.deviation), seeds: `${entry.seeds} × ${folds(entry)}`,
    parameters: count(entry.parameters), minutes: entry.minutes.toFixed(1),
  };
  return node("tr", { role: "row", id: `row-${entry.id}`, onclick: () => openRecord(entry), ...described }, COLUMNS.map((column) => {
    if (column.key === "system") return node("td", { role: "cell", class: "name" }, systemButton(entry));
    if (column.key === "score") return node("td", { role: "cell", class: "bars number" }, node("div", { class: "score" }, bar(entry, scale), node("b", {}, percent(entry.score))));
    return node("td", { role: "cell", class: "number", "data-label": column.name }, cells[column.key]);
  }));
}

function nameParts(entry) {
  const cut = entry.system.indexOf(" (");
  const version = entry.version ? ` version ${entry.version}` : "";
  if (cut < 0) return [entry.system, version];
  return [entry.system.slice(0, cut), version + entry.system.slice(cut)];
}
function systemButton(entry) {
  const [name, rest] = nameParts(entry);
  return node("button", { type: "button", class: "system", id: `open-${entry.id}`, "aria-haspopup": "dialog", "aria-describedby": "tip",
    onclick: (event) => { event.stopPropagation(); openRecord(entry); },
    onfocus: (event) => mark(entry, event), onblur: unmark },
    glyph(entry), node("span", {}, name, rest ? node("small", {}, rest) : null));
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

// What hovering or focusing a system tells.
function told(entry) {
  const lines = [`${words(boardOf(entry).metric)} ${percent(entry.score)} %` + (entry.deviation === null ? "" : ` ± ${percent(entry.deviation)}`)];
  if (entry.interval !== null)
    lines.push(`95 % interval ${percent(Math.max(0, entry.score - entry.interval))} to ${percent(Math.min(1, entry.score + entry.interval))} %`);
  else lines.push("one seed: no deviation, no interval");
  const seeds = entry.by_seed.map(([seed, score]) => `${seed}: ${percent(score)}`);
  lines.push(`seeds ${seeds.slice(0, 12).join(", ")}${seeds.length > 12 ? ", ..." : ""}`);
  lines.push(`${folds(entry)} fold${entry.folds_of_task === 1 ? "" : "s"}, ${count(entry.parameters)} parameters, ${entry.minutes.toFixed(1)} minutes a cell`);
  return lines.join("\n");
}
function mark(entry, event) {
  unmark();
  for (const id of [`row-${entry.id}`, `point-${entry.id}`]) if (byId(id)) byId(id).classList.add("marked");
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

// Axes: a frame, ticks, and two functions from values to places.
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
    const entry = entries[n], x = xAt(costs[n]) + (place - (group.length - 1) / 2) * Math.min(10, 90 / group.length), score = 100 * entry.score;
    const half = 100 * (entry.interval || 0);
    return drawn("g", { class: "point", id: `point-${entry.id}`, onclick: () => openRecord(entry),
      onmouseenter: (event) => mark(entry, event), onmouseleave: unmark },
      half ? drawn("line", { x1: x, x2: x, y1: yAt(Math.max(from, score - half)), y2: yAt(Math.min(to, score + half)), style: { stroke: colour(entry), strokeWidth: 1.5 } }) : null,
      shape(entry, { transform: `translate(${x.toFixed(1)} ${yAt(score).toFixed(1)})` }));
  }));
  const name = cost === "minutes" ? "minutes of learning a cell" : "parameters";
  const label = `${metric} against ${name} on ${titleOf(board)}: ` + entries.slice(0, 8).map((e) => `${e.system} ${percent(e.score)} % at ${brief(e[cost])}`).join("; ");
  return node("figure", {}, drawn("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    frame(width, height, margin, logTicks(low, high), ticks(from, to, 5), xAt, yAt, brief, (tick) => `${tick}`), points,
    drawn("text", { x: (width + margin.left) / 2, y: height - 6, "text-anchor": "middle" }, name)),
  node("figcaption", {}, `${metric} in %, with 95 % intervals`));
}

// The drawer of one record, or of what a table of cells knows.
function showDrawer() {
  const drawer = byId("drawer");
  const entry = DATA.entries.find((each) => each.id === state.open);
  if (!entry) {
    if (drawer.open) drawer.close();
    return;
  }
  if (drawer.open && drawer.dataset.entry === entry.id) return;
  hideTip();
  drawer.dataset.entry = entry.id;
  drawer.replaceChildren(...contents(entry));
  if (!drawer.open) drawer.showModal();
  drawer.scrollTop = 0;
}
function closed() {
  const id = byId("drawer").dataset.entry;
  if (state.open) { state.open = ""; writeState(); }
  if (id && byId(`open-${id}`)) byId(`open-${id}`).focus({ preventScroll: true });
}

function rows(head, lines) {
  return node("div", { class: "scroll" }, node("table", {},
    head ? node("thead", {}, node("tr", {}, head.map((name) => node("th", { scope: "col" }, name)))) : null,
    node("tbody", {}, lines.map((line) => node("tr", {}, line.map((cell, n) => node(n || head ? "td" : "th", n || head ? {} : { scope: "row" }, cell)))))));
}
const shown = (value) => (Array.isArray(value) ? value.join(", ") : value === null ? "none" : `${value}`);

function contents(entry) {
  const board = boardOf(entry), details = entry.details;
  const [name, rest] = nameParts(entry);
  const parts = [
    node("div", { class: "top" },
      node("div", {}, node("h2", { id: "drawer-title" }, glyph(entry), ` ${name}`, rest ? node("small", {}, rest) : null), node("div", { class: "about" }, titleOf(board))),
      node("button", { type: "button", class: "close", onclick: () => byId("drawer").close() }, "Close")),
    node("p", {}, told(entry).split("\n").join("; "), "."),
    node("h3", {}, "Seeds and folds"),
    rows(["seed", ...(entry.folds_of_task > 1 ? ["fold"] : []), `${words(board.metric)} %`, ...(details ? ["record"] : [])],
      entry.cells.map(([seed, fold, score, folder]) => [`${seed}`, ...(entry.folds_of_task > 1 ? [`${fold}`] : []), percent(score),
        ...(details ? [node("span", { class: "path" }, folder || "known from a table of cells alone")] : [])])),
  ];
  if (!details) parts.push(node("p", {}, "Known from a table of cells alone: predictions, curves and environment lie with its records."));
  parts.push(...settings(entry));
  const facts = [["parameters", `${count(entry.parameters)} for inference, ${count(entry.encoder)} of the encoder` + (details && details.trained ? `, ${count(details.trained)} at most in training` : "")],
    ["manifest", node("span", { class: "path" }, board.manifest)], ["versions", `card ${board.card_version}, protocol ${board.protocol_version}`]];
  if (details) {
    facts.push(["clips", Object.entries(details.clips).map(([side, clips]) => `${side} ${count(clips)}`).join(", ")]);
    if (details.decided.length) facts.push(["decided", details.decided.map(([text, times]) => (times > 1 ? `${text} (${times} times)` : text)).join("; ")]);
    for (const [what, hash] of Object.entries(details.rests_on)) facts.push([what, node("span", { class: "path" }, hash)]);
  }
  parts.push(node("h3", {}, "Facts"), rows(null, facts));
  if (!details) return parts;
  if (details.stages.length) parts.push(node("h3", {}, "Stages"), rows(["stage", "seconds, mean", "peak memory, MiB"], details.stages.map(([stage, seconds, memory]) => [stage, seconds.toFixed(1), count(memory)])));
  if (details.artifacts.length) parts.push(node("h3", {}, "Cached stages"), rows(["kind", "seconds when made", "hash"], details.artifacts.map(([kind, seconds, hashes]) => [kind, seconds.toFixed(1), node("span", { class: "path" }, hashes.join(" "))])));
  if (details.curves.length) parts.push(...curvePanels(details.curves));
  if (details.confusion) parts.push(...confusion(details));
  parts.push(node("h3", {}, "Environment"), ...details.environments.map(([place, cells]) =>
    node("details", {}, node("summary", {}, environmentTitle(DATA.environments[place], cells)), rows(null, Object.entries(DATA.environments[place]).map(([key, value]) => [key, node("span", { class: "path" }, value)])))));
  return parts;
}
function environmentTitle(environment, cells) {
  return `${environment.device || "unknown device"}, ${environment.precision || "unknown precision"}, ${plural(cells, "cell")}`;
}
function settings(entry) {
  const changed = Object.entries(entry.changed);
  const parts = [node("h3", {}, "Settings"), changed.length ? rows(["changed", "value"], changed.map(([key, value]) => [key, node("span", { class: "path changed" }, shown(value))])) : node("p", {}, "The system's defaults.")];
  if (entry.details) {
    const all = Object.entries(DATA.settings[entry.details.settings]);
    if (all.length) parts.push(node("details", {}, node("summary", {}, `All ${all.length} settings`), rows(["setting", "value"], all.map(([key, value]) => [node("span", { class: key in entry.changed ? "changed" : null }, key), node("span", { class: "path" }, shown(value))]))));
  }
  return parts;
}

function curvePanels(curves) {
  const panels = new Map();
  for (const { seed, fold, stages } of curves)
    for (const [stage, quantities] of Object.entries(stages))
      for (const [quantity, [epochs, points]] of Object.entries(quantities)) {
        // A quantity of validation stands beside the same of train.
        const plain = quantity.startsWith("validation_") && quantity.slice(11) in quantities ? quantity.slice(11) : quantity;
        const key = `${stage}: ${words(plain)}`;
        panels.set(key, [...(panels.get(key) || []), { cell: `seed ${seed}${fold ? `, fold ${fold}` : ""}`, validation: plain !== quantity, epochs, points }]);
      }
  return [node("h3", {}, "Learning curves"), node("p", { class: "about" }, `Over epochs, a line each of ${plural(curves.length, "cell")}; dashed: of validation.`),
    node("div", { class: "panels" }, [...panels].map(([title, lines]) => curvePanel(title, lines)))];
}
function curvePanel(title, lines) {
  const width = 210, height = 130, margin = { left: 40, right: 8, top: 6, bottom: 22 };
  const xs = lines.flatMap((line) => line.epochs), ys = lines.flatMap((line) => line.points).filter((value) => value !== null);
  if (!ys.length) return node("figure", {}, node("figcaption", {}, `${title}: no finite value`));
  const extent = (all) => { const low = all.reduce((a, b) => Math.min(a, b)), high = all.reduce((a, b) => Math.max(a, b)); return high > low ? [low, high] : [low - 0.5, high + 0.5]; };
  const [x0, x1] = extent(xs), [y0, y1] = extent(ys);
  const xAt = (value) => margin.left + ((width - margin.left - margin.right) * (value - x0)) / (x1 - x0);
  const yAt = (value) => height - margin.bottom - ((height - margin.top - margin.bottom) * (value - y0)) / (y1 - y0);
  const path = (line) => line.points.map((value, n) => (value === null ? "" : `${n && line.points[n - 1] !== null ? "L" : "M"}${xAt(line.epochs[n]).toFixed(1)} ${yAt(value).toFixed(1)}`)).join("");
  const ends = lines.map((line) => `${line.cell}${line.validation ? ", validation" : ""} from ${line.points[0]} to ${line.points[line.points.length - 1]}`).slice(0, 12).join("; ");
  return node("figure", {}, node("figcaption", {}, title),
    drawn("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} over epochs ${x0} to ${x1}: ${ends}` },
      frame(width, height, margin, ticks(x0, x1, 4), ticks(y0, y1, 4), xAt, yAt, brief, (tick) => `${tick}`),
      lines.map((line) => drawn("path", { d: path(line), "stroke-dasharray": line.validation ? "4 3" : null,
        style: { fill: "none", stroke: line.validation ? "var(--c1)" : "var(--c0)", strokeWidth: 1.4, opacity: lines.length > 4 ? 0.6 : 1 } }, drawn("title", {}, line.cell)))));
}

function confusion(details) {
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
  const picture = size > MANY_CLASSES ? largeMatrix(size, share, show) : smallMatrix(classes, at, share, say, show);
  return [node("h3", {}, "Confusion matrix"),
    node("p", { class: "about" }, `Clips in the test sets of all seeds and folds, ${size} classes: rows are true classes, columns what they were taken for, in percent of the row.`),
    node("div", { class: "scroll" }, picture), readout,
    worst.length ? node("details", {}, node("summary", {}, "Most often confused, in words"), node("ol", {}, worst.map(([i, j]) => node("li", {}, say(i, j))))) : node("p", {}, "No clip was taken for another class.")];
}
const heat = (part) => `color-mix(in srgb, var(--heat) ${(100 * part).toFixed(1)}%, var(--wash))`;
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
    cells.push(classes.map((_, j) => node("td", { tabindex: i || j ? -1 : 0, "aria-label": say(i, j), onmouseenter: () => show(i, j), onfocus: () => show(i, j),
      onkeydown: (event) => arrows(event, size, [i, j], focus),
      style: { background: heat(share(i, j)) } }, at(i, j) ? `${Math.round(100 * share(i, j))}` : "")));
    return node("tr", {}, node("th", { scope: "row" }, name), cells[i]);
  });
  return node("table", { class: size > NUMBERED_CLASSES ? "matrix many" : "matrix" },
    node("caption", { class: "hidden" }, "Confusion matrix, percent of each true class"),
    node("thead", {}, node("tr", {}, node("td", { style: { background: "none" } }), classes.map((name) => node("th", { scope: "col" }, name)))), node("tbody", {}, body));
}
function largeMatrix(size, share, show) {
  const canvas = node("canvas", { width: size, height: size, tabindex: 0, role: "img", "aria-label": `Confusion matrix of ${size} classes; the arrow keys read its entries, and the list below names the largest` });
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

function tellLeftOut() {
  const { records, curves, confusions } = DATA.left_out, lines = [];
  if (records) lines.push(`Left out: ${plural(records, "record")}, failed, damaged or there twice; bench report names each.`);
  if (curves || confusions)
    lines.push(`To keep this file small it leaves out the learning curves of ${plural(curves, "record")} and ${confusions} confusion matrices; bench show and bench figure have them.`);
  byId("left-out").replaceChildren(...lines.map((line) => node("p", {}, line)));
}

// Light or dark: the system's choice until somebody makes another, which is kept where the browser lets us.
function buildTheme() {
  const button = byId("theme"), root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const showTheme = () => { button.setAttribute("aria-pressed", dark()); };
  try { const kept = localStorage.getItem("lape_bench-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* storage is refused */ }
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("lape_bench-theme", root.dataset.theme); } catch { /* storage is refused */ }
    showTheme();
  });
  systemDark.addEventListener("change", showTheme);
  showTheme();
}

byId("drawer").addEventListener("close", closed);
byId("drawer").addEventListener("click", (event) => { if (event.target === byId("drawer")) byId("drawer").close(); });
addEventListener("hashchange", () => { readState(); render(); });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
buildTheme();
buildFilters();
tellLeftOut();
readState();
render();
