// The server's routes as functions. Every address is relative: the page's own one begins with the secret token.

import { emit } from "./state.js";

export class ApiError extends Error {}

async function request(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError("The server does not answer. Is `sam2-ros annotate` still running? What was answered is saved.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(answer.error ?? `${response.status} ${response.statusText}`);
  return answer;
}

const get = (path) => request("GET", path);
const post = (path, body = {}) => request("POST", path, body);
const at = (recording) => `api/recordings/${encodeURIComponent(recording)}`;
const of = (recording, masklet) => `${at(recording)}/masklets/${encodeURIComponent(masklet)}`;

export const project = () => get("api/project");
export const recording = (id) => get(at(id));
export const masks = (id, first, last) => get(`${at(id)}/masks?first=${first}&last=${last}`);
export const frameUrl = (id, index) => `${at(id)}/frames/${index}.jpg`;
export const focus = (id, frame, masklet, phase) => post(`${at(id)}/focus`, { frame, masklet, phase });

export const view = (id, frame, masklet, phase) => post(`${at(id)}/view`, { frame, masklet, phase });

export const addMasklet = (id, values) => post(`${at(id)}/masklets`, values);
export const updateMasklet = (id, masklet, values) => request("PATCH", of(id, masklet), values);
export const removeMasklet = (id, masklet) => request("DELETE", of(id, masklet));
export const prompt = (id, masklet, frame, values) => post(`${of(id, masklet)}/frames/${frame}/prompts`, values);
export const setMask = (id, masklet, frame, values) => request("PUT", `${of(id, masklet)}/frames/${frame}/mask`, values);
export const holdFrame = (id, masklet, frame, values) => post(`${of(id, masklet)}/frames/${frame}/hold`, values);
export const clearFrame = (id, masklet, frame, phase) => request("DELETE", `${of(id, masklet)}/frames/${frame}?phase=${phase}`);
export const lockFrames = (id, masklet, values) => post(`${of(id, masklet)}/lock`, values);
export const verdict = (id, masklet, values) => post(`${of(id, masklet)}/verdict`, values);
export const undo = (id) => post(`${at(id)}/undo`);
export const redo = (id) => post(`${at(id)}/redo`);

export const propagate = (id, values) => post(`${at(id)}/propagate`, values);
export const cancel = (job) => post(`api/jobs/${job}/cancel`);
export const queue = () => get("api/queue");
export const report = () => get("api/report");
export const exportProject = (values) => post("api/export", values);

// The change stream. After a break the page loads everything again, because changes may have been missed.
export function listen() {
  const stream = new EventSource("api/events");
  let wasOpen = false;
  stream.addEventListener("open", () => {
    if (wasOpen) emit("reconnected");
    wasOpen = true;
    emit("status", "");
  });
  stream.addEventListener("error", () => emit("status", "no connection to the server"));
  for (const topic of ["change", "job"]) {
    stream.addEventListener(topic, (event) => emit(`server-${topic}`, JSON.parse(event.data)));
  }
}
