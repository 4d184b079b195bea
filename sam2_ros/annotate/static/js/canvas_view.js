// The image with its masks: three canvases on top of each other (frame, masks, cursor), zoom and pan, and the one place
// where a position on the screen becomes a pixel of the source image.

import { image, maskOf, masksOf, prefetch } from "./frames.js";
import { emit, frameOf, listed, on, selected, state } from "./state.js";

const MAX_ZOOM = 40; // screen pixels a source pixel
const FILL_ALPHA = 110;

const stage = document.getElementById("stage");
const [frameLayer, maskLayer, cursorLayer] = ["frame", "masks", "cursor"].map((name) => document.getElementById(`layer-${name}`));
const maskImage = document.createElement("canvas"); // all masks at the size of the source
const view = { scale: 1, x: 0, y: 0, fitted: true }; // source (0, 0) lies at x, y of the stage, in CSS pixels
let shownImage = null;
let painted = null; // a mask that is being painted, in place of the stored one of the selected object

// Source position of the pointer; a box, or an outline as positions, that is being dragged.
export const cursor = { at: null, box: null, outline: null };

const size = () => [state.recording?.width ?? 1, state.recording?.height ?? 1];

// The stage may be scaled by the browser's zoom or a transform, and scrolled with the page: only its rectangle on the
// screen at this moment says where a pointer is.
function stagePosition(event) {
  const rect = stage.getBoundingClientRect();
  return [
    ((event.clientX - rect.left) / rect.width) * stage.clientWidth,
    ((event.clientY - rect.top) / rect.height) * stage.clientHeight,
  ];
}

// Continuous source position: pixel i covers i to i + 1. It may lie outside the image.
export function sourcePosition(event) {
  const [x, y] = stagePosition(event);
  return [(x - view.x) / view.scale, (y - view.y) / view.scale];
}

// The inverse, for tests and the keyboard cursor: where the centre of a source pixel is on the screen.
export function screenPosition(x, y) {
  const rect = stage.getBoundingClientRect();
  const [sx, sy] = [view.x + (x + 0.5) * view.scale, view.y + (y + 0.5) * view.scale];
  return [rect.left + (sx * rect.width) / stage.clientWidth, rect.top + (sy * rect.height) / stage.clientHeight];
}

export function isInside([x, y]) {
  const [width, height] = size();
  return x >= 0 && y >= 0 && x < width && y < height;
}

export function fit() {
  const [width, height] = size();
  view.scale = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  view.x = (stage.clientWidth - width * view.scale) / 2;
  view.y = (stage.clientHeight - height * view.scale) / 2;
  view.fitted = true;
  draw();
}

export function zoom(factor, event = null) {
  const [x, y] = event ? stagePosition(event) : [stage.clientWidth / 2, stage.clientHeight / 2];
  const [width, height] = size();
  const smallest = Math.min(stage.clientWidth / width, stage.clientHeight / height) / 2;
  const scale = Math.max(smallest, Math.min(MAX_ZOOM, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  view.fitted = false;
  draw();
}

export function pan(dx, dy) {
  view.x += dx;
  view.y += dy;
  view.fitted = false;
  draw();
}

export function showPainted(mask) {
  painted = mask;
  drawMasks();
}

function prepared(layer) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(stage.clientWidth * ratio), Math.round(stage.clientHeight * ratio)];
  if (layer.width !== width || layer.height !== height) Object.assign(layer, { width, height });
  const context = layer.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio);
  context.imageSmoothingEnabled = view.scale < 2;
  return context;
}

function drawFrame() {
  const context = prepared(frameLayer);
  if (shownImage) context.drawImage(shownImage, 0, 0, ...size());
}

const rgbOf = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

// Fill a mask into RGBA pixels, with an outline of full colour that is wider for the selected object.
export function paintMask(pixels, mask, color, isSelected) {
  if (!mask.box) return;
  const { width, height, pixels: inside } = mask;
  const [red, green, blue] = rgbOf(color);
  const reach = isSelected ? 2 : 1;
  const [x0, y0, x1, y1] = mask.box;
  for (let y = y0; y < y1; y += 1) {
    for (let x = x0; x < x1; x += 1) {
      const at = y * width + x;
      if (!inside[at]) continue;
      const isEdge =
        x < reach || y < reach || x >= width - reach || y >= height - reach ||
        !inside[at - reach] || !inside[at + reach] || !inside[at - reach * width] || !inside[at + reach * width];
      pixels[4 * at] = red;
      pixels[4 * at + 1] = green;
      pixels[4 * at + 2] = blue;
      pixels[4 * at + 3] = isEdge ? 255 : FILL_ALPHA;
    }
  }
}

function composeMasks() {
  const [width, height] = size();
  if (maskImage.width !== width || maskImage.height !== height) Object.assign(maskImage, { width, height });
  const rles = masksOf(state.frame) ?? new Map();
  const data = new ImageData(width, height);
  let count = 0;
  for (const masklet of listed()) {
    const isSelected = masklet.id === state.selected;
    if (masklet.hidden) continue;
    const rle = rles.get(masklet.id);
    const mask = isSelected && painted ? painted : rle && maskOf(rle);
    if (!mask) continue;
    paintMask(data.data, mask, masklet.color, isSelected);
    count += 1;
  }
  maskImage.getContext("2d").putImageData(data, 0, 0);
  maskLayer.dataset.frame = state.frame; // what is drawn, for those who look at the page from outside
  maskLayer.dataset.masks = count;
}

function drawMasks() {
  if (!state.recording) return;
  composeMasks();
  placeMasks();
}

function placeMasks() {
  prepared(maskLayer).drawImage(maskImage, 0, 0);
}

function drawPrompts(context) {
  const masklet = selected();
  const line = 1.5 / view.scale;
  for (const prompt of frameOf(masklet)?.prompts ?? []) {
    if (prompt.box) {
      const [x0, y0, x1, y1] = prompt.box;
      context.lineWidth = line;
      context.strokeStyle = "#fff";
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    prompt.points.forEach(([x, y], number) => {
      context.beginPath();
      context.arc(x + 0.5, y + 0.5, 5 / view.scale, 0, 7);
      context.fillStyle = prompt.labels[number] ? "#3fdc7a" : "#ff4d4d";
      context.fill();
      context.lineWidth = line;
      context.strokeStyle = "#fff";
      context.stroke();
    });
  }
}

export function drawCursor() {
  const context = prepared(cursorLayer);
  drawPrompts(context);
  context.lineWidth = 1.5 / view.scale;
  if (cursor.box) {
    const [x0, y0, x1, y1] = cursor.box;
    context.strokeStyle = selected()?.color ?? "#fff";
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  if (cursor.outline) {
    context.beginPath();
    for (const at of cursor.outline) context.lineTo(...at);
    context.closePath();
    context.strokeStyle = "#fff";
    context.stroke();
  }
  if (!cursor.at) return;
  const [x, y] = cursor.at;
  context.strokeStyle = "#fff";
  if (cursor.outline) return;
  if (state.tool === "brush" || state.tool === "eraser") {
    context.beginPath();
    context.arc(x, y, state.brushSize / 2, 0, 7);
    context.stroke();
  } else if (cursor.byKeyboard) {
    const arm = 12 / view.scale;
    context.strokeRect(x - arm, y, 2 * arm, 0);
    context.strokeRect(x, y - arm, 0, 2 * arm);
  }
}

export function draw() {
  drawFrame();
  if (state.recording) placeMasks();
  drawCursor();
}

async function showFrame() {
  const { frame, recording } = state;
  const picture = await image(frame).ready;
  if (frame !== state.frame || recording !== state.recording) return;
  shownImage = picture;
  drawFrame();
  drawMasks();
  drawCursor();
  frameLayer.dataset.frame = frame;
  prefetch(frame);
  emit("frame-shown");
}

on("frame", () => {
  painted = null;
  showFrame();
});
on("recording", () => {
  painted = null;
  fit();
  showFrame();
});
on("masklets selection masks-here", () => {
  drawMasks();
  drawCursor();
});
on("tool", drawCursor);
new ResizeObserver(() => {
  if (!state.recording) return;
  if (view.fitted) fit();
  else draw();
}).observe(stage);
