// Notes on what is left out, light or dark mode, and the first drawing.
function tellLeftOut() {
  const { records, curves, confusions } = DATA.left_out, lines = [];
  if (records) lines.push(`Left out: ${plural(records, "record")}, failed, damaged or duplicate; bench report names each.`);
  if (curves || confusions)
    lines.push(`To keep this file small it leaves out the learning curves of ${plural(curves, "record")} and ` +
      `${plural(confusions, "confusion matrix").replace("matrixs", "matrices")}; bench show and bench figure have them.`);
  byId("left-out").replaceChildren(...lines.map((line) => node("p", {}, line)));
}

// Light or dark: the choice of the operating system, until the user makes another one, which the browser stores if it can.
function buildTheme() {
  const button = byId("theme"), root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const showTheme = () => { button.setAttribute("aria-pressed", dark()); };
  try {
    const kept = localStorage.getItem("lape_bench-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch { /* storage is refused */ }
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
