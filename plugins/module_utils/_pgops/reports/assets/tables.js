// Tables: from rows and columns. A column has a title, what a row shows in it, and by what it is sorted, if it is.

function table(caption, columns, rows, options = {}) {
  const heads = columns.map((column) => {
    const attributes = { scope: "col", class: column.number ? "number" : column.class };
    if (!options.sort || !column.key) return el("th", attributes, column.title);
    const [key, reverse] = [options.sort.replace("-", ""), options.sort.startsWith("-")];
    const active = key === column.key;
    attributes["aria-sort"] = active ? (reverse ? "descending" : "ascending") : "none";
    const next = active && !reverse ? `-${column.key}` : column.key;
    const mark = el("span", { "aria-hidden": "true" }, active ? (reverse ? " ▼" : " ▲") : "");
    return el("th", attributes, el("button", { type: "button", "data-key": `sort-${column.key}`, onclick: () => options.onsort(next) }, column.title, mark));
  });
  const body = rows.map((row) =>
    el(
      "tr",
      {},
      columns.map((column) => el("td", { class: column.number ? "number" : column.class }, column.show(row))),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: options.title ? "" : "hidden" }, caption), el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body)),
  );
}

function sorted(rows, columns, sort) {
  const column = columns.find((one) => one.key === sort.replace("-", "")) ?? columns[0];
  const turn = sort.startsWith("-") ? -1 : 1;
  const keyed = rows.map((row, place) => ({ row, place, key: column.sort(row) }));
  keyed.sort((a, b) => {
    // What is not known comes last, whichever way.
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.place - b.place;
    const order = typeof a.key === "string" ? a.key.localeCompare(b.key) : a.key - b.key;
    return order * turn || a.place - b.place;
  });
  return keyed.map((one) => one.row);
}

// A section of an instance: its title, how old its data is, and its content or why there is none.
function panel(title, content, options = {}) {
  const id = `panel-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  return el(
    "section",
    { class: `panel ${options.class ?? ""}`, "aria-labelledby": id },
    el("h3", { id }, title, options.age ? el("small", {}, ` ${options.age}`) : null),
    options.error ? el("p", { class: "error" }, options.error) : content,
  );
}

// A table as a panel; in place of one without rows, and without an error that says why, a line for quiet().
function listed(title, rows, columns, none, options = {}) {
  const error = options.error?.message;
  if (!error && !rows?.length) return { title, none };
  const more = options.left_out ? el("p", {}, `${options.left_out} more are left out.`) : null;
  const content = error ? null : [table(title, columns, rows), more];
  return panel(title, content, { age: options.age, error, class: "wide" });
}

function quiet(lines) {
  if (!lines.length) return null;
  return panel("Nothing to show", el("ul", { class: "quiet" }, lines.map((line) => el("li", {}, el("b", {}, line.title), `: ${line.none}`))), { class: "wide" });
}
