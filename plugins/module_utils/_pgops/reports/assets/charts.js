// Charts: lines over time, with the thresholds of their metric and the events of the instance drawn in.

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // told apart by the colour-blind
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [10, 4]]; // and on paper without colours
const HEIGHT = 150;
const drawn = [];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function line(context, from, to, style, dash) {
  context.save();
  context.strokeStyle = style;
  context.lineWidth = devicePixelRatio;
  context.setLineDash(dash.map((one) => one * devicePixelRatio));
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  context.restore();
}

function marks(data, events) {
  return (plot) => {
    const { left, top, width, height } = plot.bbox;
    for (const level of ["warning", "critical"]) {
      const value = data.thresholds?.[level];
      if (value === null || value === undefined || value < plot.scales.y.min || value > plot.scales.y.max) continue;
      const y = plot.valToPos(value, "y", true);
      line(plot.ctx, [left, y], [left + width, y], colour(`--${level}`), [4, 4]);
    }
    for (const event of events) {
      if (event.at < plot.scales.x.min || event.at > plot.scales.x.max) continue;
      const x = plot.valToPos(event.at, "x", true);
      line(plot.ctx, [x, top], [x, top + height], colour("--event"), [2, 3]);
    }
  };
}

function legend(title, unit, lines) {
  const values = lines.map(() => el("b", {}));
  const items = lines.map((one, place) => {
    const swatch = el("span", { class: `swatch line${place}`, "aria-hidden": "true" });
    return el("li", {}, swatch, el("bdi", {}, one.name), " ", values[place]);
  });
  const set = (at) => {
    lines.forEach((one, place) => {
      values[place].textContent = measured(at === null ? last(one.values) : one.values[at], unit);
    });
  };
  set(null);
  return { node: el("ul", { class: "legend", "aria-label": `${title}: newest values` }, items), set };
}

function last(values) {
  for (let place = values.length - 1; place >= 0; place -= 1) if (values[place] !== null) return values[place];
  return null;
}

function times(window) {
  const step = (window.ends - window.starts) / window.points;
  return Array.from({ length: window.points }, (_none, place) => window.starts + (place + 1) * step);
}

// How many steps are usually between two samples: some things are measured more seldom than others. What is missing for
// longer is a gap, and stays one.
function spacing(values) {
  const places = values.flatMap((value, place) => (value === null ? [] : [place]));
  const steps = places.slice(1).map((place, before) => place - places[before]).sort((a, b) => a - b);
  return steps[Math.floor(steps.length / 2)] ?? 1;
}

function gaps(values) {
  const most = 2.5 * spacing(values);
  return (plot, _series, _from, _to, found) => {
    const step = (plot.valToPos(plot.data[0][1], "x", true) - plot.valToPos(plot.data[0][0], "x", true)) || 1;
    return found.filter(([start, end]) => end - start > most * step);
  };
}

// The chart is drawn when its place is known to the browser: see plotAll().
function chart(described, data, window, events, made) {
  const names = legend(described.title, described.unit, data.lines);
  const place = el("div", { class: "plot", role: "img", "aria-label": spoken(described, data) });
  drawn.push({ described, data, window, events, place, names, plot: null });
  return panel(described.title, [place, names.node], { age: since(made - data.newest) });
}

function spoken(described, data) {
  const parts = data.lines.map((one) => {
    const known = one.values.filter((value) => value !== null);
    const [low, high] = [Math.min(...known), Math.max(...known)].map((value) => measured(value, described.unit));
    return `${one.name} from ${low} to ${high}, last ${measured(last(one.values), described.unit)}`;
  });
  return plain(`${described.title}: ${parts.join("; ")}`);
}

// By the reader's clock of 24 hours; the day where one begins, and at first.
function clock(_plot, ticks) {
  let day = "";
  const parts = { hour: "2-digit", minute: "2-digit", ...(ticks[1] - ticks[0] < 60 ? { second: "2-digit" } : {}) };
  return ticks.map((tick) => {
    const date = new Date(tick * 1000);
    const time = date.toLocaleTimeString("sv", parts);
    const today = date.toLocaleDateString("sv");
    const mark = today === day ? "" : `\n${today}`;
    day = today;
    return time + mark;
  });
}

function plotted(one) {
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid") }, font: "11px system-ui, sans-serif" };
  const span = range(one.window);
  const options = {
    width: Math.max(200, one.place.clientWidth),
    height: HEIGHT,
    legend: { show: false },
    cursor: { sync: { key: "charts" }, drag: { x: true, y: false } },
    scales: { x: { time: true, range: () => span }, y: { range: (_plot, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.08 : 1] } },
    axes: [{ ...axis, values: clock }, { ...axis, size: 78, values: (_plot, ticks) => ticks.map((tick) => measured(tick, one.described.unit)) }],
    series: [
      {},
      ...one.data.lines.map((made, place) => ({ label: plain(made.name), stroke: COLOURS[place], dash: DASHES[place], width: 1.5, points: { size: 4 }, gaps: gaps(made.values) })),
    ],
    hooks: {
      draw: [marks(one.data, one.events)],
      setCursor: [(plot) => one.names.set(plot.cursor.idx ?? null)],
      setSelect: [chosen],
    },
  };
  return new uPlot(options, [times(one.window), ...one.data.lines.map((made) => made.values)], one.place);
}

// What is selected with the mouse becomes the time that all panels show.
function chosen(plot) {
  if (plot.select.width < 5) return;
  const [from, to] = [plot.select.left, plot.select.left + plot.select.width].map((x) => Math.round(plot.posToVal(x, "x")));
  show({ from: String(from), to: String(to) });
}

function plotAll() {
  for (const one of drawn) {
    one.plot?.destroy();
    one.plot = plotted(one);
  }
}

// The seconds that are shown: the chosen ones, as far as there is data of them.
function range(window) {
  const from = shown.from ? Math.max(Number(shown.from), window.starts) : window.starts;
  const to = shown.to ? Math.min(Number(shown.to), window.ends) : window.ends;
  return from < to ? [from, to] : [window.starts, window.ends];
}

// A line without axes for a row of the fleet: it is read together with its last value.
function spark(values) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const most = Math.max(...known) || 1;
  const places = values.map((value, place) => (value === null ? null : `${((place / (values.length - 1)) * 90).toFixed(1)},${(20 - (value / most) * 18).toFixed(1)}`));
  const path = places.map((point, place) => (point ? `${places[place - 1] ? "L" : "M"}${point}` : "")).join("");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of Object.entries({ width: 90, height: 22, class: "spark", "aria-hidden": "true" })) svg.setAttribute(name, value);
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}
