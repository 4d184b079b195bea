// The list of objects, the properties of the selected one, and what can be done to it as a whole.

import * as api from "./api.js";
import { emit, frameOf, isFrameLocked, listed, on, select, selected, state } from "./state.js";

const list = document.getElementById("objects");
const details = document.getElementById("details");
const verdict = document.getElementById("verdict");
const MARKS = { accepted: "✓", rejected: "✗", not_trackable: "∅", unverified: "" };
const WORDS = { accepted: "accepted", rejected: "rejected: to be corrected", not_trackable: "not trackable", unverified: "not verified yet" };

async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    emit("failed", error);
    return null;
  }
}

// The id of a new object, once the change stream has brought it.
export async function addObject() {
  const { masklet } = await api.addMasklet(state.recording.id, { phase: state.phase });
  if (!state.masklets.has(masklet)) {
    await new Promise((resolve) => {
      const check = setInterval(() => {
        if (!state.masklets.has(masklet)) return;
        clearInterval(check);
        resolve();
      }, 5);
    });
  }
  select(masklet);
  return masklet;
}

export const newObject = () => attempt(addObject);

const update = (id, values) => attempt(() => api.updateMasklet(state.recording.id, id, values));

export function toggle(property, id = state.selected) {
  const masklet = state.masklets.get(id);
  if (masklet) update(id, { [property]: !masklet[property] });
}

export function removeSelected() {
  const masklet = selected();
  if (masklet) attempt(() => api.removeMasklet(state.recording.id, masklet.id));
}

export function clearFrame() {
  if (frameOf(selected())) attempt(() => api.clearFrame(state.recording.id, state.selected, state.frame, state.phase));
}

export function markAbsent() {
  if (selected()) attempt(() => api.setMask(state.recording.id, state.selected, state.frame, { tool: "absent", phase: state.phase }));
}

// Repeat what this frame shows over the range: for an object that rests there, or is not visible.
export function holdOverRange() {
  const [first, last] = state.range;
  if (!selected()) return;
  attempt(async () => {
    if (first === null || last === null) throw new Error("set the range's first and last frame with I and O first");
    const { frames } = await api.holdFrame(state.recording.id, state.selected, state.frame, { first, last, phase: state.phase });
    emit("told", `${selected()?.name}: as in frame ${state.frame} in ${frames} more ${frames === 1 ? "frame" : "frames"}`);
  });
}

// Lock or unlock the frame; with a range set, all annotated frames of it.
export function toggleFrameLock() {
  const masklet = selected();
  if (!masklet) return;
  if (masklet.verdict === "accepted") {
    attempt(() => api.verdict(state.recording.id, masklet.id, { verdict: "unverified" }));
    return;
  }
  const [first, last] = state.range[0] !== null && state.range[1] !== null ? state.range : [state.frame, state.frame];
  attempt(() => api.lockFrames(state.recording.id, masklet.id, { first, last, locked: !isFrameLocked(masklet) }));
}

export function selectNext(direction) {
  const place = state.order.indexOf(state.selected);
  const next = state.order[(place + direction + state.order.length) % state.order.length];
  if (next) select(next);
}

function toggleButton(masklet, property, content, title) {
  const button = document.createElement("button");
  button.append(content);
  button.title = title;
  button.setAttribute("aria-label", title);
  button.setAttribute("aria-pressed", masklet[property]);
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    toggle(property, masklet.id);
  });
  return button;
}

function row(masklet, number) {
  const item = document.createElement("li");
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", masklet.id === state.selected);
  item.dataset.id = masklet.id;
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = masklet.color;
  const label = document.createElement("span");
  label.className = "label";
  label.textContent = masklet.name;
  const small = document.createElement("small");
  small.textContent = masklet.class_name ? ` ${masklet.class_name}` : "";
  label.append(small);
  label.title = number < 9 ? `${masklet.name} (${number + 1})` : masklet.name;
  const mark = document.createElement("span");
  mark.className = `mark ${masklet.verdict}`;
  mark.textContent = MARKS[masklet.verdict];
  mark.title = WORDS[masklet.verdict];
  item.append(swatch, label, mark);
  const lock = Object.assign(new Image(14, 14), { src: `static/${masklet.locked ? "locked" : "unlocked"}.svg`, alt: "" });
  item.append(
    toggleButton(masklet, "hidden", masklet.hidden ? "◌" : "◉", "Hide or show (H)"),
    toggleButton(masklet, "locked", lock, "Lock or unlock the object (Shift+L)"),
  );
  item.addEventListener("click", () => select(masklet.id));
  return item;
}

let listShown = "";

function showList() {
  const masklets = listed();
  // A row that is replaced while the button is down gets no click: a propagation changes frames alone, twice a second.
  const wanted = JSON.stringify([state.selected, masklets.map(({ frames, ...properties }) => properties)]);
  if (wanted === listShown) return;
  listShown = wanted;
  list.replaceChildren(...masklets.map(row));
  if (!masklets.length) {
    const empty = document.createElement("li");
    empty.className = "empty";
    empty.textContent = "None yet. Click on something in the image.";
    list.append(empty);
  }
  list.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
}

function showDetails() {
  const masklet = selected();
  for (const name of ["name", "class_name", "color"]) {
    const input = details.elements[name];
    input.disabled = !masklet || masklet.locked;
    if (document.activeElement !== input) input.value = masklet?.[name] ?? (name === "color" ? "#808080" : "");
  }
  verdict.textContent = masklet ? `${WORDS[masklet.verdict]}${masklet.note ? `: ${masklet.note}` : ""}` : "";
  verdict.className = masklet?.verdict ?? "";
}

function showClasses() {
  const names = new Set([...(state.project?.classes ?? []), ...listed().map((masklet) => masklet.class_name)]);
  document.getElementById("classes").replaceChildren(
    ...[...names].filter(Boolean).map((name) => Object.assign(document.createElement("option"), { value: name })),
  );
}

details.addEventListener("change", (event) => {
  const { name, value } = event.target;
  if (name === "name" && !value.trim()) {
    event.target.value = selected()?.name ?? ""; // an object has a name
    return;
  }
  if (selected() && selected()[name] !== value) update(state.selected, { [name]: value });
});
details.addEventListener("submit", (event) => event.preventDefault());
details.addEventListener("keydown", (event) => {
  if (event.key === "Enter") document.getElementById("stage").focus(); // which ends the edit, and gives the keys back
});
on("recording masklets selection", () => {
  showList();
  showDetails();
});
on("recording masklets", showClasses);
