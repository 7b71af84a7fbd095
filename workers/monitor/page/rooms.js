// All rooms as a grid, those that need somebody first.
import { at } from "./api.js";
import { live, lookAt } from "./live.js";
import { Confidence, Frame, Loading, Picture, RunnerUp, Sign, Words } from "./parts.js";
import { condition, explain, needsHelp, toneOf, worstFirst } from "./trouble.js";
import { Component, html, useEffect, useMemo, useRef, useState } from "./ui.js";
import { clock, t } from "./words.js";

const STEP = 60; // tiles that are drawn; more as one scrolls down
const SORT_EVERY_MS = 2_000; // tiles that jump at each change cannot be read

const FILTERS = { all_rooms: () => true, need_help: needsHelp, on_now: (room) => room.on !== null };

export function Rooms() {
  const rooms = live.use(roomsOf);
  const loaded = live.use(loadedOf);
  const [filter, setFilter] = useState("all_rooms");
  const [wanted, setWanted] = useState("");
  const [limit, setLimit] = useState(STEP);
  const order = useOrder(rooms);
  const byId = useMemo(() => new Map(rooms.map((room) => [room.stream_id, room])), [rooms]);
  const text = wanted.trim().toLowerCase();
  const shown = order
    .map((id) => byId.get(id))
    .filter((room) => room && FILTERS[filter](room) && matches(room, text));
  return html`<section class="rooms">
    <div class="bar-above">
      <h1>${t("rooms")}</h1>
      <div class="tabs" role="group" aria-label=${t("rooms")}>
        ${Object.entries(FILTERS).map(
          ([name, belongs]) =>
            html`<button key=${name} aria-pressed=${filter === name} onClick=${() => setFilter(name)}>
              ${t(name)} <span class="count">${rooms.filter(belongs).length}</span>
            </button>`,
        )}
      </div>
      <input
        type="search"
        aria-label=${t("find_room")}
        placeholder=${t("find_room")}
        value=${wanted}
        onInput=${({ target }) => setWanted(target.value)}
      />
    </div>
    ${!loaded && html`<${Loading} />`}
    ${loaded && shown.length === 0 && html`<p class="empty-view">${t(rooms.length ? "none_match" : "no_rooms")}</p>`}
    <ul class="grid">
      ${shown.slice(0, limit).map((room) => html`<${Tile} key=${room.stream_id} room=${room} />`)}
    </ul>
    ${shown.length > limit && html`<${More} key=${limit} show=${() => setLimit(limit + STEP)} />`}
  </section>`;
}

const roomsOf = (value) => value.rooms;
const loadedOf = (value) => value.loaded;
const matches = (room, text) =>
  !text || [room.stream_id, room.on?.title, room.on?.product_id].some((name) => name?.toLowerCase().includes(text));

// The order of the ids. Rooms come and go at once; they change places at most every SORT_EVERY_MS.
function useOrder(rooms) {
  const kept = useRef({ order: [], at: 0 });
  const [, wake] = useState(0);
  const late = performance.now() - kept.current.at;
  if (late >= SORT_EVERY_MS || kept.current.order.length !== rooms.length) {
    kept.current = { order: worstFirst(rooms).map((room) => room.stream_id), at: performance.now() };
  }
  useEffect(() => {
    const timer = setTimeout(() => wake((n) => n + 1), kept.current.at + SORT_EVERY_MS - performance.now());
    return () => clearTimeout(timer);
  }, [rooms]);
  return kept.current.order;
}

function More({ show }) {
  const end = useRef(null);
  useEffect(() => {
    const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && show());
    seen.observe(end.current);
    return () => seen.disconnect();
  }, []);
  return html`<button class="button" ref=${end} onClick=${show}>${t("more")}</button>`;
}

class Tile extends Component {
  shouldComponentUpdate({ room }) {
    return room !== this.props.room;
  }

  componentDidMount() {
    this.leave = lookAt(this.props.room.stream_id);
  }

  componentWillUnmount() {
    this.leave();
  }

  render({ room }) {
    const state = condition(room);
    const why = explain(room);
    const shown = room.on ?? room.last_event;
    const title = shown && (shown.title ?? shown.product_id);
    return html`<li class="tile tone-${toneOf(state)}">
      <div class="pictures">
        <${Frame} url=${room.frame} box=${room.box} room=${room.stream_id} />
        ${shown && html`<${Picture} url=${shown.image_url} title=${title} />`}
      </div>
      <div class="body">
        <div class="line">
          <h2><a href=${at("room", room.stream_id)}>${room.stream_id}</a></h2>
          <${Sign} tone=${toneOf(state)}>${t(`state_${state}`)}<//>
        </div>
        ${why && html`<p class="trouble tone-${toneOf(state)}">${why}</p>`}
        ${!room.on && state !== "ended" && html`<p class="nothing">${t("nothing_on")}</p>`}
        ${room.on
          ? html`<${Claim} room=${room} title=${title} />`
          : shown && html`<${Last} event=${shown} title=${title} />`}
      </div>
    </li>`;
  }
}

function Last({ event, title }) {
  return html`<div class="line last">
    <p>${t("last", { title })}</p>
    <a class="why" href=${at("detection", event.detection_id)} aria-label=${`${t("why")} ${title}`}>${t("why")}</a>
  </div>`;
}

function Claim({ room, title }) {
  const { on } = room;
  return html`<div class="claim">
    <div class="line">
      <p class="title" title=${title}>${title}</p>
      <a class="why" href=${at("detection", on.detection_id)} aria-label=${`${t("why")} ${title}`}>${t("why")}</a>
    </div>
    <div class="line">
      <${Confidence} value=${on.confidence} />
      <span class="time">${t("since", { time: clock(on.media_start_ms) })}</span>
    </div>
    <${Words} name="heard" words=${room.heard} />
    <${Words} name="read" words=${room.read} />
    ${on.runner_up && html`<${RunnerUp} title=${on.runner_up_title} other=${on.runner_up} />`}
  </div>`;
}
