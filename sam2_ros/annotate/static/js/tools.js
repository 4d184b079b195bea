// What the pointer does on the stage, by tool: click, box, brush, eraser, pan; and the same by keyboard.

import * as api from "./api.js";
import { cursor, drawCursor, isInside, pan, showPainted, sourcePosition, zoom } from "./canvas_view.js";
import { addObject } from "./objects.js";
import { maskOf, masksOf } from "./frames.js";
import { emptyMask, encodeMask, fillOutline, paintLine } from "./rle.js";
import { emit, isFrameLocked, on, selected, state } from "./state.js";

const stage = document.getElementById("stage");
const position = document.getElementById("position");
const hint = document.getElementById("hint");
const SMALLEST_BOX_PX = 3; // of the source; a shorter drag was meant as a click
let drag = null; // {kind, from, last, mask, outline}
let waiting = Promise.resolve(); // one prompt after the other, in the order of the clicks

// The object that a prompt is for; a new one where none is selected.
async function target() {
  const id = selected() ? state.selected : await addObject();
  const masklet = state.masklets.get(id);
  if (isFrameLocked(masklet)) throw new Error(`${masklet.name}: this frame is locked; press L to unlock it`);
  return id;
}

function inOrder(action) {
  waiting = waiting.then(async () => {
    emit("busy", 1);
    try {
      await action();
    } catch (error) {
      emit("failed", error);
    } finally {
      emit("busy", -1);
    }
  });
  return waiting;
}

export function sendPrompt(values) {
  const { recording, frame, phase } = state;
  return inOrder(async () => api.prompt(recording.id, await target(), frame, { ...values, phase }));
}

// A point names a pixel of the source: the one that the position lies in.
export function sendClick(at, label) {
  if (!isInside(at)) return;
  sendPrompt({ points: [at.map(Math.floor)], labels: [label] });
}

function sendBox([x0, y0], [x1, y1]) {
  const { width, height } = state.recording;
  const clip = (value, limit) => Math.max(0, Math.min(limit, Math.round(value)));
  const box = [clip(Math.min(x0, x1), width), clip(Math.min(y0, y1), height), clip(Math.max(x0, x1), width), clip(Math.max(y0, y1), height)];
  if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) sendPrompt({ box });
}

function sendPainted(mask, tool) {
  const { recording, frame, phase } = state;
  inOrder(async () => {
    await api.setMask(recording.id, await target(), frame, { mask: encodeMask(mask), tool, phase });
  }).then(() => {
    if (!drag) showPainted(null);
  });
}

function paintableMask() {
  const { width, height } = state.recording;
  const rle = masksOf(state.frame)?.get(state.selected);
  if (!rle) return emptyMask(width, height);
  const mask = maskOf(rle);
  return { ...mask, pixels: mask.pixels.slice() };
}

function startsPan(event) {
  return state.tool === "pan" || event.button === 1 || event.altKey;
}

async function press(event) {
  if (!state.recording || state.mode !== "annotate") return;
  stage.focus();
  stage.setPointerCapture(event.pointerId);
  const at = sourcePosition(event);
  cursor.byKeyboard = false;
  if (startsPan(event)) {
    drag = { kind: "pan", screen: [event.clientX, event.clientY] };
    stage.classList.add("panning");
  } else if (state.tool === "box" && event.button === 0) {
    drag = { kind: "box", from: at };
  } else if (state.tool === "brush" || state.tool === "eraser") {
    if (isFrameLocked(selected())) {
      emit("failed", new Error("this frame is locked; press L to unlock it"));
      return;
    }
    const erases = (state.tool === "eraser") !== (event.button === 2);
    drag = { kind: "paint", tool: erases ? "eraser" : "brush", last: at, mask: paintableMask(), outline: event.shiftKey ? [at] : null };
    cursor.outline = drag.outline;
    if (!drag.outline) paint(at);
  } else if (state.tool === "click") {
    sendClick(at, event.button === 2 || event.ctrlKey ? 0 : 1);
  } else if (state.tool === "box") {
    sendClick(at, 0);
  }
}

function paint(at) {
  paintLine(drag.mask, drag.last, at, state.brushSize / 2, drag.tool === "brush" ? 1 : 0);
  drag.last = at;
  showPainted(drag.mask);
}

function move(event) {
  if (!state.recording) return;
  const at = sourcePosition(event);
  cursor.at = at;
  position.textContent = isInside(at) ? `x ${Math.floor(at[0])}  y ${Math.floor(at[1])}` : "";
  if (drag?.kind === "pan") {
    pan(event.clientX - drag.screen[0], event.clientY - drag.screen[1]);
    drag.screen = [event.clientX, event.clientY];
  } else if (drag?.kind === "box") {
    cursor.box = [Math.min(drag.from[0], at[0]), Math.min(drag.from[1], at[1]), Math.max(drag.from[0], at[0]), Math.max(drag.from[1], at[1])];
  } else if (drag?.outline) {
    drag.outline.push(at);
  } else if (drag?.kind === "paint") {
    paint(at);
  }
  drawCursor();
}

function release(event) {
  if (!drag) return;
  const done = drag;
  drag = null;
  stage.classList.remove("panning");
  cursor.box = cursor.outline = null;
  if (done.kind === "box") {
    const at = sourcePosition(event);
    const isClick = Math.abs(at[0] - done.from[0]) < SMALLEST_BOX_PX && Math.abs(at[1] - done.from[1]) < SMALLEST_BOX_PX;
    if (isClick) sendClick(at, 1);
    else sendBox(done.from, at);
  } else if (done.kind === "paint") {
    if (done.outline) fillOutline(done.mask, done.outline, done.tool === "brush" ? 1 : 0);
    if (done.outline) showPainted(done.mask);
    sendPainted(done.mask, done.tool);
  }
  drawCursor();
}

// Drop what is being dragged; whether there was something.
export function dropDrag() {
  const was = drag !== null;
  drag = null;
  cursor.box = cursor.outline = null;
  showPainted(null);
  drawCursor();
  return was;
}

export function moveCursor(dx, dy) {
  const { width, height } = state.recording;
  const [x, y] = cursor.at ?? [width / 2, height / 2];
  cursor.at = [Math.max(0.5, Math.min(width - 0.5, Math.floor(x) + 0.5 + dx)), Math.max(0.5, Math.min(height - 0.5, Math.floor(y) + 0.5 + dy))];
  cursor.byKeyboard = true;
  position.textContent = `x ${Math.floor(cursor.at[0])}  y ${Math.floor(cursor.at[1])}`;
  drawCursor();
}

export function clickAtCursor(label) {
  if (cursor.at) sendClick(cursor.at, label);
}

const HINTS = {
  click: "left click: on the object · right click: not on it",
  box: "drag a box around the object",
  brush: "drag to paint · Shift: paint all within the outline · right button erases",
  eraser: "drag to erase · Shift: erase all within the outline · right button paints",
  pan: "drag to move · wheel to zoom",
};

function showHint() {
  const name = selected()?.name;
  hint.textContent = state.recording ? `${name ? `${name}: ` : "new object: "}${HINTS[state.tool]}` : "";
}

stage.addEventListener("pointerdown", press);
stage.addEventListener("pointermove", move);
stage.addEventListener("pointerup", release);
stage.addEventListener("pointercancel", dropDrag);
stage.addEventListener("pointerleave", () => {
  if (cursor.byKeyboard) return;
  cursor.at = null;
  position.textContent = "";
  drawCursor();
});
stage.addEventListener("contextmenu", (event) => event.preventDefault());
stage.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event);
  },
  { passive: false },
);

on("tool", () => {
  stage.dataset.tool = state.tool;
  for (const button of document.querySelectorAll("#tools [data-tool]")) {
    button.setAttribute("aria-checked", button.dataset.tool === state.tool);
  }
  document.getElementById("brush-size").value = state.brushSize;
});
on("tool selection recording masklets", showHint);
