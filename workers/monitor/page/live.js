// The rooms as they are now: read once as a list, then kept by the feed of changes, without a gap between the two.
//
// Positions and ages change all the time and are not in the feed; they come with the list, which is read again now
// and then. Changes that arrive while a list is on its way are applied to it again, unless it has them already.
import { ApiError, at, get } from "./api.js";
import { createStore } from "./store.js";

const LIST_EVERY_MS = 5_000;
const LARGE = 200; // rooms; a list of more is read less often, for it is large
const LARGE_LIST_EVERY_MS = 20_000;
const SUMMARY_EVERY_MS = 10_000;
const AGAIN_MS = 2_000;
const LOOK_AFTER_MS = 700; // the frame of an event is kept a moment after the event

export const live = createStore({
  connection: "connecting", // "open", "broken", "signed out"
  loaded: false,
  rooms: [],
  summary: null,
  verdicts: new Map(), // by detection, as they are told while the page is open
});

const rooms = new Map();
const listeners = new Set();
const looking = new Map(); // rooms on screen, by how often
const timers = new Map();
let feed = null;
let lastId = null;
let buffer = null; // changes since the list that is on its way was asked for

export function start() {
  document.addEventListener("visibilitychange", () => (document.hidden ? pause() : resume()));
  setInterval(readSummary, SUMMARY_EVERY_MS);
  resume();
}

// A page that nobody sees follows nothing: browsers allow six connections to a host, over all tabs.
function pause() {
  feed?.close();
  feed = null;
}

function resume() {
  if (feed !== null || live.get().connection === "signed out") return;
  if (lastId === null) reload();
  else connect();
}

export async function reload() {
  feed?.close();
  feed = null;
  try {
    await readList();
    connect();
    schedule("list", listInterval(), refresh);
    readSummary();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return forget();
    live.set({ connection: "broken" });
    schedule("reload", AGAIN_MS, reload);
  }
}

// Who signs out leaves nothing on the screen, nor in memory.
export function forget() {
  pause();
  lastId = null;
  rooms.clear();
  for (const timer of timers.values()) clearTimeout(timer);
  live.set({ connection: "signed out", rooms: [], summary: null, verdicts: new Map() });
}

// A verdict that was given here: the feed tells of it too, a moment later.
export const tellVerdict = (verdict) => apply("verdict", verdict);

// Calls back for each detection and verdict as it comes; returns how to end that.
export function listen(callback) {
  listeners.add(callback);
  return () => listeners.delete(callback);
}

// Keeps frames and titles of a room fresh while it is on screen; returns how to end that.
export function lookAt(id) {
  looking.set(id, (looking.get(id) ?? 0) + 1);
  return () => {
    const left = looking.get(id) - 1;
    if (left) looking.set(id, left);
    else looking.delete(id);
  };
}

const listInterval = () => (rooms.size > LARGE ? LARGE_LIST_EVERY_MS : LIST_EVERY_MS);

async function refresh() {
  if (!document.hidden && live.get().connection === "open") await readList().catch(() => {});
  schedule("list", listInterval(), refresh);
}

async function readList() {
  buffer = [];
  const list = await get("/streams");
  const missed = buffer ?? [];
  buffer = null;
  rooms.clear();
  for (const stream of list.streams) rooms.set(stream.stream_id, stream);
  if (feed === null) lastId = list.last_event_id;
  const known = number(list.last_event_id);
  for (const change of missed) if (number(change.id) > known) apply(change.kind, change.value);
  live.set({ rooms: [...rooms.values()], loaded: true });
}

async function readSummary() {
  if (!document.hidden) live.set({ summary: await get("/summary").catch(() => live.get().summary) });
}

function connect() {
  if (feed !== null || document.hidden) return;
  const own = (feed = new EventSource(`/events?after=${encodeURIComponent(lastId)}`));
  own.onopen = () => live.set({ connection: "open" });
  own.onerror = () => {
    if (feed !== own) return;
    live.set({ connection: "broken" });
    if (own.readyState !== EventSource.CLOSED) return; // the browser connects again by itself
    feed = null;
    schedule("connect", AGAIN_MS, retry);
  };
  for (const kind of ["detection", "stream", "verdict"]) {
    own.addEventListener(kind, (message) => {
      lastId = message.lastEventId;
      take(kind, JSON.parse(message.data));
    });
  }
  own.addEventListener("reset", reload);
}

// An answer that is no feed ends an EventSource for good. It may be 401, which only a request tells.
async function retry() {
  try {
    live.set({ summary: await get("/summary") });
  } catch (error) {
    if (error.status === 401) return forget();
  }
  connect();
}

function take(kind, value) {
  buffer?.push({ kind, value, id: lastId });
  apply(kind, value);
  for (const listener of [...listeners]) listener(kind, value);
  live.set({ rooms: [...rooms.values()] }, { soon: true });
}

function apply(kind, value) {
  if (kind === "stream") {
    if (value.state === "forgotten") rooms.delete(value.stream_id);
    else rooms.set(value.stream_id, { ...rooms.get(value.stream_id), ...value });
  } else if (kind === "verdict") {
    live.set({ verdicts: new Map(live.get().verdicts).set(value.detection_id, value) }, { soon: true });
  } else if (rooms.has(value.stream_id)) {
    rooms.set(value.stream_id, withEvent(rooms.get(value.stream_id), value));
    if (looking.has(value.stream_id)) schedule(value.stream_id, LOOK_AFTER_MS, () => readRoom(value.stream_id));
  }
}

function withEvent(room, event) {
  const same = room.on?.detection_id === event.detection_id;
  const { keywords: heard, read, runner_up } = event.evidence;
  // Names and pictures are not in the event; those of another product must not stand under this one.
  const on = { ...(same ? room.on : {}), ...event, runner_up };
  const told = { ...room, last_event: on, heard, read, ...(same ? {} : { frame: null, box: null }) };
  if (event.status !== "ended") return { ...told, on };
  return same || !room.on ? { ...told, on: null } : room;
}

async function readRoom(id) {
  try {
    const before = rooms.get(id);
    const room = await get(at("streams", id));
    if (rooms.get(id) === before) rooms.set(id, room); // else a change has come meanwhile, which is newer
    live.set({ rooms: [...rooms.values()] }, { soon: true });
  } catch {
    // It has been forgotten, or the connection is broken: the feed tells either.
  }
}

const number = (id) => Number(id.slice(id.lastIndexOf("-") + 1));

function schedule(name, delay, callback) {
  clearTimeout(timers.get(name));
  timers.set(name, setTimeout(callback, delay));
}
