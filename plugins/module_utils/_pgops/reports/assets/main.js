// The page: its data is in the page itself, compressed, so that it is one file that needs nothing else.

let report = null;

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

function draw() {
  drawn.splice(0).forEach((one) => one.plot?.destroy());
  const one = report.instances.find((candidate) => candidate.id === shown.instance);
  const gone = shown.instance && !one ? el("p", { class: "error" }, `There is no instance ${shown.instance} in this report.`) : null;
  const place = document.getElementById("content");
  const search = document.getElementById("find");
  search.closest("label").hidden = Boolean(one);
  if (search.value !== shown.find) search.value = shown.find;
  const key = document.activeElement?.dataset.key;
  place.replaceChildren(...[gone, ...(one ? drawInstance(report, one) : drawFleet(report))].flat(Infinity).filter(Boolean));
  document.title = one ? plain(`${one.id}: ${one.status}`) : "The PostgreSQL fleet";
  plotAll();
  if (key) place.querySelector(`[data-key="${key}"]`)?.focus({ preventScroll: true }); // what was drawn anew keeps it
}

function arrived() {
  const before = shown.instance;
  remembered();
  draw();
  if (before !== shown.instance) {
    scrollTo(0, 0);
    document.getElementById("content").focus({ preventScroll: true });
  }
}

function age() {
  const made = seconds(report.made_at);
  document.getElementById("made").replaceChildren("Made ", moment(made), `, ${since(Date.now() / 1000 - made)}, by pgops.fleet ${plain(report.version)}`);
}

function theme(next) {
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("pgops-theme", next);
  } catch {
    // A page of a file may have no storage: then it is forgotten.
  }
  plotAll();
}

function keys(event) {
  if (event.target.matches("input") && event.key !== "Escape") return;
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("find").focus();
  } else if (event.key === "Escape" && shown.instance) {
    show({ instance: "", from: "", to: "" });
  }
}

async function begin() {
  let kept = null;
  try {
    kept = localStorage.getItem("pgops-theme");
  } catch {
    // as above
  }
  if (kept) document.documentElement.dataset.theme = kept;
  report = await unpacked(document.getElementById("data").textContent);
  remembered();
  draw();
  age();
  setInterval(age, 30000);
  addEventListener("hashchange", arrived);
  addEventListener("resize", plotAll);
  addEventListener("beforeprint", plotAll);
  addEventListener("keydown", keys);
  document.getElementById("find").addEventListener("input", (event) => show({ find: event.target.value }, false));
  document.getElementById("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    theme(dark ? "light" : "dark");
  });
  document.documentElement.dataset.ready = "yes";
}

begin().catch((error) => {
  document.getElementById("content").replaceChildren(el("p", { class: "error" }, `The page cannot be shown: ${error}. It needs a browser of 2023 or later.`));
});
