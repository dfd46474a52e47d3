// What is shown: kept in the address, so that a link opens the same view for somebody else.

const LEVELS = ["critical", "warning", "unknown", "notice", "ok"];
const SIGNS = { critical: "✖", warning: "▲", unknown: "?", notice: "●", ok: "✔" };

const shown = { instance: "", find: "", status: "", sort: "status", from: "", to: "" };
const INITIAL = { ...shown };

function remembered() {
  const known = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(shown)) shown[name] = known.get(name) ?? INITIAL[name];
}

function address(changes) {
  const wanted = Object.entries({ ...shown, ...changes }).filter(([name, value]) => value !== INITIAL[name]);
  return "#" + new URLSearchParams(wanted);
}

// Another view is a step that the browser can go back; a change of the same one is none.
function show(changes, step = true) {
  const target = address(changes);
  if (target === (location.hash || "#")) return;
  if (step) location.hash = target;
  else history.replaceState(null, "", target);
  if (!step) {
    remembered();
    draw();
  }
}

function status(level) {
  return el("span", { class: `status ${level}` }, el("span", { "aria-hidden": "true" }, SIGNS[level]), ` ${level}`);
}

function since(age) {
  if (age === null || age === undefined) return "";
  return age < 1 ? "just now" : `${duration(Math.round(age))} ago`;
}
