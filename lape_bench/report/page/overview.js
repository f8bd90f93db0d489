// The overview: systems by tasks for one protocol and label budget. It follows the filters, and is hidden if they choose a task.
const SUMMARY = ["mean", "rank", "parameters", "seconds"];
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

function showOverview() {
  const place = byId("overview"), found = overviewsFor();
  place.hidden = Boolean(state.suite || state.task || state.find) || !found.length;
  place.replaceChildren();
  if (place.hidden) return;
  const view = chosenOverview(found);
  const options = found.map((each) => node("option", { value: `${each.number}`, selected: each === view }, viewName(each)));
  place.append(
    node("h2", { id: "overview-title" }, "Overview"),
    node("label", { class: "view" }, "Shown in the overview",
      node("select", { id: "overview-view", onchange: (event) => change({ view: event.target.value }) }, options)),
    node("p", { class: "about" }, "Scores in %, shaded from the lowest to the highest of a task. Rank: mean over tasks, with the means of the best and " +
      "the worst rank that a test allows. A task opens its board, a name the profile of a system."),
    node("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Overview, may scroll sideways" }, overviewTable(view)));
}

function overviewTable(view) {
  const heads = view.tasks.map((task, n) => node("th", { scope: "col", class: "number" },
    node("button", { type: "button", class: "task", id: `overview-task-${n}`, "aria-label": `board of ${task}`, onclick: () => openBoard(view, n) }, task)));
  const extents = view.tasks.map((_, n) => {
    const scores = view.systems.map((system) => system[6][n]).filter((place) => place !== null).map((place) => DATA.entries[place].score);
    return [Math.min(...scores), Math.max(...scores)];
  });
  const summary = [...SUMMARY, ...(contaminated(view) ? ["contamination"] : [])];
  return node("table", { class: "overview" },
    node("caption", { class: "hidden" }, `Systems by tasks, ${viewName(view)}`),
    node("thead", {}, node("tr", {}, node("th", { scope: "col" }, "system"), heads,
      summary.map((name) => node("th", { scope: "col", class: "number" }, name)))),
    node("tbody", {}, view.systems.map((system, n) => overviewRow(system, n, extents, contaminated(view)))));
}
// Whether a card says that a system has heard more of a test set than nothing.
const contaminated = (view) => view.systems.some((system) => system[7] !== null && system[7] !== "none");

function overviewRow([name, average, rank, interval, parameters, seconds, places, contamination], number, extents, withContamination) {
  const entries = places.map((place) => (place === null ? null : DATA.entries[place]));
  const first = entries.find((entry) => entry !== null);
  const scores = entries.map((entry, n) => {
    if (entry === null) return node("td", { class: "number" }, "—");
    const [low, high] = extents[n], share = high > low ? (entry.score - low) / (high - low) : 0.5;
    const range = entry.interval === null ? "" : `, ${intervalText(entry)}`;
    return node("td", { class: "number", style: { background: heat(share) }, title: `${percent(entry.score, 1)} %${range}` }, percent(entry.score, 1));
  });
  const range = interval === null ? null : node("small", {}, ` ${interval[0].toFixed(1)}–${interval[1].toFixed(1)}`);
  return node("tr", {},
    node("th", { scope: "row" }, node("button", { type: "button", class: "profile", id: `profile-${number}`, "aria-haspopup": "dialog",
      onclick: () => openProfile(name, `profile-${number}`) }, glyph(first), node("span", {}, ...shortName(first)))),
    scores,
    node("td", { class: "number" }, average === null ? "—" : node("b", {}, percent(average, 1))),
    node("td", { class: "number" }, rank === null ? "—" : rank.toFixed(1), range),
    node("td", { class: "number" }, parameters === null ? "unknown" : brief(parameters)),
    node("td", { class: "number" }, seconds.toFixed(0)),
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
