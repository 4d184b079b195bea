// What the page knows. Modules read `state`, change it through the functions here, and hear of it by topic.
// The server's change stream is the only thing that writes masklets: a click shows what is on the disk, not a guess.

export const state = {
  project: null, // {name, model, classes, recordings: [{id, name, num_frames, width, height, fps, ...}]}
  recording: null, // one of project.recordings
  stamps: [], // seconds since the first frame
  masklets: new Map(), // id -> {id, name, class_name, color, locked, hidden, verdict, note, frames: Map(index -> frame)}
  order: [], // ids as listed
  selected: null, // id
  frame: 0,
  tool: "click", // click, box, brush, eraser, pan
  brushSize: 20, // px of the image
  phase: 3, // of the paper's data engine
  mode: "annotate", // or verify
  range: [null, null], // first and last frame of "Range"
  playing: false,
  job: null, // the running propagation or export
};

const listeners = new Map();

export function on(topics, listener) {
  for (const topic of topics.split(" ")) {
    if (!listeners.has(topic)) listeners.set(topic, []);
    listeners.get(topic).push(listener);
  }
}

export function emit(topic, detail) {
  for (const listener of listeners.get(topic) ?? []) listener(detail);
}

export const numFrames = () => state.recording?.num_frames ?? 0;
export const selected = () => state.masklets.get(state.selected) ?? null;
export const listed = () => state.order.map((id) => state.masklets.get(id)).filter(Boolean);
export const frameOf = (masklet, index = state.frame) => masklet?.frames.get(index) ?? null;

export function isFrameLocked(masklet, index = state.frame) {
  const frame = frameOf(masklet, index);
  return Boolean(masklet && (masklet.locked || masklet.verdict === "accepted" || frame?.locked));
}

export function setFrame(index) {
  const clamped = Math.max(0, Math.min(numFrames() - 1, Math.round(index)));
  if (clamped === state.frame) return;
  state.frame = clamped;
  emit("frame");
}

export function select(id) {
  if (state.selected === id) return;
  state.selected = id;
  emit("selection");
}

export function setTool(tool) {
  state.tool = tool;
  emit("tool");
}

export function setBrushSize(size) {
  state.brushSize = Math.max(1, Math.min(120, Math.round(size)));
  emit("tool");
}

export function setPhase(phase) {
  state.phase = phase;
  emit("phase");
}

export function setMode(mode) {
  if (state.mode === mode) return;
  state.mode = mode;
  emit("mode");
}

export function setRange(which, index) {
  state.range[which] = state.range[which] === index ? null : index;
  const [first, last] = state.range;
  if (first !== null && last !== null && first > last) state.range = [last, first];
  emit("range");
}

function readFrames(values) {
  return new Map(Object.entries(values).map(([index, frame]) => [Number(index), frame]));
}

export function loadRecording(recording, answer) {
  state.recording = recording;
  state.stamps = answer.stamps;
  state.masklets = new Map(answer.masklets.map((each) => [each.id, { ...each, frames: readFrames(each.frames) }]));
  state.order = answer.masklets.map((each) => each.id);
  if (!state.masklets.has(state.selected)) state.selected = state.order[0] ?? null;
  state.frame = Math.min(state.frame, recording.num_frames - 1);
  state.range = [null, null];
  emit("recording");
}

// A change of one masklet as the server stored it: new properties, and the frames that were set (or null: removed).
export function applyChange(change) {
  if (change.recording !== state.recording?.id) return;
  const { frames, removed, ...properties } = change.masklet;
  if (removed) {
    state.masklets.delete(properties.id);
    state.order = state.order.filter((id) => id !== properties.id);
    if (state.selected === properties.id) select(state.order[0] ?? null);
  } else {
    const masklet = state.masklets.get(properties.id) ?? { frames: new Map() };
    Object.assign(masklet, properties);
    for (const [index, frame] of readFrames(frames)) {
      if (frame) masklet.frames.set(index, frame);
      else masklet.frames.delete(index);
    }
    if (!state.masklets.has(masklet.id)) state.order.push(masklet.id);
    state.masklets.set(masklet.id, masklet);
  }
  emit("masklets", change);
}
