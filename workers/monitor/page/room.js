// One room: what it shows at a moment, its time line, what was said. The address carries the moment.
import { at, get } from "./api.js";
import { listen, live, lookAt } from "./live.js";
import { Confidence, Frame, Loading, Picture, Problem, Sign, Span, useLoaded, Words } from "./parts.js";
import { note, query } from "./router.js";
import { nearest, Timeline } from "./timeline.js";
import { condition, explain, toneOf } from "./trouble.js";
import { html, useEffect, useMemo, useRef, useState } from "./ui.js";
import { Judged, useVerdict } from "./verdict.js";
import { clock, t } from "./words.js";

const LIMIT = 200;
const AGAIN_MS = 1_500; // events of a window come together
const HEAR_EVERY_MS = 30_000; // the monitor reads an hour of a topic for it

export function Room({ id }) {
  const room = live.use(useMemo(() => (value) => value.rooms.find(({ stream_id }) => stream_id === id), [id]));
  const loaded = live.use(loadedOf);
  const [list, error, again] = useLoaded(() => get(at("streams", id, "detections"), { limit: LIMIT }), [id]);
  const [speech, , hearAgain] = useLoaded(() => get(at("streams", id, "transcript")), [id]);
  const [older, setOlder] = useState({ detections: [], next: undefined });
  const [moment, setMoment] = useState(asked); // null: the newest
  const heardAt = useRef(performance.now());
  useEffect(() => lookAt(id), [id]);
  useEffect(() => {
    let timer;
    const leave = listen((kind, value) => {
      if (value.stream_id !== id) return;
      clearTimeout(timer);
      timer = setTimeout(() => {
        again();
        if (performance.now() - heardAt.current < HEAR_EVERY_MS) return;
        heardAt.current = performance.now();
        hearAgain();
      }, AGAIN_MS);
    });
    return () => {
      clearTimeout(timer);
      leave();
    };
  }, [id]);

  const sightings = useMemo(() => unique([...(list?.detections ?? []), ...older.detections]), [list, older]);
  const epochs = useMemo(() => lanes(room, sightings, speech), [room, sightings, speech]);
  const newest = { epoch: room?.epoch ?? epochs[0].epoch, t: room?.on?.media_end_ms ?? sightings[0]?.media_end_ms ?? 0 };
  const now = moment ?? newest;
  const shown = covering(sightings, now);
  const next = older.next === undefined ? list?.next : older.next;

  const choose = (wanted) => {
    setMoment(wanted);
    note(wanted ? { epoch: wanted.epoch, t: Math.round(wanted.t) } : {});
  };
  const loadOlder = async () => {
    const page = await get(at("streams", id, "detections"), { limit: LIMIT, after: next });
    setOlder({ detections: [...older.detections, ...page.detections], next: page.next });
  };

  if (!room && loaded && !sightings.length) {
    return error ? html`<${Problem} error=${error} again=${again} />` : html`<p class="problem">${t("not_found")}</p>`;
  }
  if (!loaded && !list) return html`<${Loading} />`;
  return html`<article class="room">
    <${Head} id=${id} room=${room} />
    <${Stage} key=${shown?.detection_id ?? "nothing"} id=${id} shown=${shown} now=${now} room=${room} />
    <section class="card" aria-label=${t("timeline")}>
      <div class="line">
        <h2>${t("timeline")}</h2>
        <button class="button" aria-pressed=${moment === null} onClick=${() => choose(null)}>${t("follow")}</button>
      </div>
      <${Timeline} room=${id} epochs=${epochs} now=${now} choose=${choose} />
    </section>
    <div class="columns">
      <${Transcript} segments=${speech?.segments ?? []} now=${now} choose=${choose} follow=${moment === null} />
      <section class="card">
        <h2>${t("sightings")}</h2>
        ${error && html`<${Problem} error=${error} again=${again} />`}
        ${!sightings.length && html`<p class="quiet">${t("no_sightings")}</p>`}
        <ul class="rows">
          ${sightings.map(
            (one, n) => html`
              ${epochs.length > 1 && one.epoch !== sightings[n - 1]?.epoch && html`<${Connection} epoch=${one.epoch} />`}
              <${Row} key=${one.detection_id} one=${one} current=${one === shown} choose=${choose} />
            `,
          )}
        </ul>
        ${next && html`<button class="button" onClick=${loadOlder}>${t("older")}</button>`}
      </section>
    </div>
  </article>`;
}

const loadedOf = (value) => value.loaded;

function asked() {
  const { t: ms, epoch } = query();
  return ms === undefined || Number.isNaN(Number(ms)) ? null : { epoch: Number(epoch ?? 0), t: Number(ms) };
}

// One entry a sighting: events of one sighting share its id, and the newest comes first.
function unique(detections) {
  const seen = new Map();
  for (const one of detections) if (!seen.has(one.detection_id)) seen.set(one.detection_id, one);
  return [...seen.values()];
}

const covering = (sightings, { epoch, t: ms }) =>
  sightings.find((one) => one.epoch === epoch && one.media_start_ms <= ms && ms <= one.media_end_ms);

// What is known of each connection, the newest first.
function lanes(room, sightings, speech) {
  const found = new Map();
  const lane = (epoch) => {
    if (!found.has(epoch)) found.set(epoch, { epoch, end: 0, sightings: [], gaps: [], started_at: null });
    return found.get(epoch);
  };
  const reach = (epoch, ms) => (lane(epoch).end = Math.max(lane(epoch).end, ms));
  lane(room?.epoch ?? 0);
  if (room) reach(room.epoch, room.position_ms);
  for (const { epoch, started_at, gaps } of speech?.epochs ?? []) {
    Object.assign(lane(epoch), { gaps, started_at });
    for (const gap of gaps) reach(epoch, gap.end_ms ?? gap.start_ms); // null while it lasts
  }
  for (const segment of speech?.segments ?? []) reach(segment.epoch, segment.end_ms);
  for (const one of sightings) {
    lane(one.epoch).sightings.push(one);
    reach(one.epoch, one.media_end_ms);
  }
  return [...found.values()].sort((a, b) => b.epoch - a.epoch);
}

function Head({ id, room }) {
  const state = room && condition(room);
  const why = room && explain(room);
  return html`<header class="bar-above">
    <div>
      <h1>${id}</h1>
      ${room?.url && html`<p class="quiet id">${room.url}</p>`}
    </div>
    ${room &&
    html`<div class="about">
      <${Sign} tone=${toneOf(state)}>${t(`state_${state}`)}<//>
      ${why && html`<span class="trouble tone-${toneOf(state)}">${why}</span>`}
      ${room.reconnects > 0 && html`<span class="quiet">${t("reconnects", { n: room.reconnects })}</span>`}
    </div>`}
  </header>`;
}

// The frame nearest to the moment, of the sighting that covers it.
function Stage({ id, shown, now, room }) {
  const [got] = useLoaded(
    () => (shown ? get(at("detections", shown.detection_id)) : Promise.resolve(null)),
    [shown?.detection_id, shown?.media_end_ms],
  );
  const verdict = useVerdict(shown?.detection_id, got?.verdict ?? shown?.verdict);
  const frame = nearest(got?.frames ?? [], now.t);
  const picture = frame?.page_image_url ?? got?.page?.image_urls[0];
  return html`<section class="stage card">
    <${Frame} url=${frame?.url} box=${frame?.box} room=${id} large />
    <div class="beside">
      <p class="time">${clock(now.t)}</p>
      ${shown
        ? html`<h2><a href=${at("detection", shown.detection_id)}>${shown.title}</a></h2>
            <${Picture} url=${picture} title=${shown.title} />
            <${Confidence} value=${shown.confidence} />
            <${Words} name="heard" words=${shown.evidence.keywords} />
            <${Words} name="read" words=${shown.evidence.read} />
            <${Judged} verdict=${verdict} />`
        : html`<h2>${t("nothing_on")}</h2>`}
    </div>
  </section>`;
}

const Connection = ({ epoch }) => html`<li key=${epoch} class="connection">${t("connection_no", { n: epoch + 1 })}</li>`;

function Row({ one, current, choose }) {
  const verdict = useVerdict(one.detection_id, one.verdict);
  return html`<li aria-current=${current ? "true" : null}>
    <button class="plain time" onClick=${() => choose({ epoch: one.epoch, t: one.media_start_ms })}>
      <${Span} from=${one.media_start_ms} to=${one.media_end_ms} />
    </button>
    <a href=${at("detection", one.detection_id)}>${one.title}</a>
    <${Confidence} value=${one.confidence} />
    <${Judged} verdict=${verdict} />
  </li>`;
}

function Transcript({ segments, now, choose, follow }) {
  const list = useRef(null);
  const current = segments.findLast((one) => one.epoch === now.epoch && one.start_ms <= now.t);
  useEffect(() => {
    const row = list.current?.querySelector("[aria-current]");
    if (row) list.current.scrollTop = row.offsetTop - list.current.clientHeight / 3;
  }, [current, follow]);
  return html`<section class="card">
    <h2>${t("transcript")}</h2>
    ${!segments.length && html`<p class="quiet">${t("no_transcript")}</p>`}
    ${segments.length > 0 &&
    html`<ol class="transcript" ref=${list} tabindex="0" aria-label=${t("transcript")}>
      ${segments.map(
        (one, n) => html`
          ${one.epoch !== (segments[n - 1] ?? segments.at(-1)).epoch && html`<${Connection} epoch=${one.epoch} />`}
          <li key=${`${one.epoch}-${one.start_ms}`} aria-current=${one === current ? "true" : null}>
            <button class="plain time" onClick=${() => choose({ epoch: one.epoch, t: one.start_ms })}>
              ${clock(one.start_ms)}
            </button>
            <span>${one.text}</span>
          </li>
        `,
      )}
    </ol>`}
  </section>`;
}
