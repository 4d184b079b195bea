// Images and masks of the recording, fetched when they are needed, kept while they are near, and fetched ahead.

import * as api from "./api.js";
import { decodeMask } from "./rle.js";
import { emit, numFrames, on, state } from "./state.js";

const IMAGES_KEPT = 64;
const MASK_FRAMES_KEPT = 400;
const MASK_BATCH = 24; // frames in a request

const images = new Map(); // index -> {image, ready: Promise}
const masks = new Map(); // index -> Map(masklet id -> RLE)
const decoded = new Map(); // RLE text -> mask; of the frame shown
const asked = new Map(); // first frame of a batch -> Promise

function keepLatest(map, key, limit) {
  const value = map.get(key);
  map.delete(key);
  map.set(key, value);
  while (map.size > limit) map.delete(map.keys().next().value);
}

export function image(index) {
  if (!images.has(index)) {
    const element = new Image();
    const ready = new Promise((resolve) => {
      element.onload = () => resolve(element);
      element.onerror = () => resolve(null);
    });
    element.src = api.frameUrl(state.recording.id, index);
    images.set(index, { element, ready });
  }
  keepLatest(images, index, IMAGES_KEPT);
  return images.get(index);
}

export function prefetch(index, direction = 1, count = 4) {
  for (let i = 1; i <= count; i += 1) {
    const next = index + direction * i;
    if (next >= 0 && next < numFrames()) image(next);
  }
}

// The RLEs of a frame by masklet; a promise, and at once where they are here already.
export function masksOf(index) {
  if (masks.has(index)) return masks.get(index);
  const first = Math.floor(index / MASK_BATCH) * MASK_BATCH;
  if (!asked.has(first)) {
    const last = Math.min(first + MASK_BATCH, numFrames()) - 1;
    const { id } = state.recording;
    const answer = api.masks(id, first, last).then((given) => {
      if (asked.get(first) !== answer) return; // what was asked for has changed since
      asked.delete(first);
      for (let i = first; i <= last; i += 1) {
        masks.set(i, new Map(Object.entries(given.masks[i] ?? {})));
        keepLatest(masks, i, MASK_FRAMES_KEPT);
      }
      emit("masks-here");
    });
    answer.catch((error) => {
      asked.delete(first);
      emit("failed", error);
    });
    asked.set(first, answer);
  }
  return null;
}

export async function waitForMasks(index) {
  while (!masks.has(index)) {
    if (!masksOf(index)) await asked.get(Math.floor(index / MASK_BATCH) * MASK_BATCH);
  }
  return masks.get(index);
}

export function maskOf(rle) {
  const key = typeof rle.counts === "string" ? rle.counts : null;
  if (key === null) return decodeMask(rle);
  if (!decoded.has(key)) decoded.set(key, decodeMask(rle));
  keepLatest(decoded, key, 12);
  return decoded.get(key);
}

function forget() {
  images.clear();
  forgetMasks();
}

function forgetMasks() {
  masks.clear();
  asked.clear();
  decoded.clear();
}

// A change brings the RLEs of few frames with it; of more they are fetched when they are looked at.
on("masklets", (change) => {
  const { id, frames, removed } = change.masklet;
  if (removed) {
    for (const inFrame of masks.values()) inFrame.delete(id);
    return;
  }
  for (const index of Object.keys(frames).map(Number)) {
    const rle = change.rles[index];
    asked.delete(Math.floor(index / MASK_BATCH) * MASK_BATCH);
    if (frames[index] && !rle) masks.delete(index);
    else if (rle) masks.get(index)?.set(id, rle);
    else masks.get(index)?.delete(id);
  }
});
let of = null;
on("recording", () => {
  if (of !== state.recording.id) forget();
  else forgetMasks();
  of = state.recording.id;
});
