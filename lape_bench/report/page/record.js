// The drawer: a full record, or the part of it in a table of cells.
function showDrawer() {
  const drawer = byId("drawer");
  const name = state.open.startsWith(PROFILE) ? state.open.slice(PROFILE.length) : null;
  const entry = DATA.entries.find((each) => each.id === state.open);
  const inside = name !== null ? profile(name) : entry ? contents(entry) : null;
  if (!inside) {
    if (drawer.open) drawer.close();
    return;
  }
  if (drawer.open && drawer.dataset.entry === state.open) return;
  hideTip();
  drawer.dataset.entry = state.open;
  drawer.replaceChildren(...inside);
  if (!drawer.open) drawer.showModal();
  drawer.scrollTop = 0;
}
function closed() {
  const id = byId("drawer").dataset.entry;
  if (state.open) {
    state.open = "";
    writeState();
  }
  const button = byId(openedFrom) || (id && byId(`open-${id}`));
  openedFrom = "";
  if (button) button.focus({ preventScroll: true });
}

const heading = (text) => node("h3", {}, text);
const path = (text) => node("span", { class: "path" }, text);
const shown = (value) => (Array.isArray(value) ? value.join(", ") : value === null ? "none" : `${value}`);

// A table in a box of its own; without a head, the first cell of each line is its heading.
function rows(head, lines) {
  const cell = (content, n) => (n || head ? node("td", {}, content) : node("th", { scope: "row" }, content));
  return node("div", { class: "scroll" }, node("table", {},
    head ? node("thead", {}, node("tr", {}, head.map((name) => node("th", { scope: "col" }, name)))) : null,
    node("tbody", {}, lines.map((line) => node("tr", {}, line.map(cell))))));
}

function contents(entry) {
  const details = entry.details;
  const parts = [top(entry), node("p", {}, told(entry).split("\n").join("; "), "."), heading("Seeds and folds"), cellsOf(entry)];
  if (!details)
    parts.push(node("p", {}, "There is no record behind this score, which is known from a table of cells alone: " +
      "predictions, curves and environment are with its records."));
  parts.push(...settings(entry), heading("Facts"), rows(null, facts(entry)));
  if (!details) return parts;
  if (details.stages.length)
    parts.push(heading("Stages"), node("p", { class: "about" }, `Of ${behind(entry)}.`), rows(["stage", "seconds, mean", "peak memory, MiB"],
      details.stages.map(([stage, seconds, memory]) => [stage, seconds.toFixed(1), count(memory)])));
  if (details.artifacts.length)
    parts.push(heading("Cached stages"), rows(["kind", "seconds when made", "hash"],
      details.artifacts.map(([kind, seconds, hashes]) => [kind, seconds.toFixed(1), path(hashes.join(" "))])));
  if (details.curves.length) parts.push(...curvePanels(details.curves, words(boardOf(entry).metric)));
  if (details.confusion) parts.push(...confusion(entry));
  parts.push(heading("Environment"), ...details.environments.map(([place, cells]) => environment(DATA.environments[place], cells)));
  return parts;
}

function top(entry) {
  const [name, more] = nameParts(entry);
  return node("div", { class: "top" },
    node("div", {},
      node("h2", { id: "drawer-title" }, glyph(entry), ` ${name}`, more ? node("small", {}, more) : null),
      node("div", { class: "about" }, titleOf(boardOf(entry)))),
    node("button", { type: "button", class: "close", onclick: () => byId("drawer").close() }, "Close"));
}

// A cell is [seed, fold, score, folder of its record or null, whether it counts].
function cellsOf(entry) {
  const folded = entry.folds_of_task > 1, told = entry.cells.some((cell) => cell[3] || !cell[4]);
  const some = (condition, value) => (condition ? [value] : []);
  const has = (seed) => entry.cells.filter((cell) => cell[0] === seed).length;
  const why = (seed) => node("div", {}, `not counted: seed ${seed} has ${has(seed)} of ${entry.folds_of_task} folds`);
  return rows(["seed", ...some(folded, "fold"), `${words(boardOf(entry).metric)} %`, ...some(told, "record")],
    entry.cells.map(([seed, fold, score, folder, counts]) => [
      `${seed}`, ...some(folded, `${fold}`), percent(score),
      ...some(told, [counts ? null : why(seed), path(folder || "from a table of cells")]),
    ]));
}
// The cells of matrix and stages: those that the score is computed from, if they have records.
function behind(entry) {
  const counted = entry.cells.filter((cell) => cell[4]), recorded = counted.filter((cell) => cell[3]).length;
  const cells = `${plural(counted.length, "cell")} behind the score`;
  return recorded === counted.length ? `the ${cells}` : `${recorded} of the ${cells}, the ones with a record`;
}

function facts(entry) {
  const board = boardOf(entry), details = entry.details;
  const parameters = [`${count(entry.parameters)} for inference`, `${count(entry.encoder)} of the encoder`];
  if (details && details.trained) parameters.push(`${count(details.trained)} at most in training`);
  const lines = [
    ["parameters", parameters.join(", ")],
    ["manifest", path(board.manifest_hash)],
    ["versions", `card ${board.card_version}, protocol ${board.protocol_version}`],
  ];
  if (!details) return lines;
  lines.push(["clips", Object.entries(details.clips).map(([side, clips]) => `${side} ${count(clips)}`).join(", ")]);
  const selection = details.selection.map(([text, times]) => (times > 1 ? `${text} (${times} times)` : text));
  if (selection.length) lines.push(["selection", selection.join("; ")]);
  for (const [what, hash] of Object.entries(details.provenance)) lines.push([what, path(hash)]);
  return lines;
}

function settings(entry) {
  const changed = Object.entries(entry.changed);
  const parts = [heading("Settings")];
  if (changed.length) parts.push(rows(["changed", "value"], changed.map(([key, value]) => [key, path(shown(value))])));
  else parts.push(node("p", {}, "The system's defaults."));
  const all = entry.details ? Object.entries(DATA.settings[entry.details.settings]) : [];
  const name = (key) => node("span", { class: key in entry.changed ? "changed" : null }, key);
  if (all.length)
    parts.push(node("details", {}, node("summary", {}, `All ${all.length} settings`),
      rows(["setting", "value"], all.map(([key, value]) => [name(key), path(shown(value))]))));
  return parts;
}

function environment(told, cells) {
  const title = `${told.device || "unknown device"}, ${told.precision || "unknown precision"}, ${plural(cells, "cell")}`;
  return node("details", {}, node("summary", {}, title), rows(null, Object.entries(told).map(([key, value]) => [key, path(value)])));
}
