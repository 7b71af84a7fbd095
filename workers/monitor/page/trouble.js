// How a room fares, in words, and which rooms need somebody first.
import { lasting, sureness, t } from "./words.js";

const LAG_S = 20; // a window closes when its words are in, so some ten seconds are normal
const SILENT_S = 10; // capture tells once a second

// From the one that needs help most to the one that needs none.
const ORDER = ["failed", "stalled", "silent", "lagging", "connecting", "announced", "unknown", "live", "ended"];
const TONES = { failed: "bad", stalled: "bad", silent: "bad", lagging: "warn", live: "good" };

// The state of its stream, or a trouble that only its ages tell.
export function condition(room) {
  if (room.state !== "live") return room.state;
  if (room.status_age_s > SILENT_S) return "silent";
  // A file that is read as fast as it can be is always ahead of recognition.
  return room.live && room.lag_s > LAG_S ? "lagging" : "live";
}

export const toneOf = (state) => TONES[state] ?? "quiet";

export const needsHelp = (room) => ["bad", "warn"].includes(toneOf(condition(room)));

export function explain(room) {
  switch (condition(room)) {
    case "stalled":
      return room.frame_age_s === null ? room.detail : t("trouble_stalled", { s: lasting(room.frame_age_s) });
    case "silent":
      return t("trouble_silent", { s: lasting(room.status_age_s) });
    case "lagging":
      return t("trouble_lagging", { s: lasting(room.lag_s) });
    case "announced":
      return t("trouble_announced");
    default:
      return room.detail;
  }
}

// Within a condition: doubtful claims, then other claims, then nothing; then by name, so that rooms keep their places.
const doubt = (room) => (room.on ? (sureness(room.on.confidence) < 3 ? 0 : 1) : 2);

export function worstFirst(rooms) {
  const ranked = rooms.map((room) => [ORDER.indexOf(condition(room)), doubt(room), room]);
  ranked.sort((a, b) => a[0] - b[0] || a[1] - b[1] || (a[2].stream_id < b[2].stream_id ? -1 : 1));
  return ranked.map(([, , room]) => room);
}

export function countByCondition(rooms) {
  const counts = new Map();
  for (const room of rooms) counts.set(condition(room), (counts.get(condition(room)) ?? 0) + 1);
  return ORDER.filter((state) => counts.has(state)).map((state) => ({
    state,
    tone: toneOf(state),
    count: counts.get(state),
  }));
}
