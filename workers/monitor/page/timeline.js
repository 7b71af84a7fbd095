// The time line of a room: one lane a connection, in its own media time, with sightings, gaps and a hand to move.
import { at, get } from "./api.js";
import { Frame, useLoaded } from "./parts.js";
import { html, useMemo, useRef, useState } from "./ui.js";
import { clock, t } from "./words.js";

const STEPS_MS = [5, 10, 30, 60, 300, 600, 1800, 3600, 7200].map((s) => s * 1000);
const TICKS = 8; // about so many marks in what is seen at once
const ZOOMS = [1, 2, 4, 8, 16, 32];

export function Timeline({ room, epochs, now, choose }) {
  const [zoom, setZoom] = useState(0);
  const [hover, setHover] = useState(null);
  const whole = useRef(null);
  const length = Math.max(10_000, ...epochs.map(({ end }) => end)) * 1.01;
  return html`<div class="timeline" ref=${whole}>
    <div class="lanes">
      ${epochs.map(
        (lane) =>
          html`<${Lane}
            key=${lane.epoch}
            lane=${lane}
            length=${length}
            zoom=${ZOOMS[zoom]}
            now=${lane.epoch === now.epoch ? now.t : null}
            choose=${(ms) => choose({ epoch: lane.epoch, t: ms })}
            peek=${setHover}
            many=${epochs.length > 1}
          />`,
      )}
    </div>
    ${hover && html`<${Peek} ...${hover} within=${whole.current.getBoundingClientRect()} room=${room} />`}
    <div class="line">
      <p class="quiet">${t("timeline_help")}</p>
      <span class="moves">
        <button class="button" disabled=${zoom === 0} onClick=${() => setZoom(zoom - 1)}>${t("zoom_out")}</button>
        <button class="button" disabled=${zoom === ZOOMS.length - 1} onClick=${() => setZoom(zoom + 1)}>
          ${t("zoom_in")}
        </button>
      </span>
    </div>
  </div>`;
}

function Lane({ lane, length, zoom, now, choose, peek, many }) {
  const track = useRef(null);
  const part = (ms) => `${(100 * ms) / length}%`;
  const atPointer = ({ clientX }) => {
    const { left, width } = track.current.getBoundingClientRect();
    return Math.max(0, Math.min(lane.end, ((clientX - left) / width) * length));
  };
  const ticks = useMemo(() => marks(length, zoom), [length, zoom]);
  const held = now ?? lane.end;
  const keys = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1 };
  const press = (event) => {
    const { key, shiftKey } = event;
    const wanted = key === "Home" ? 0 : key === "End" ? lane.end : keys[key] && held + keys[key] * (shiftKey ? 10_000 : 1_000);
    if (wanted === undefined) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(lane.end, wanted)));
  };
  const over = (ms) => lane.sightings.find((one) => one.media_start_ms <= ms && ms <= one.media_end_ms);
  const naming = (ms) => {
    const one = over(ms);
    return one ? one.title : t("nothing_here");
  };
  const look = (event) => {
    const ms = atPointer(event);
    if (event.buttons) choose(ms);
    peek({ x: event.clientX, y: track.current.getBoundingClientRect().bottom, ms, one: over(ms), name: naming(ms) });
  };
  return html`<div class="lane" style=${{ width: `${100 * zoom}%` }}>
    ${many &&
    html`<p class="quiet">
      ${t("connection_no", { n: lane.epoch + 1 })} ${lane.started_at && new Date(lane.started_at).toLocaleTimeString(document.documentElement.lang)}
    </p>`}
    <div
      class="track"
      ref=${track}
      role="slider"
      tabindex="0"
      aria-label=${many ? `${t("timeline")}, ${t("connection_no", { n: lane.epoch + 1 })}` : t("timeline")}
      aria-valuemin="0"
      aria-valuemax=${Math.round(lane.end / 1000)}
      aria-valuenow=${Math.round(held / 1000)}
      aria-valuetext=${t("timeline_value", { time: clock(held), what: naming(held) })}
      onKeyDown=${press}
      onPointerDown=${(event) => choose(atPointer(event))}
      onPointerMove=${look}
      onPointerLeave=${() => peek(null)}
    >
      <div class="reach" style=${{ width: part(lane.end) }}></div>
      ${lane.sightings.map(
        (one) =>
          html`<div
            key=${one.detection_id}
            class="sight"
            style=${{ left: part(one.media_start_ms), width: part(one.media_end_ms - one.media_start_ms) }}
          >
            <span>${one.title}</span>
          </div>`,
      )}
      ${lane.gaps.map(
        (gap) =>
          html`<div
            key=${gap.start_ms}
            class="gap"
            title=${t("gap", { reason: gap.reason })}
            style=${{ left: part(gap.start_ms), width: part((gap.end_ms ?? lane.end) - gap.start_ms) }}
          ></div>`,
      )}
      ${now !== null && html`<div class="hand" style=${{ left: part(now) }}></div>`}
    </div>
    <div class="ticks" aria-hidden="true">
      ${ticks.map((ms) => html`<span key=${ms} style=${{ left: part(ms) }}>${clock(ms)}</span>`)}
    </div>
    ${lane.gaps.length > 0 &&
    html`<details class="gaps">
      <summary>${t("gaps")}: ${lane.gaps.length}</summary>
      <ul>
        ${lane.gaps.map(
          (gap) =>
            html`<li key=${gap.start_ms}>
              ${t("from_to", { from: clock(gap.start_ms), to: clock(gap.end_ms ?? lane.end) })} · ${gap.reason}
            </li>`,
        )}
      </ul>
    </details>`}
  </div>`;
}

function Peek({ x, y, ms, one, name, within, room }) {
  const place = { left: `${x - within.left}px`, top: `${y - within.top + 8}px` };
  return html`<div class=${x > within.left + within.width / 2 ? "peek right" : "peek"} style=${place} aria-hidden="true">
    ${one && html`<${Seen} key=${one.detection_id} id=${one.detection_id} ms=${ms} room=${room} />`}
    <p><b>${clock(ms)}</b> ${name}</p>
  </div>`;
}

function Seen({ id, ms, room }) {
  const [got] = useLoaded(() => get(at("detections", id)), [id]);
  const frame = nearest(got?.frames ?? [], ms);
  return html`<${Frame} url=${frame?.url} box=${frame?.box} room=${room} />`;
}

export function nearest(frames, ms) {
  const far = (frame) => Math.abs(frame.pts_ms - ms);
  return frames.filter(({ url }) => url).reduce((best, one) => (best && far(best) <= far(one) ? best : one), null);
}

function marks(length, zoom) {
  const wanted = length / zoom / TICKS;
  const step = STEPS_MS.find((ms) => ms >= wanted) ?? STEPS_MS.at(-1);
  const room = length - 0.05 * (length / zoom); // for the last one's own width
  return Array.from({ length: Math.floor(room / step) + 1 }, (_, n) => n * step);
}
