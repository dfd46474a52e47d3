// The fleet at a glance: one row for each instance, and for each host that there is nothing to say of but why.

function newestBackup(one) {
  const ages = (one.facts?.backups?.newest ?? []).map((backup) => backup.completed_age_s);
  return ages.length ? Math.min(...ages) : null;
}

function lag(one) {
  const replication = one.facts?.replication;
  return replication?.receiver?.replay_lag_bytes ?? null;
}

function used(one) {
  const connections = one.facts?.connections;
  return connections && connections.max ? (100 * connections.total) / connections.max : null;
}

function load(one) {
  return one.history?.charts.transactions?.lines[0]?.values ?? [];
}

function recovery(one) {
  const backups = one.facts?.backups;
  if (!backups || backups.error) return { word: "unknown", level: "unknown" };
  if (backups.recoverable === null) return { word: "no backups", level: "unknown" };
  if (!backups.recoverable) return { word: "impossible", level: "critical" };
  return { word: backups.recovery, level: backups.recovery === "failed" ? "critical" : "ok" };
}

function fleetRows(document) {
  const hosts = document.hosts
    .filter((host) => host.instances === 0)
    .map((host) => ({ id: host.name, host: host.name, name: "", status: host.status, reasons: [{ level: host.status, text: host.text, since: null }], facts: null }));
  return [...hosts.sort((a, b) => LEVELS.indexOf(a.status) - LEVELS.indexOf(b.status)), ...document.instances];
}

const FLEET = [
  { key: "status", title: "Status", sort: (one) => LEVELS.indexOf(one.status), show: (one) => status(one.status) },
  { key: "id", title: "Instance", sort: (one) => one.id, show: (one) => (one.facts ? el("a", { href: address({ instance: one.id, status: "", find: "" }) }, el("bdi", {}, one.id)) : el("bdi", {}, one.id)) },
  { key: "cluster", title: "Cluster", class: "less", sort: (one) => one.cluster ?? null, show: (one) => one.cluster ?? UNKNOWN },
  { key: "role", title: "Role", sort: (one) => one.facts?.role ?? null, show: (one) => one.facts?.role ?? UNKNOWN },
  { key: "version", title: "Version", class: "less", sort: (one) => one.facts?.server?.version_num ?? one.facts?.major ?? null, show: (one) => one.facts?.version ?? UNKNOWN },
  { key: "firing", title: "Fires", number: true, sort: (one) => firing(one), show: (one) => amount(firing(one)) },
  { key: "recovery", title: "Recovery", sort: (one) => recovery(one).word, show: (one) => el("span", { class: recovery(one).level }, recovery(one).word) },
  { key: "backup", title: "Backup", number: true, sort: newestBackup, show: (one) => since(newestBackup(one)) || UNKNOWN },
  { key: "load", title: "Transactions", number: true, class: "less", sort: (one) => last(load(one)), show: (one) => [spark(load(one)), " ", measured(last(load(one)), "/s")] },
  { key: "used", title: "Connections", number: true, class: "less", sort: used, show: (one) => measured(used(one), "%") },
  { key: "lag", title: "Replay lag", number: true, class: "less", sort: lag, show: (one) => bytes(lag(one)) },
  { title: "Why", class: "why", show: (one) => why(one) },
];

function firing(one) {
  return one.facts ? (one.facts.alerts?.firing ?? null)?.filter((alert) => alert.node === one.node).length ?? null : null;
}

function why(one) {
  const [first, ...others] = one.reasons.filter((reason) => reason.level !== "notice");
  if (!first) return "";
  const time = first.since ? [" (since ", moment(first.since), ")"] : "";
  return [first.text, time, others.length ? ` and ${others.length} more` : ""];
}

function drawFleet(report) {
  const rows = fleetRows(report);
  const counts = Object.fromEntries(LEVELS.map((level) => [level, rows.filter((row) => row.status === level).length]));
  const tiles = LEVELS.filter((level) => level !== "notice").map((level) =>
    el(
      "button",
      { type: "button", class: `tile ${level}`, "data-key": `tile-${level}`, "aria-pressed": String(shown.status === level), onclick: () => show({ status: shown.status === level ? "" : level }, false) },
      el("b", {}, String(counts[level])),
      status(level),
    ),
  );
  const words = shown.find.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (row) => [row.id, row.cluster, row.facts?.role, row.facts?.version, ...row.reasons.map((reason) => reason.text)].join(" ").toLowerCase();
  const found = rows.filter((row) => (!shown.status || row.status === shown.status) && words.every((word) => text(row).includes(word)));
  const fleet = table("Instances", FLEET, sorted(found, FLEET, shown.sort), { sort: shown.sort, onsort: (sort) => show({ sort }, false) });
  const said = `${found.length} of ${rows.length} shown`;
  return [el("div", { class: "tiles", role: "group", "aria-label": "Filter by status" }, tiles), el("p", { role: "status", id: "count" }, said), fleet];
}
