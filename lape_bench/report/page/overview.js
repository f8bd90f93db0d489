// The overview: systems by tasks for one protocol and label budget. It follows the filters, and is hidden if they choose a task.
const CONTAMINATION = ["none", "unknown", "unlabeled", "labels"]; // from the least
const FEW_LABELS = "10%", FIRST = "linear"; // shown first if there is a choice

function overviewsFor() {
  const kept = ["data", "protocol", "labels"].filter((key) => state[key]);
  return DATA.overviews.map((each, number) => ({ ...each, number })).filter((each) => kept.every((key) => each[key] === state[key]));
}
// The one that is chosen, or that most systems have on most tasks.
function chosenOverview(found) {
  const wanted = found.find((each) => `${each.number}` === state.view);
  if (wanted) return wanted;
  const size = (each) => 1000 * (each.data === "real") + each.tasks.length * each.systems.length + 0.5 * (each.labels === FEW_LABELS) + 0.25 * (each.protocol === FIRST);
  return found.reduce((best, each) => (size(each) > size(best) ? each : best));
}
const viewName = (each) => `${each.data === "synthetic" ? "synthetic audio, " : ""}${each.protocol}, ${each.labels_text}`;

const NOTHING = 1e-12; // scores that differ by less differ by rounding

// The systems of an overview with their scores by a metric, or by each task's own one if it is empty.
function systemsBy(view, metric) {
  const systems = view.systems.map(([name, average, rank, interval, parameters, seconds, places, contamination]) => {
    const entries = places.map((place) => (place === null ? null : DATA.entries[place]));
    const scores = entries.map((entry) => (entry === null ? null : metric ? entry.metrics[DATA.metrics.indexOf(metric)] : entry.score));
    return { name, average, rank, interval, parameters, seconds, contamination, entries, scores };
  });
  if (!metric) return systems;
  const whole = systems.filter((system) => system.average !== null && !system.scores.includes(null));
  const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  const rankOf = (score, n) => whole.reduce((sum, { scores }) => sum + (Math.abs(scores[n] - score) <= NOTHING ? 0.5 : scores[n] > score), 0.5); // ties averaged
  return systems.map((system) => (whole.includes(system)
    ? { ...system, average: mean(system.scores), rank: whole.length > 1 ? mean(system.scores.map(rankOf)) : null, interval: null }
    : { ...system, average: null, rank: null, interval: null }));
}
// The metrics to choose from, with their names. The empty one, each task's own, comes first.
function metricsOf(systems) {
  const entries = systems.flatMap((system) => system.entries).filter((entry) => entry !== null);
  const own = new Set(entries.map((entry) => boardOf(entry).metric));
  const others = DATA.metrics.filter((name, n) => !(own.size === 1 && own.has(name)) && entries.some((entry) => entry.metrics[n] !== null));
  return new Map([["", own.size === 1 ? words([...own][0]) : "of each task"], ...others.map((name) => [name, words(name)])]);
}

// The columns: a heading, what systems are sorted by, and the first order.
function overviewColumns(view, systems) {
  const columns = [
    { key: "system", of: (system) => system.name.toLowerCase(), first: "asc" },
    ...view.tasks.map((task, n) => ({ key: `task ${task}`, task, n, of: (system) => system.scores[n], first: "desc" })),
    { key: "mean", of: (system) => system.average, first: "desc" },
    { key: "rank", of: (system) => system.rank, first: "asc" },
    { key: "parameters", of: (system) => system.parameters, first: "asc" },
    { key: "seconds", of: (system) => system.seconds, first: "asc" },
  ];
  if (systems.some((system) => system.contamination !== null && system.contamination !== "none"))
    columns.push({ key: "contamination", of: (system) => (system.contamination === null ? null : CONTAMINATION.indexOf(system.contamination)), first: "asc" });
  return columns;
}
// Systems in the order of a column; those without a value come last.
function sorted(systems, { of }, order) {
  const sign = order === "asc" ? 1 : -1;
  return systems.toSorted((a, b) => {
    const [x, y] = [of(a), of(b)];
    return (x === null) - (y === null) || (x < y ? -sign : x > y ? sign : 0);
  });
}

function showOverview() {
  const place = byId("overview"), found = overviewsFor();
  place.hidden = Boolean(state.suite || state.task || state.find) || !found.length;
  place.replaceChildren();
  if (place.hidden) return;
  const view = chosenOverview(found), metrics = metricsOf(systemsBy(view, ""));
  const metric = metrics.has(state.metric) ? state.metric : "";
  const choice = (id, name, options, chosen, key) => node("label", { class: "view" }, name,
    node("select", { id, onchange: (event) => change({ [key]: event.target.value }) },
      options.map(([value, text]) => node("option", { value, selected: value === chosen }, text))));
  place.append(
    node("h2", { id: "overview-title" }, "Overview"),
    node("div", { class: "views" },
      choice("overview-view", "Shown in the overview", found.map((each) => [`${each.number}`, viewName(each)]), `${view.number}`, "view"),
      choice("overview-metric", "Metric", [...metrics], metric, "metric")),
    node("p", { class: "about" }, "Scores in %, shaded from the lowest to the highest of a task. Rank: mean over tasks" +
      (metric ? "; the tests that give its interval are made for a task's own metric only. " : ", with the means of the best and the worst rank that a test allows. ") +
      "A task opens its board, a name the profile of a system."),
    node("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Overview, may scroll sideways" }, overviewTable(view, metric)));
}

function overviewTable(view, metric) {
  const systems = systemsBy(view, metric), columns = overviewColumns(view, systems);
  const by = columns.find((column) => column.key === state.by) || columns.find((column) => column.key === "mean");
  const heads = columns.map((column) => {
    const active = column === by, flipped = state.way === "asc" ? "desc" : "asc";
    const sort = node("button", { type: "button", class: "sort", id: `overview-sort-${column.n ?? column.key}`, "aria-label": column.task && `sort by ${column.task}`,
      onclick: () => change({ by: column.key, way: active ? flipped : column.first }) }, column.task ? "" : column.key);
    const open = column.task && node("button", { type: "button", class: "task", id: `overview-task-${column.n}`, "aria-label": `board of ${column.task}`,
      onclick: () => openBoard(view, column.n) }, column.task);
    return node("th", { scope: "col", class: column.key === "system" ? null : "number",
      "aria-sort": active ? (state.way === "asc" ? "ascending" : "descending") : "none" }, open, sort);
  });
  const extents = view.tasks.map((_, n) => {
    const scores = systems.map((system) => system.scores[n]).filter((score) => score !== null);
    return [Math.min(...scores), Math.max(...scores)];
  });
  const rows = sorted(systems, by, state.way).map((system, n) => overviewRow(system, n, extents, metric, columns.at(-1).key === "contamination"));
  return node("table", { class: "overview" },
    node("caption", { class: "hidden" }, `Systems by tasks, ${viewName(view)}`),
    node("thead", {}, node("tr", {}, heads)), node("tbody", {}, rows));
}

function overviewRow(system, number, extents, metric, withContamination) {
  const { name, average, rank, interval, parameters, seconds, contamination, entries } = system;
  const first = entries.find((entry) => entry !== null);
  const scores = system.scores.map((score, n) => {
    if (score === null) return node("td", { class: "number" }, "—");
    const [low, high] = extents[n], share = high > low ? (score - low) / (high - low) : 0.5;
    const range = metric || entries[n].interval === null ? "" : `, ${intervalText(entries[n])}`;
    return node("td", { class: "number", style: { background: heat(share) }, title: `${percent(score, 1)} %${range}` }, percent(score, 1));
  });
  const range = interval === null ? null : node("small", {}, ` ${interval[0].toFixed(1)}–${interval[1].toFixed(1)}`);
  return node("tr", {},
    node("th", { scope: "row" }, node("button", { type: "button", class: "profile", id: `profile-${number}`, "aria-haspopup": "dialog",
      onclick: () => openProfile(name, `profile-${number}`) }, glyph(first), node("span", {}, ...shortName(first)))),
    scores,
    node("td", { class: "number" }, average === null ? "—" : node("b", {}, percent(average, 1))),
    node("td", { class: "number" }, rank === null ? "—" : rank.toFixed(1), range),
    node("td", { class: "number" }, parameters === null ? "unknown" : brief(parameters)),
    node("td", { class: "number" }, seconds.toFixed(seconds < 10 ? 1 : 0)),
    withContamination ? node("td", { class: "number" }, contamination ?? "—") : null);
}
function shortName(entry) {
  const [name, rest] = nameParts(entry);
  return [name, rest ? node("small", {}, rest) : null, entry.reference ? node("small", {}, entry.card === null ? " reference" : " submission") : null].filter((part) => part !== null);
}

function openBoard(view, n) {
  const place = view.systems.map((system) => system[6][n]).find((each) => each !== null), board = boardOf(DATA.entries[place]);
  change({ task: board.task, protocol: view.protocol, labels: view.labels, data: view.data });
  byId("filter-task").focus();
}
