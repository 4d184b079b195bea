// A row per object over all frames: state and quality as colour, prompts as dots, locked frames as a line; play, step, and
// jumps to doubtful frames.

import { waitForMasks, image } from "./frames.js";
import { emit, isFrameLocked, listed, numFrames, on, select, selected, setFrame, state } from "./state.js";

const timeline = document.getElementById("timeline");
const rows = document.getElementById("rows");
const playhead = document.getElementById("playhead");
const time = document.getElementById("time");
const playButton = document.querySelector("[data-command=play]");
const NAME_PX = 130;
const COLORS = { doubtful: "#f0b429", OCCLUDED: "#5b6470", LOST: "#343a42", PENDING: "#343a42" };

const trackWidth = () => Math.max(1, rows.clientWidth - NAME_PX);

// Of the frames that fall on one column of pixels the one that needs a look most is shown.
function columnsOf(masklet, width) {
  const columns = new Array(width).fill(null);
  const perFrame = width / numFrames();
  for (const [index, frame] of masklet.frames) {
    const first = Math.floor(index * perFrame);
    const last = Math.max(first + 1, Math.floor((index + 1) * perFrame));
    for (let x = first; x < Math.min(last, width); x += 1) {
      const column = columns[x] ?? (columns[x] = { weight: -1, prompts: false, locked: true });
      const weight = frame.doubtful ? 3 : frame.state === "TRACKED" ? 0 : 2;
      if (weight > column.weight) Object.assign(column, { weight, frame });
      column.prompts ||= Boolean(frame.prompts) || frame.by === "brush";
      column.locked &&= isFrameLocked(masklet, index);
    }
  }
  return columns;
}

function drawRow(canvas, masklet) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(trackWidth() * ratio), Math.round(21 * ratio)];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const perFrame = width / numFrames();
  const dots = [];
  columnsOf(masklet, width).forEach((column, x) => {
    if (!column) return;
    const { frame } = column;
    const isShown = frame.state === "TRACKED" && !frame.doubtful;
    context.globalAlpha = isShown ? 0.35 + 0.65 * frame.quality : 1;
    context.fillStyle = isShown ? masklet.color : COLORS[frame.doubtful ? "doubtful" : frame.state];
    context.fillRect(x, 4 * ratio, 1, height - 8 * ratio);
    context.globalAlpha = 1;
    if (frame.doubtful && frame.state !== "TRACKED") {
      context.fillStyle = COLORS[frame.state];
      context.fillRect(x, height / 2, 1, height / 2 - 4 * ratio);
    }
    if (column.locked) {
      context.fillStyle = "#fff";
      context.fillRect(x, ratio, 1, 2 * ratio);
    }
  });
  for (const [index, frame] of masklet.frames) {
    if (frame.prompts || frame.by === "brush") dots.push((index + 0.5) * perFrame);
  }
  context.fillStyle = "#fff";
  context.strokeStyle = "#000";
  for (const x of dots) {
    context.beginPath();
    context.arc(x, height / 2, 3 * ratio, 0, 7);
    context.fill();
    context.stroke();
  }
}

function showRows() {
  rows.replaceChildren(
    ...listed().map((masklet) => {
      const track = document.createElement("div");
      track.className = masklet.id === state.selected ? "track selected" : "track";
      track.dataset.id = masklet.id;
      const name = document.createElement("div");
      name.className = "name";
      name.textContent = masklet.name;
      name.title = `${masklet.name}: ${masklet.verdict.replace("_", " ")}`;
      name.style.borderLeftColor = masklet.color;
      if (masklet.verdict !== "unverified") name.classList.add(masklet.verdict);
      const canvas = document.createElement("canvas");
      track.append(name, canvas);
      return track;
    }),
  );
  for (const track of rows.children) drawRow(track.querySelector("canvas"), state.masklets.get(track.dataset.id));
  showPlayhead();
}

function showPlayhead() {
  const at = NAME_PX + ((state.frame + 0.5) / Math.max(1, numFrames())) * trackWidth();
  playhead.style.left = `${at - 1}px`;
  playhead.style.height = `${Math.max(timeline.clientHeight, rows.clientHeight)}px`;
  const seconds = state.stamps ? ` · ${state.stamps[state.frame]?.toFixed(2)} s` : "";
  const [first, last] = state.range;
  const range = first !== null || last !== null ? ` · range ${first ?? "…"} to ${last ?? "…"}` : "";
  time.textContent = `frame ${state.frame} of ${Math.max(0, numFrames() - 1)}${seconds}${range}`;
  const frameIsLocked = isFrameLocked(selected());
  document.querySelector("[data-command=lock-frame]").textContent = frameIsLocked ? "Unlock frame" : "Lock frame";
}

function seek(event) {
  const rect = rows.getBoundingClientRect();
  const x = event.clientX - rect.left - NAME_PX;
  if (x >= 0) setFrame(Math.floor((x / trackWidth()) * numFrames()));
}

// The next frame in a direction in which an object, the selected one or else any, is doubtful.
export function jumpToDoubtful(direction) {
  const masklets = selected() ? [selected()] : listed();
  for (let index = state.frame + direction; index >= 0 && index < numFrames(); index += direction) {
    if (masklets.some((masklet) => masklet.frames.get(index)?.doubtful)) {
      setFrame(index);
      return;
    }
  }
  emit("told", `no doubtful frame ${direction > 0 ? "after" : "before"} this one`);
}

export async function togglePlay() {
  state.playing = !state.playing;
  playButton.textContent = state.playing ? "Stop" : "Play";
  if (state.playing && state.frame === numFrames() - 1) setFrame(0);
  const wait_ms = 1000 / (state.recording.fps || 6);
  while (state.playing && state.frame < numFrames() - 1) {
    const due = performance.now() + wait_ms;
    const next = state.frame + 1;
    await Promise.all([image(next).ready, waitForMasks(next)]).catch(() => null);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    if (state.playing) setFrame(next);
  }
  state.playing = false;
  playButton.textContent = "Play";
}

timeline.addEventListener("pointerdown", (event) => {
  const track = event.target.closest(".track");
  if (track) select(track.dataset.id);
  timeline.setPointerCapture(event.pointerId);
  seek(event);
});
timeline.addEventListener("pointermove", (event) => {
  if (event.buttons) seek(event);
});

let isDue = false; // many changes in a row are drawn once
function showRowsSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    showRows();
  });
}
on("recording masklets selection", showRowsSoon);
on("frame range", showPlayhead);
new ResizeObserver(showRowsSoon).observe(timeline);
