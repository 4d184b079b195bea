// Verification: one masklet after another as a loop and a contact sheet; accept, reject, or not trackable.

import * as api from "./api.js";
import { paintMask } from "./canvas_view.js";
import { image, maskOf, waitForMasks } from "./frames.js";
import { emit, on, select, setFrame, setMode, state } from "./state.js";

const panel = document.getElementById("verify");
const head = document.getElementById("verify-head");
const sheet = document.getElementById("sheet");
const loop = document.getElementById("loop");
const note = document.getElementById("verify-note");
const badge = document.getElementById("queue-length");
const SHEET_FRAMES = 24;
let queue = []; // all masklets as the server lists them; those without a verdict first
let place = 0;
let round = 0; // grows with each masklet that is shown: what is still being drawn for an earlier one stops
let openRecording = async () => {};

export const setOpenRecording = (open) => {
  openRecording = open;
};

const current = () => queue[place] ?? null;
const open = () => queue.filter((row) => row.verdict === "unverified");

export async function loadQueue() {
  try {
    queue = (await api.queue()).queue;
  } catch (error) {
    emit("failed", error);
  }
  badge.textContent = open().length || "";
}

export async function start() {
  const wanted = state.selected;
  await loadQueue();
  const here = queue.findIndex((row) => row.id === wanted && row.recording === state.recording.id && row.verdict === "unverified");
  place = Math.max(0, here);
  await show();
}

export async function step(direction) {
  if (!queue.length) return;
  place = (place + direction + queue.length) % queue.length;
  await show();
}

export async function judge(verdict) {
  const row = current();
  if (!row || state.mode !== "verify") return;
  try {
    await api.verdict(row.recording, row.id, { verdict, note: note.value });
  } catch (error) {
    emit("failed", error);
    return;
  }
  note.value = "";
  await loadQueue();
  place = 0; // the first of those that wait
  await show();
}

// A rejected or doubtful masklet is corrected where it needs it most.
export async function openForCorrection() {
  const row = current();
  if (!row) return;
  await openRecording(row.recording);
  select(row.id);
  setMode("annotate");
  const doubtful = [...state.masklets.get(row.id).frames].filter(([, frame]) => frame.doubtful).map(([index]) => index);
  setFrame(doubtful.length ? Math.min(...doubtful) : row.first);
}

export function toggleSheet() {
  document.getElementById("verify-body").classList.toggle("sheet-only");
}

function describe(row) {
  const title = document.createElement("strong");
  title.textContent = row ? `${row.name}${row.class_name ? ` (${row.class_name})` : ""}` : "Nothing to verify yet.";
  const small = document.createElement("small");
  small.textContent = row
    ? `${row.recording_name} · visible in ${row.visible} of ${row.frames} frames · ${row.doubtful} doubtful · ${row.clicks} ${row.clicks === 1 ? "click" : "clicks"} · ${row.verdict.replace("_", " ")}`
    : "Annotate an object first (V goes back).";
  const count = document.createElement("small");
  count.textContent = queue.length ? `${place + 1} of ${queue.length}, ${open().length} without a verdict` : "";
  head.replaceChildren(title, small, count);
}

async function show() {
  round += 1;
  const row = current();
  describe(row);
  sheet.replaceChildren();
  panel.dataset.masklet = row?.id ?? "";
  loop.getContext("2d").clearRect(0, 0, loop.width, loop.height);
  for (const button of document.querySelectorAll("#verify-actions button")) button.disabled = !row;
  if (!row) return;
  if (state.recording.id !== row.recording) await openRecording(row.recording);
  select(row.id);
  const indices = [...state.masklets.get(row.id).frames.keys()].sort((a, b) => a - b);
  playLoop(row, indices, round);
  await fillSheet(row, indices, round);
}

// The part of the image that the contact sheet shows: the object with some surroundings, in the canvas's proportions.
function cropAround(mask, canvas) {
  const { width, height } = state.recording;
  if (!mask?.box) return [0, 0, width, height];
  const [x0, y0, x1, y1] = mask.box;
  const ratio = canvas.width / canvas.height;
  const wide = Math.min(width, height * ratio, 1.8 * Math.max(x1 - x0, (y1 - y0) * ratio, 40));
  const high = wide / ratio;
  const clamp = (value, limit) => Math.max(0, Math.min(limit, value));
  return [clamp((x0 + x1 - wide) / 2, width - wide), clamp((y0 + y1 - high) / 2, height - high), wide, high];
}

// The image with this masklet alone; all of it, or what is around the object.
async function drawMasked(canvas, row, index, isCropped) {
  const [picture, masks] = await Promise.all([image(index).ready, waitForMasks(index)]);
  const { width, height } = state.recording;
  const rle = masks.get(row.id);
  const mask = rle ? maskOf(rle) : null;
  if (!isCropped) canvas.height = Math.round((canvas.width * height) / width);
  const part = isCropped ? cropAround(mask, canvas) : [0, 0, width, height];
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (picture) context.drawImage(picture, ...part, 0, 0, canvas.width, canvas.height);
  if (!mask) return;
  const layer = new OffscreenCanvas(width, height);
  const data = new ImageData(width, height);
  paintMask(data.data, mask, row.color, true);
  layer.getContext("2d").putImageData(data, 0, 0);
  context.drawImage(layer, ...part, 0, 0, canvas.width, canvas.height);
}

async function playLoop(row, indices, mine) {
  const wait_ms = 1000 / (state.recording.fps || 6);
  loop.width = Math.min(960, state.recording.width);
  for (let at = 0; mine === round && state.mode === "verify"; at = (at + 1) % indices.length) {
    const due = performance.now() + wait_ms;
    await drawMasked(loop, row, indices[at], false).catch(() => null);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
  }
}

async function fillSheet(row, indices, mine) {
  const every = Math.max(1, Math.ceil(indices.length / SHEET_FRAMES));
  for (const index of indices.filter((_, number) => number % every === 0)) {
    if (mine !== round) return;
    const frame = state.masklets.get(row.id)?.frames.get(index);
    const figure = document.createElement("figure");
    figure.className = frame?.doubtful ? "doubtful" : "";
    const canvas = Object.assign(document.createElement("canvas"), { width: 240, height: 135 });
    const caption = document.createElement("figcaption");
    caption.textContent = `${index}${frame?.state === "TRACKED" ? "" : ` ${frame?.state.toLowerCase()}`}`;
    figure.append(canvas, caption);
    figure.addEventListener("click", async () => {
      await openForCorrection();
      setFrame(index);
    });
    sheet.append(figure);
    await drawMasked(canvas, row, index, true).catch(() => null);
  }
  panel.dataset.shown = row.id;
}

let timer = 0;
on("masklets recording", () => {
  clearTimeout(timer);
  timer = setTimeout(loadQueue, 400);
});
on("mode", () => {
  panel.hidden = state.mode !== "verify";
  if (state.mode === "verify") start();
  else round += 1;
});
