// The filters, the address that holds them, and the boards that match.
const DEFAULTS = {
  suite: "", task: "", protocol: "", labels: "", data: "", find: "",
  sort: "score", order: "desc", cost: "parameters", open: "", view: "",
  metric: "", by: "mean", way: "desc", // of the overview
};
const FILTERS = { suite: "Suite", task: "Task", protocol: "Protocol", labels: "Labels", data: "Data" };
const COSTS = { parameters: "parameters", minutes: "minutes of training per cell" }; // horizontal axes
const BOARDS_AT_ONCE = 20; // the rest follows in parts, so that typing never waits for thousands of rows
let state = { ...DEFAULTS }, pending = 0;

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = { ...DEFAULTS };
  for (const key of Object.keys(DEFAULTS)) if (given.has(key)) state[key] = given.get(key);
  if (!COLUMNS.some((column) => column.key === state.sort)) state.sort = DEFAULTS.sort;
  if (!Object.hasOwn(COSTS, state.cost)) state.cost = DEFAULTS.cost;
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
  suite: (board) => board.suite, task: (board) => board.task, protocol: (board) => board.protocol, labels: (board) => board.labels, data: (board) => board.data,
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
      Object.keys(COSTS).map((cost) => node("option", { value: cost }, `by ${cost}`)))),
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
  showOverview();
  byId("count").textContent = `${plural(found.size, "board")}, ${plural(systems, "score")}. A row opens the record.`;
  const boards = [...found];
  const draw = (slice) => slice.map(([number, entries]) => section(number, entries, overLabels(number, found)));
  byId("boards").replaceChildren(...draw(boards.slice(0, BOARDS_AT_ONCE)));
  clearTimeout(pending);
  const follow = (from) => {
    if (from >= boards.length) return;
    byId("boards").append(...draw(boards.slice(from, from + BOARDS_AT_ONCE)));
    pending = setTimeout(follow, 0, from + BOARDS_AT_ONCE);
  };
  pending = setTimeout(follow, 0, BOARDS_AT_ONCE);
  if (!found.size)
    byId("boards").append(node("p", {}, "No board has that. ",
      node("button", { type: "button", class: "clear", onclick: () => change({ ...DEFAULTS }) }, "Show all")));
  if (focused && byId(focused)) byId(focused).focus();
  showDrawer();
}
