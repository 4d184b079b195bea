// Help, export and report, and the messages at the top.

import * as api from "./api.js";
import { on, state } from "./state.js";

const MESSAGE_MS = 8000;
const messages = document.getElementById("messages");

function say(text, kind) {
  const line = document.createElement("div");
  line.textContent = text;
  line.className = kind;
  line.addEventListener("click", () => line.remove());
  messages.append(line);
  while (messages.children.length > 4) messages.firstChild.remove();
  setTimeout(() => line.remove(), MESSAGE_MS);
}

const KEY_NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", Delete: "Del", Backspace: "⌫" };
const named = (key) => key.split(/(?<=.)\+/).map((part) => KEY_NAMES[part] ?? (/^[a-z]$/.test(part) ? part.toUpperCase() : part)).join("+");

function keysOf(keys) {
  const term = document.createElement("dt");
  keys.filter((key) => !/^[!@#=]$/.test(key)).forEach((key, number) => {
    if (number) term.append(" ");
    term.append(Object.assign(document.createElement("kbd"), { textContent: named(key) }));
  });
  return term;
}

export function openHelp(table) {
  const groups = new Map();
  for (const [group, , keys, text] of table) {
    if (keys.length && text) groups.set(group, [...(groups.get(group) ?? []), [keys, text]]);
  }
  groups.get("Objects").push([["1", "9"], "select an object by its place in the list"]);
  const sections = [...groups].map(([group, lines]) => {
    const section = document.createElement("section");
    const list = document.createElement("dl");
    for (const [keys, text] of lines) list.append(keysOf(keys), Object.assign(document.createElement("dd"), { textContent: text }));
    section.append(Object.assign(document.createElement("h3"), { textContent: group }), list);
    return section;
  });
  document.getElementById("shortcuts").replaceChildren(...sections);
  document.getElementById("help").showModal();
}

const exporting = document.getElementById("export");
const form = exporting.querySelector("form");

export const openExport = () => exporting.showModal();

function answer(text, isError = false) {
  const line = form.querySelector(".message");
  line.textContent = text;
  line.className = isError ? "message error" : "message";
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { format, out, accepted_only: accepted, split } = form.elements;
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  answer("exporting …");
  try {
    const values = { format: format.value, out: out.value, accepted_only: accepted.checked };
    if (split.value) values.split = Number(split.value);
    const done = await api.exportProject(values);
    answer(`${done.masklets} ${done.masklets === 1 ? "masklet" : "masklets"} exported to ${done.out}`);
  } catch (error) {
    answer(error.message, true);
  } finally {
    button.disabled = false;
  }
});
form.querySelector("[data-close]").addEventListener("click", () => exporting.close());

const share = (value) => (value === null ? "–" : `${Math.round(100 * value)} %`);
const number = (value) => (value === null ? "–" : String(Math.round(10 * value) / 10));
const REPORT_ROWS = [
  ["masklets", (cost) => cost.masklets],
  ["annotated frames", (cost) => cost.annotated_frames],
  ["seconds a frame", (cost) => number(cost.seconds_per_frame)],
  ["clicks a masklet", (cost) => number(cost.clicks_per_masklet)],
  ["brush strokes", (cost) => cost.brush_strokes],
  ["edited frames", (cost) => share(cost.edited_share)],
  ["accepted", (cost) => cost.verdicts.accepted],
  ["rejected", (cost) => cost.verdicts.rejected],
];

// A column per phase and one for all: what `sam2-ros dataset report` says.
function tableOf(report) {
  const table = document.createElement("table");
  const line = (tag, cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => Object.assign(document.createElement(tag), { textContent: cell })));
    table.append(row);
  };
  const phases = Object.entries(report.phases);
  line("th", ["", ...phases.map(([name]) => (name === "none" ? "no phase" : `phase ${name}`)), "all"]);
  for (const [title, read] of REPORT_ROWS) line("td", [title, ...phases.map(([, cost]) => read(cost)), read(report.total)]);
  line("td", ["seconds a verdict", ...phases.map(() => ""), number(report.verification.seconds_per_masklet)]);
  return table;
}

export async function openReport() {
  try {
    document.getElementById("report-body").replaceChildren(tableOf(await api.report()));
    document.getElementById("report").showModal();
  } catch (error) {
    say(error.message, "error");
  }
}

let busy = 0;
const status = document.getElementById("status");
on("failed", (error) => say(error.message, "error"));
on("told", (text) => say(text, "info"));
on("status", (text) => {
  status.textContent = text || `${state.project?.model ?? ""}`;
});
on("busy", (change) => {
  busy += change;
  document.body.dataset.busy = busy;
});
