// The profile of a system: its means over tasks by label budget, and each of its scores, which opens the record.
const PROFILE = "system:"; // before a name in the address
let openedFrom = ""; // the button that gets the focus back

function openProfile(name, from) {
  openedFrom = from;
  state.open = PROFILE + name;
  writeState();
  showDrawer();
}

function profile(name) {
  const own = DATA.entries.filter((entry) => entry.system === name);
  if (!own.length) return null;
  const close = node("button", { type: "button", class: "close", onclick: () => byId("drawer").close() }, "Close");
  const means = DATA.overviews.flatMap((view) => view.systems.filter((system) => system[0] === name && system[1] !== null)
    .map(([, average, rank, interval, , seconds]) => [viewName(view), plural(view.tasks.length, "task"), percent(average, 1),
      rank === null ? "" : rank.toFixed(1) + (interval === null ? "" : ` (${interval[0].toFixed(1)}–${interval[1].toFixed(1)})`), seconds.toFixed(0)]));
  const parts = [
    node("div", { class: "top" }, node("div", {}, node("h2", { id: "drawer-title" }, glyph(own[0]), " ", ...shortName(own[0])),
      node("div", { class: "about" }, `${count(own[0].encoder)} parameters in the encoder; ${plural(own.length, "score")}`)), close),
  ];
  const submitted = own.find((entry) => entry.card !== null);
  if (submitted) parts.push(heading("System card"), cardOf(DATA.cards[submitted.card]));
  if (means.length) parts.push(heading("Mean over tasks"),
    node("p", { class: "about" }, "In parentheses: the means of the best and of the worst rank that a test allows."),
    rows(["protocol, labels", "tasks", "mean %", "average rank", "seconds"], means));
  parts.push(heading("Scores"), node("p", { class: "about" }, "A task opens the record: learning curves, cost, confusion matrix, settings."),
    rows(["task", "protocol, labels", "score %", "±", "rank"], own.map((entry) => {
      const board = boardOf(entry);
      const open = node("button", { type: "button", class: "link", onclick: () => openRecord(entry) }, board.task);
      const ranks = entry.rank ? (entry.rank[0] === entry.rank[1] ? `${entry.rank[0]}` : `${entry.rank[0]}–${entry.rank[1]}`) : "";
      return [open, `${board.protocol}, ${board.labels_text}`, percent(entry.score, 1), percent(entry.std, 1), ranks];
    })));
  return parts;
}

// The card of a submission, as its authors wrote it.
function cardOf(card) {
  const heard = Object.entries(card.contamination).map(([task, what]) => `${task}: ${what}`).join(", ");
  const lines = [["name", card.name], ["systems", card.systems.join(", ")], ["paper", node("a", { href: card.paper, rel: "noopener noreferrer" }, card.paper)],
    ["license", card.license], ["training data", card.training_data], ["contamination", heard], ["contact", card.contact]];
  return rows(null, lines);
}
