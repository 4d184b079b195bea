// Everything that a button or a key can do, in one table: the page of shortcuts is made from it, so it cannot lag behind.

import * as api from "./api.js";
import { fit, zoom } from "./canvas_view.js";
import * as dialogs from "./dialogs.js";
import * as objects from "./objects.js";
import * as propagation from "./propagation.js";
import { emit, numFrames, select, setBrushSize, setFrame, setMode, setPhase, setRange, setTool, state } from "./state.js";
import { jumpToDoubtful, togglePlay } from "./timeline.js";
import { clickAtCursor, dropDrag, moveCursor } from "./tools.js";
import * as verify from "./verify.js";

const server = (action) => async () => {
  try {
    const answer = await action(state.recording.id);
    if (answer.masklet === null) emit("told", "nothing left");
  } catch (error) {
    emit("failed", error);
  }
};
const step = (count) => () => setFrame(state.frame + count);
const inVerify = (other, there) => () => (state.mode === "verify" ? there() : other());

// [group, command, keys, what it does, action]; a key is "Ctrl+Shift+x", where Ctrl is the Command key on a Mac.
const TABLE = [
  ["Frames", "play", ["Space"], "play or stop", togglePlay],
  ["Frames", "step-back", ["ArrowLeft"], "one frame back", step(-1)],
  ["Frames", "step-forward", ["ArrowRight"], "one frame on", step(1)],
  ["Frames", "ten-back", ["Shift+ArrowLeft"], "ten frames back", step(-10)],
  ["Frames", "ten-forward", ["Shift+ArrowRight"], "ten frames on", step(10)],
  ["Frames", "first", ["Home"], "first frame", () => setFrame(0)],
  ["Frames", "last", ["End"], "last frame", () => setFrame(numFrames() - 1)],
  ["Frames", "next-doubtful", ["d"], "next doubtful frame", () => jumpToDoubtful(1)],
  ["Frames", "previous-doubtful", ["Shift+D"], "previous doubtful frame", () => jumpToDoubtful(-1)],
  ["Frames", "range-first", ["i"], "first frame of the range, set or unset", () => setRange(0, state.frame)],
  ["Frames", "range-last", ["o"], "last frame of the range, set or unset", () => setRange(1, state.frame)],
  ["Tools", "tool-click", ["c"], "click: left on the object, right not on it", () => setTool("click")],
  ["Tools", "tool-box", ["b"], "box", () => setTool("box")],
  ["Tools", "tool-brush", ["p"], "brush; with Shift all within an outline", () => setTool("brush")],
  ["Tools", "tool-eraser", ["e"], "eraser; likewise", () => setTool("eraser")],
  ["Tools", "tool-pan", ["m"], "move the image; also Alt, middle button", () => setTool("pan")],
  ["Tools", "brush-smaller", ["["], "smaller brush", () => setBrushSize(state.brushSize / 1.25 - 0.5)],
  ["Tools", "brush-larger", ["]"], "larger brush", () => setBrushSize(state.brushSize * 1.25 + 0.5)],
  ["Tools", "cursor-left", ["Ctrl+ArrowLeft"], "move the cursor (any arrow); Shift: ten pixels", () => moveCursor(-1, 0)],
  ["Tools", "cursor-right", ["Ctrl+ArrowRight"], "", () => moveCursor(1, 0)],
  ["Tools", "cursor-up", ["Ctrl+ArrowUp"], "", () => moveCursor(0, -1)],
  ["Tools", "cursor-down", ["Ctrl+ArrowDown"], "", () => moveCursor(0, 1)],
  ["Tools", "cursor-left-10", ["Ctrl+Shift+ArrowLeft"], "", () => moveCursor(-10, 0)],
  ["Tools", "cursor-right-10", ["Ctrl+Shift+ArrowRight"], "", () => moveCursor(10, 0)],
  ["Tools", "cursor-up-10", ["Ctrl+Shift+ArrowUp"], "", () => moveCursor(0, -10)],
  ["Tools", "cursor-down-10", ["Ctrl+Shift+ArrowDown"], "", () => moveCursor(0, 10)],
  ["Tools", "cursor-click", ["Enter"], "click on the object at the cursor", inVerify(() => clickAtCursor(1), verify.openForCorrection)],
  ["Tools", "cursor-click-off", ["Shift+Enter"], "click beside the object at the cursor", () => clickAtCursor(0)],
  ["Tools", "zoom-in", ["+", "="], "zoom in; also the wheel", () => zoom(1.25)],
  ["Tools", "zoom-out", ["-"], "zoom out", () => zoom(0.8)],
  ["Tools", "zoom-fit", ["0"], "show the whole image", fit],
  ["Objects", "new-object", ["n"], "new object", objects.newObject],
  ["Objects", "object-previous", ["ArrowUp"], "previous object; when verifying, previous masklet", inVerify(() => objects.selectNext(-1), () => verify.step(-1))],
  ["Objects", "object-next", ["ArrowDown"], "next object; when verifying, next masklet", inVerify(() => objects.selectNext(1), () => verify.step(1))],
  ["Objects", "hide", ["h"], "hide or show", () => objects.toggle("hidden")],
  ["Objects", "lock-object", ["Shift+L"], "lock or unlock the object", () => objects.toggle("locked")],
  ["Objects", "lock-frame", ["l"], "lock or unlock its frame, or the range", objects.toggleFrameLock],
  ["Objects", "clear-frame", ["Delete", "Backspace"], "clear its mask in this frame", objects.clearFrame],
  ["Objects", "absent-frame", ["w"], "it is not visible in this frame", objects.markAbsent],
  ["Objects", "hold-frame", ["g"], "as in this frame over the range, seen or not", objects.holdOverRange],
  ["Objects", "remove-object", ["Shift+Delete"], "delete the object", objects.removeSelected],
  ["Objects", "rename", ["F2"], "edit its name", () => document.querySelector("#details [name=name]").select()],
  ["Propagate", "propagate-forward", ["f"], "forward, to the next locked frame", () => propagation.forward()],
  ["Propagate", "propagate-backward", ["r"], "backward, to the previous locked frame", propagation.backward],
  ["Propagate", "propagate-both", ["t"], "both ways", propagation.both],
  ["Propagate", "propagate-doubtful", ["Shift+F"], "forward until a doubtful frame", () => propagation.forward(true)],
  ["Propagate", "propagate-range", ["u"], "over the range", propagation.overRange],
  ["Propagate", "propagate-all", ["Shift+A"], "all objects here, or the selected one", () => document.getElementById("propagate-all").click()],
  ["Propagate", "cancel", ["Escape"], "cancel what is dragged or propagated", () => dropDrag() || propagation.cancel()],
  ["Verify", "verify", ["v"], "verify, or back to annotating", () => setMode(state.mode === "verify" ? "annotate" : "verify")],
  ["Verify", "accept", ["a"], "accept: all its frames are locked", () => verify.judge("accepted")],
  ["Verify", "reject", ["x"], "reject: back to correction", () => verify.judge("rejected")],
  ["Verify", "not-trackable", ["k"], "not trackable: left out of exports", () => verify.judge("not_trackable")],
  ["Verify", "verify-sheet", ["s"], "contact sheet alone, or with the loop", verify.toggleSheet],
  ["Verify", "verify-previous", [], "", () => verify.step(-1)],
  ["Verify", "verify-next", [], "", () => verify.step(1)],
  ["Verify", "verify-open", [], "", verify.openForCorrection],
  ["Project", "undo", ["Ctrl+z"], "undo", server(api.undo)],
  ["Project", "redo", ["Ctrl+Shift+Z", "Ctrl+y"], "redo", server(api.redo)],
  ["Project", "phase-1", ["Shift+1", "!"], "phase 1: masks frame by frame", () => setPhase(1)],
  ["Project", "phase-2", ["Shift+2", "@"], "phase 2: masks and propagation", () => setPhase(2)],
  ["Project", "phase-3", ["Shift+3", "#"], "phase 3: clicks with memory", () => setPhase(3)],
  ["Project", "export", ["Ctrl+e"], "export", dialogs.openExport],
  ["Project", "report", ["Shift+R"], "report", dialogs.openReport],
  ["Project", "help", ["?"], "this page", () => dialogs.openHelp(TABLE)],
];

const byName = new Map(TABLE.map(([, name, , , action]) => [name, action]));
const byKey = new Map(TABLE.flatMap(([, , keys, , action]) => keys.map((key) => [key, action])));

function keyOf(event) {
  const isLetter = /^[a-z]$/i.test(event.key);
  const isNamed = event.key.length > 1 || event.key === " ";
  const shift = event.shiftKey && (isLetter || isNamed || event.code.startsWith("Digit"));
  const key = event.key === " " ? "Space" : event.code.startsWith("Digit") && shift ? event.code.slice(5) : event.key;
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${shift ? "Shift+" : ""}${isLetter && !shift ? key.toLowerCase() : key}`;
}

// Keys that a text field or a button needs itself stay with it.
function isFor(target, event) {
  if (document.querySelector("dialog[open]")) return true;
  const isText = target.matches("input:not([type=checkbox], [type=range], [type=color]), textarea, select");
  if (isText && event.key === "Escape") document.getElementById("stage").focus();
  return isText || (target.matches("button, input") && [" ", "Enter"].includes(event.key));
}

function press(event) {
  if (!state.recording || event.altKey || isFor(event.target, event)) return;
  const key = keyOf(event);
  if (/^[1-9]$/.test(key) && !event.shiftKey) {
    const id = state.order[Number(key) - 1];
    if (id) select(id);
    return;
  }
  const action = byKey.get(key);
  if (!action) return;
  event.preventDefault();
  action();
}

export function listen() {
  document.addEventListener("keydown", press);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || button.disabled) return;
    if (button.dataset.command) byName.get(button.dataset.command)();
    else if (button.dataset.tool) setTool(button.dataset.tool);
    else if (button.dataset.phase) setPhase(Number(button.dataset.phase));
    else if (button.dataset.mode) setMode(button.dataset.mode);
    else return;
    if (!document.querySelector("dialog[open]")) document.getElementById("stage").focus(); // so that Space plays again
  });
  document.getElementById("brush-size").addEventListener("input", (event) => setBrushSize(Number(event.target.value)));
}
