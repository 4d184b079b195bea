// Propagation as a job: start, progress, cancel; and what to encode ahead while a person looks at a frame.

import * as api from "./api.js";
import { emit, listed, numFrames, on, selected, state } from "./state.js";

const box = document.getElementById("job");
const bar = document.getElementById("job-progress");
const text = document.getElementById("job-text");
const VIEW_AFTER_MS = 1000; // a frame that is looked at for as long counts as viewed
let lastFocus = "";
let viewTimer = 0;

function objects() {
  if (!document.getElementById("propagate-all").checked) return selected() ? [selected()] : [];
  return listed().filter((masklet) => !masklet.locked && masklet.frames.get(state.frame)?.state === "TRACKED");
}

export async function propagate(first, last, untilDoubtful = false) {
  const masklets = objects().map((masklet) => masklet.id);
  try {
    if (!masklets.length) throw new Error("select an object that has a mask in this frame first");
    if (state.phase === 1) throw new Error("phase 1 makes each frame's mask by itself; choose phase 2 or 3 to propagate");
    const values = { masklets, start: state.frame, first, last, phase: state.phase, until_doubtful: untilDoubtful };
    const { job } = await api.propagate(state.recording.id, values);
    show(job);
  } catch (error) {
    emit("failed", error);
  }
}

export const forward = (untilDoubtful = false) => propagate(state.frame, numFrames() - 1, untilDoubtful);
export const backward = () => propagate(0, state.frame);
export const both = () => propagate(0, numFrames() - 1);

export function overRange() {
  const [first, last] = state.range;
  if (first === null || last === null || state.frame < first || state.frame > last) {
    emit("failed", new Error("set the range's first and last frame with I and O, and stay within it"));
    return;
  }
  propagate(first, last);
}

export function cancel() {
  if (!state.job) return false;
  api.cancel(state.job.job_id).catch((error) => emit("failed", error));
  return true;
}

function show(job) {
  const isOver = ["done", "cancelled", "failed"].includes(job.state);
  if (isOver && state.job && state.job.job_id !== job.job_id) return;
  if (!isOver && state.job && state.job.job_id !== job.job_id && state.job.state === "running") return; // queued behind it
  if (job.state === "failed") emit("failed", new Error(`the ${job.kind} stopped: ${job.message}`));
  state.job = isOver ? null : job;
  box.hidden = isOver;
  bar.max = Math.max(1, job.total);
  bar.value = job.done;
  text.textContent = `${job.done} of ${job.total}`;
  document.body.dataset.job = isOver ? job.state : "running";
  if (job.state === "cancelled") emit("told", "cancelled; what was done is kept and can be undone");
}

// Encoding a frame takes longer than a click: it is done while the person looks at the frame.
function focus() {
  if (!state.recording || state.playing || state.mode !== "annotate") return;
  const { recording, frame, selected: masklet, phase } = state;
  const key = [recording.id, frame, masklet, phase].join();
  clearTimeout(viewTimer);
  viewTimer = setTimeout(() => {
    const stillThere = state.recording === recording && state.masklets.has(masklet) ? masklet : null;
    api.view(recording.id, frame, stillThere, phase).catch(() => null);
  }, VIEW_AFTER_MS);
  if (key === lastFocus) return;
  lastFocus = key;
  api.focus(recording.id, frame, masklet, phase).catch(() => null);
}

on("server-job", show);
on("frame-shown selection phase", focus);
