"use strict";
// Text as it is shown. Names and queries are chosen by others: they only ever become text nodes, and what a browser would
// obey instead of showing it (controls, marks of direction) is written as its code.

const OBEYED = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function plain(text, lines = false) {
  return String(text).replace(OBEYED, (mark) => {
    if (lines && (mark === "\n" || mark === "\t")) return mark;
    return "\\u" + mark.codePointAt(0).toString(16).padStart(4, "0");
  });
}

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(plain(child, tag === "pre")));
  }
  return node;
}

const UNKNOWN = "–";

function amount(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  const options = size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits };
  return value.toLocaleString("en", options);
}

function scaled(value, steps, base) {
  let place = 0;
  let size = value;
  while (Math.abs(size) >= base && place < steps.length - 1) {
    size /= base;
    place += 1;
  }
  return `${amount(size)} ${steps[place]}`;
}

function bytes(value) {
  return value === null || value === undefined ? UNKNOWN : scaled(value, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 1024);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  if (seconds < 0) return `-${duration(-seconds)}`;
  if (seconds < 1) return `${amount(seconds * 1000, 2)} ms`;
  if (seconds < 120) return `${amount(seconds, seconds < 10 ? 2 : 3)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${amount(seconds / 3600, 2)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

// A value with its unit, as metrics have them.
function measured(value, unit) {
  if (value === null || value === undefined) return UNKNOWN;
  switch (unit) {
    case "B":
    case "bytes":
      return bytes(value);
    case "B/s":
      return `${bytes(value)}/s`;
    case "MB":
      return bytes(value * 1048576);
    case "s":
      return duration(value);
    case "ms":
      return duration(value / 1000);
    case "":
    case "count":
      return amount(value);
    default:
      return `${amount(value)} ${unit}`;
  }
}

function seconds(time) {
  return typeof time === "number" ? time : Date.parse(time) / 1000;
}

// A moment in the reader's time zone, with UTC at hand. `time` is in ISO 8601, or in seconds since 1970.
function moment(time) {
  if (time === null || time === undefined) return UNKNOWN;
  const date = new Date(seconds(time) * 1000);
  const options = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const utc = date.toISOString().slice(0, 19) + "Z";
  return el("time", { datetime: utc, title: `${utc.replace("T", " ").replace("Z", "")} UTC` }, date.toLocaleString("sv", options));
}
