// Starts the page: loads the project, opens a recording, and connects the change stream.

import * as api from "./api.js";
import * as commands from "./commands.js";
import { applyChange, emit, loadRecording, on, setFrame, setPhase, setTool, state } from "./state.js";
import { screenPosition } from "./canvas_view.js";
import * as verify from "./verify.js";

const recordings = document.getElementById("recording");
let early = null; // changes that came while a recording was being loaded

async function openRecording(id) {
  const recording = state.project.recordings.find((each) => each.id === id);
  early = [];
  try {
    const answer = await api.recording(id);
    if (state.recording?.id !== id) state.frame = 0;
    loadRecording(recording, answer);
    for (const change of early) {
      if (change.revision > answer.revision) applyChange(change);
    }
    recordings.value = id;
  } catch (error) {
    emit("failed", error);
  } finally {
    early = null;
  }
}

on("server-change", (change) => {
  if (early) early.push(change);
  else applyChange(change);
});
on("reconnected", () => openRecording(state.recording.id));
on("phase", () => {
  for (const button of document.querySelectorAll("#phases button")) {
    button.setAttribute("aria-checked", Number(button.dataset.phase) === state.phase);
  }
  for (const button of document.querySelectorAll("#propagate button")) button.disabled = state.phase === 1;
});
on("mode", () => {
  document.body.dataset.mode = state.mode;
  state.playing = false;
  for (const button of document.querySelectorAll("#modes button")) {
    button.setAttribute("aria-checked", button.dataset.mode === state.mode);
  }
});

async function start() {
  commands.listen();
  api.listen();
  verify.setOpenRecording(openRecording);
  setTool("click");
  setPhase(3);
  emit("mode");
  try {
    state.project = await api.project();
  } catch (error) {
    emit("failed", error);
    return;
  }
  document.title = `${state.project.name} · sam2-ros annotate`;
  document.getElementById("project-name").textContent = state.project.name;
  recordings.replaceChildren(
    ...state.project.recordings.map(({ id, name }) => Object.assign(document.createElement("option"), { value: id, textContent: name })),
  );
  emit("status", "");
  await openRecording(state.project.recordings[0].id);
  for (const job of state.project.jobs) emit("server-job", job);
  document.getElementById("stage").focus();
  document.body.dataset.ready = "true";
}

recordings.addEventListener("change", () => openRecording(recordings.value));

// For those who drive the page from outside: what it knows, and where a pixel is on the screen.
window.sam2Annotate = { state, screenPosition, setFrame };

start();
