// One instance: how it is and why, its charts, and all that was read of it.

function tile(title, value) {
  return el("div", { class: "fact" }, el("dt", {}, title), el("dd", {}, value));
}

function overview(one) {
  const { server, connections, backups, databases, monitoring } = one.facts;
  const window = backups?.windows?.[0];
  const proof = backups?.proof;
  return el(
    "dl",
    { class: "facts" },
    tile("Role", one.facts.role ?? UNKNOWN),
    tile("Version", one.facts.version ?? UNKNOWN),
    tile("Cluster", one.cluster ?? UNKNOWN),
    tile("Up for", duration(server?.uptime_s)),
    tile("Connections", connections?.total === undefined ? UNKNOWN : `${connections.total} of ${connections.max}`),
    tile("Active", amount(connections?.active)),
    tile("Databases", amount(databases?.total)),
    tile("Recoverable from", window ? moment(window.starts_at) : UNKNOWN),
    tile("until", window ? moment(window.ends_at) : UNKNOWN),
    tile("Time to recover, predicted", duration(backups?.recovery_s)),
    tile("Proof of recovery", [backups?.recovery ?? UNKNOWN, proof ? [" ", since(proof.proven_age_s)] : null]),
    tile("Recovered in (RTO)", duration(proof?.rto_s)),
    tile("Lost at most (RPO)", duration(proof?.rpo_s)),
    tile("Store of samples", bytes(monitoring?.store_bytes)),
  );
}

function reasonList(one) {
  if (!one.reasons.length) return el("p", {}, status("ok"), " Nothing to report.");
  const items = one.reasons.map((reason) => el("li", {}, status(reason.level), " ", reason.text, reason.since ? [" since ", moment(reason.since)] : ""));
  return el("ul", { class: "reasons" }, items);
}

const HOURS = [["1 h", 3600], ["6 h", 21600], ["24 h", 86400]];

function ranges(window) {
  const [from, to] = range(window);
  const whole = window.ends - window.starts;
  const choices = HOURS.filter(([_name, length]) => length < whole).map(([name, length]) => [name, String(window.ends - length), ""]);
  const buttons = [...choices, ["all", "", ""]].map(([name, start, end]) =>
    el("button", { type: "button", "data-key": `range-${name}`, "aria-pressed": String(shown.from === start && shown.to === end), onclick: () => show({ from: start, to: end }) }, name),
  );
  return el("div", { class: "ranges", role: "group", "aria-label": "Time shown" }, buttons, el("span", {}, moment(from), " to ", moment(to), "; drag in a chart to choose"));
}

function within(panelData, window, at) {
  if (!panelData?.rows || !window) return panelData;
  const [from, to] = range(window);
  return { ...panelData, rows: panelData.rows.filter((row) => at(row, from, to)) };
}

const ALERT_COLUMNS = [
  { title: "Fired", show: (row) => moment(row.fired_at) },
  { title: "Ended", show: (row) => (row.ended_at ? moment(row.ended_at) : el("b", {}, "fires")) },
  { title: "Severity", show: (row) => status(row.severity === "info" ? "notice" : row.severity) },
  { title: "Rule", show: (row) => row.rule },
  { title: "Of", show: (row) => labels(row.labels) },
  { title: "Value", number: true, show: (row) => amount(row.value) },
  { title: "Threshold", number: true, show: (row) => amount(row.threshold) },
  { title: "Acknowledged by", show: (row) => row.acknowledged_by ?? "" },
];
const EVENT_COLUMNS = [
  { title: "When", show: (row) => moment(row.at) },
  { title: "Kind", show: (row) => row.kind },
  { title: "What", show: (row) => row.text },
];
const CARE_COLUMNS = [
  { title: "Level", show: (row) => status(row.level) },
  { title: "Metric", show: (row) => row.metric },
  { title: "Database", show: (row) => row.database ?? "" },
  { title: "Of", show: (row) => el("bdi", {}, row.object ?? labels(row.labels)) },
  { title: "Value", number: true, show: (row) => measured(row.value, row.unit) },
];
const QUERY_COLUMNS = [
  { title: "Share of time", number: true, show: (row) => [el("meter", { min: 0, max: 100, value: row.share_percent ?? 0, "aria-label": "share of time" }), ` ${measured(row.share_percent, "%")}`] },
  { title: "Calls", number: true, show: (row) => amount(row.calls) },
  { title: "Average", number: true, show: (row) => measured(row.average_ms, "ms") },
  { title: "Longest", number: true, show: (row) => measured(row.longest_ms, "ms") },
  { title: "Rows", number: true, show: (row) => amount(row.rows) },
  { title: "Database", show: (row) => (row.databases ?? []).join(", ") },
  { title: "Statement", class: "query", show: (row) => el("pre", {}, row.query ?? `text not stored, queryid ${row.queryid}`) },
];
const REGRESSION_COLUMNS = [
  { title: "Slower by", number: true, show: (row) => `${amount(row.factor, 2)} times` },
  { title: "Average of the week", number: true, show: (row) => measured(row.average_ms_before, "ms") },
  { title: "of the last day", number: true, show: (row) => measured(row.average_ms, "ms") },
  { title: "Calls", number: true, show: (row) => amount(row.calls) },
  { title: "Statement", class: "query", show: (row) => el("pre", {}, row.query ?? `text not stored, queryid ${row.queryid}`) },
];
const BLOCKING_COLUMNS = [
  { title: "Process", show: (row) => `${"↳ ".repeat(row.depth ?? 0)}${row.pid}` },
  { title: "Blocks", number: true, show: (row) => amount(row.blocks) },
  { title: "Waits for", number: true, show: (row) => duration(row.waits_seconds) },
  { title: "State", show: (row) => row.state ?? "" },
  { title: "User", show: (row) => row.user ?? "" },
  { title: "Database", show: (row) => row.database ?? "" },
  { title: "Lock", show: (row) => [row.lock_mode, row.relation].filter(Boolean).join(" on ") },
  { title: "Statement", class: "query", show: (row) => el("pre", {}, row.query ?? "") },
];
const PROGRESS_COLUMNS = [
  { title: "Operation", show: (row) => row.operation },
  { title: "Process", number: true, show: (row) => amount(row.pid) },
  { title: "Database", show: (row) => row.database ?? "" },
  { title: "Of", show: (row) => row.relation ?? "" },
  { title: "Phase", show: (row) => row.phase ?? "" },
  { title: "Done", number: true, show: (row) => measured(row.percent, "%") },
  { title: "For", number: true, show: (row) => duration(row.seconds) },
];
const STANDBY_COLUMNS = [
  { title: "Standby", show: (row) => row.name },
  { title: "Address", show: (row) => row.address ?? "local" },
  { title: "State", show: (row) => row.state ?? UNKNOWN },
  { title: "Kind", show: (row) => row.sync_state ?? UNKNOWN },
  { title: "Not replayed", number: true, show: (row) => bytes(row.replay_lag_bytes) },
  { title: "Delay", number: true, show: (row) => duration(row.replay_lag_s) },
];
const SLOT_COLUMNS = [
  { title: "Slot", show: (row) => row.name },
  { title: "Type", show: (row) => row.type },
  { title: "Active", show: (row) => (row.active ? "yes" : "no") },
  { title: "WAL", show: (row) => row.wal_status ?? UNKNOWN },
  { title: "Retains", number: true, show: (row) => bytes(row.retained_bytes) },
];
const BACKUP_COLUMNS = [
  { title: "Type", show: (row) => row.type },
  { title: "Completed", show: (row) => moment(row.completed_at) },
  { title: "Age", number: true, show: (row) => duration(row.completed_age_s) },
  { title: "Took", number: true, show: (row) => duration(row.duration_s) },
  { title: "Stored", number: true, show: (row) => bytes(row.stored_bytes) },
  { title: "Of data", number: true, show: (row) => bytes(row.data_bytes) },
  { title: "Node", show: (row) => row.node },
];
const WINDOW_COLUMNS = [
  { title: "Timeline", number: true, show: (row) => amount(row.timeline) },
  { title: "From", show: (row) => moment(row.starts_at) },
  { title: "To", show: (row) => moment(row.ends_at) },
  { title: "Backups", number: true, show: (row) => amount(row.backups) },
  { title: "Time to recover", number: true, show: (row) => duration(row.recovery_s) },
];
const SETTING_COLUMNS = [
  { title: "Setting", show: (row) => row.setting },
  { title: "Why", show: (row) => row.why },
  { title: "Declared", show: (row) => row.declared ?? UNKNOWN },
  { title: "In the files", show: (row) => row.file ?? UNKNOWN },
  { title: "Running", show: (row) => row.running ?? UNKNOWN },
  { title: "Source", show: (row) => row.source ?? "" },
  { title: "Line", show: (row) => row.place ?? "" },
];
const PEER_COLUMNS = [
  { title: "Setting", show: (row) => row.setting },
  { title: "Here", show: (row) => row.value },
  { title: "On other nodes", show: (row) => Object.entries(row.elsewhere).map(([node, value]) => `${node}: ${value}`).join(", ") },
];
const DATABASE_COLUMNS = [
  { title: "Database", show: (row) => el("bdi", {}, row.name) },
  { title: "Owner", show: (row) => el("bdi", {}, row.owner) },
  { title: "Encoding", show: (row) => row.encoding },
  { title: "Transaction age", number: true, show: (row) => amount(row.xid_age) },
];
const JOB_COLUMNS = [
  { title: "Job", show: (row) => row.name },
  { title: "Runs", show: (row) => row.calendar },
  { title: "Timer", show: (row) => (row.active === null ? row.backend : row.active ? "active" : "inactive") },
  { title: "Last run", number: true, show: (row) => since(row.last_run_age_s) || UNKNOWN },
  { title: "Result", show: (row) => (row.running ? "running" : row.last_result ?? UNKNOWN) },
];

function labels(found) {
  return Object.entries(found ?? {}).filter(([key]) => key !== "node" && key !== "cluster").map(([key, value]) => `${key} ${value}`).join(", ");
}

// What was stored, of the time that is shown; and a section of the facts, of the moment that they were gathered.
function panelled(title, data, columns, none, made) {
  return data ? listed(title, data.rows, columns, none, { ...data, age: data.newest ? since(made - data.newest) : null }) : null;
}

function sectioned(title, section, rows, columns, none, age) {
  return section ? listed(title, rows, columns, none, { error: section.error, age }) : null;
}

function charts(one, report, made) {
  if (!one.history) return el("p", { class: "none" }, "No samples of it were read.");
  const events = within(one.panels.events, one.history.window, (row, from, to) => row.at >= from && row.at <= to)?.rows ?? [];
  const known = report.charts.filter((described) => one.history.charts[described.key]);
  const unknown = report.charts.filter((described) => !one.history.charts[described.key]);
  return [
    ranges(one.history.window),
    el("div", { class: "grid" }, known.map((described) => chart(described, one.history.charts[described.key], one.history.window, events, made))),
    unknown.length ? el("p", { class: "none" }, `Nothing was measured in this time of: ${unknown.map((described) => described.title).join(", ")}.`) : null,
  ];
}

function drawInstance(report, one) {
  const made = seconds(one.gathered_at);
  const facts = one.facts;
  const window = one.history?.window;
  const past = window && made - window.ends > 180;
  const alerts = within(one.panels.alerts, window, (row, from, to) => row.fired_at <= to && (row.ended_at ?? Infinity) >= from);
  const events = within(one.panels.events, window, (row, from, to) => row.at >= from && row.at <= to);
  const age = since(seconds(report.made_at) - made) || "now";
  const details = [
    panelled("Alerts", alerts, ALERT_COLUMNS, "none fired in this time.", made),
    panelled("Events", events, EVENT_COLUMNS, "none in this time.", made),
    panelled("Top statements", one.panels.queries, QUERY_COLUMNS, "none are stored of this time.", made),
    panelled("Statements that became slower", one.panels.regressions, REGRESSION_COLUMNS, "none.", made),
    panelled("Beyond thresholds", one.panels.care, CARE_COLUMNS, "nothing.", made),
    panelled("Who blocks whom", one.panels.blocking, BLOCKING_COLUMNS, "nobody waited for a lock.", made),
    panelled("Maintenance that runs", one.panels.progress, PROGRESS_COLUMNS, "none.", made),
    sectioned("Standbys", facts.replication, facts.replication?.standbys, STANDBY_COLUMNS, "none streams from here.", age),
    sectioned("Replication slots", facts.replication, facts.replication?.slots, SLOT_COLUMNS, "there are none.", age),
    sectioned("Newest backups", facts.backups, facts.backups?.newest, BACKUP_COLUMNS, "no good backup is known.", age),
    sectioned("Recovery windows", facts.backups, facts.backups?.windows, WINDOW_COLUMNS, "it cannot be recovered to any moment.", age),
    panelled("Settings that are not as they should be", one.panels.settings, SETTING_COLUMNS, "what was declared is written, and in force.", made),
    sectioned("Settings that differ in the cluster", facts.settings, one.differs, PEER_COLUMNS, "none that matters is another on another node.", age),
    sectioned("Databases", facts.databases, facts.databases?.list, DATABASE_COLUMNS, "none is visible.", age),
    sectioned("Jobs of the agent", facts.jobs, facts.jobs?.list, JOB_COLUMNS, "none is scheduled here.", age),
  ].filter(Boolean);
  return [
    el("p", {}, el("a", { href: address({ instance: "", from: "", to: "" }) }, "← The fleet")),
    el("h2", {}, el("bdi", {}, one.id), " ", status(one.status)),
    past ? el("p", { class: "error" }, "Charts, alerts, events and statements are of the past, until ", moment(window.ends), ". All else is of now.") : null,
    reasonList(one),
    facts.error ? null : overview(one),
    el("h2", {}, "Over time"),
    charts(one, report, made),
    el("h2", {}, "In detail"),
    details.filter((one) => one instanceof Node),
    quiet(details.filter((one) => !(one instanceof Node))),
  ];
}
