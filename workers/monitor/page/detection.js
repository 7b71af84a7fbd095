// One detection: what it rests on, and what a person says of it.
import { at, get, send } from "./api.js";
import { listen, live } from "./live.js";
import { Confidence, Frame, Loading, Picture, Problem, Span, useKeys, useLoaded } from "./parts.js";
import { html, useEffect, useState } from "./ui.js";
import { give, Judged, KEYS, mayJudge, ProductSearch, useVerdict, VerdictButtons } from "./verdict.js";
import { clock, percent, t } from "./words.js";

const AGAIN_MS = 1_000; // the frames of an event are kept a moment after it

export function Detection({ id }) {
  const [got, error, again] = useLoaded(() => get(at("detections", id)), [id]);
  const [problem, setProblem] = useState(null);
  const [searching, setSearching] = useState(false);
  const verdict = useVerdict(id, got?.verdict);
  useEffect(() => {
    let timer;
    const leave = listen((kind, value) => {
      if (kind !== "detection" || value.detection_id !== id) return;
      clearTimeout(timer);
      timer = setTimeout(again, AGAIN_MS);
    });
    return () => {
      clearTimeout(timer);
      leave();
    };
  }, [id]);
  const may = live.use(mayJudge);
  const judge = async (name, product) => {
    if (!may) return;
    if (name === "other" && !product) return setSearching(true);
    if (name === "undo" && !verdict) return;
    setSearching(false);
    try {
      await give(id, name, product);
      setProblem(null);
    } catch (failure) {
      setProblem(failure);
    }
  };
  useKeys(Object.fromEntries(Object.entries(KEYS).map(([name, key]) => [key, () => got && judge(name)])));
  if (!got) return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} />`;
  const { detection } = got;
  const title = got.page?.title ?? detection.product_id;
  return html`<article class="detection">
    <header class="bar-above">
      <div>
        <h1>${title}</h1>
        <p class="quiet">
          <a href=${`${at("room", detection.stream_id)}?epoch=${detection.epoch}&t=${detection.media_start_ms}`}>
            ${t("in_room", { room: detection.stream_id })}</a
          >${" · "}<${Span} from=${detection.media_start_ms} to=${detection.media_end_ms} /> ·
          ${" "}${t(`status_${detection.status}`)}
        </p>
      </div>
      <${Confidence} value=${detection.confidence} />
    </header>
    <section class="card word" aria-label=${t("verdict")}>
      <${VerdictButtons} judge=${judge} judged=${verdict} mayUndo=${verdict !== null} />
      <${Judged} verdict=${verdict} />
      ${problem && html`<${Problem} error=${problem} />`}
    </section>
    <${Evidence} got=${got} title=${title} />
    <div class="columns">
      <${Scores} detection=${detection} threshold=${got.threshold} />
      <${Belief} belief=${got.belief} threshold=${got.threshold} />
      <${Candidates} candidates=${got.candidates} own=${detection.product_id} />
      <${Event} detection=${detection} />
    </div>
    ${may && html`<${LookAgain} id=${id} />`}
    ${searching &&
    html`<${ProductSearch}
      not=${detection.product_id}
      choose=${(product) => judge("other", product)}
      cancel=${() => setSearching(false)}
    />`}
  </article>`;
}

// The frames of a detection, one of them large, beside the catalogue picture that it matches.
export function Evidence({ got, title }) {
  const { detection, frames, page } = got;
  const [chosen, choose] = useState(null); // the best, as long as nobody chooses
  const kept = frames.filter(({ url }) => url);
  const best = kept.reduce((most, one) => (most && most.score >= one.score ? most : one), null);
  const frame = kept.find(({ pts_ms }) => pts_ms === chosen) ?? best;
  return html`<section class="card evidence" aria-label=${t("frames")}>
    <div class="pair">
      <figure>
        <${Frame} url=${frame?.url} box=${frame?.box} room=${detection.stream_id} large />
        <figcaption>${frame ? t("frame_at", { time: clock(frame.pts_ms) }) : t("no_frames")}</figcaption>
      </figure>
      <figure>
        <${Picture} url=${frame?.page_image_url ?? page?.image_urls[0]} title=${title} />
        <figcaption><a href=${at("product", detection.product_id)}>${t("matching")}</a></figcaption>
      </figure>
    </div>
    ${kept.length > 1 &&
    html`<ul class="strip">
      ${kept.map(
        (one) =>
          html`<li key=${one.pts_ms}>
            <button
              aria-pressed=${one === frame}
              aria-label=${t("frame_at", { time: clock(one.pts_ms) })}
              onClick=${() => choose(one.pts_ms)}
            >
              <${Frame} url=${one.url} box=${one.box} room=${detection.stream_id} />
              <span>${clock(one.pts_ms)}</span>
            </button>
          </li>`,
      )}
    </ul>`}
  </section>`;
}

function Scores({ detection, threshold }) {
  const { evidence, confidence } = detection;
  const rows = [
    ["seen_score", "seen_note", evidence.visual_score, null],
    ["heard", "heard_note", evidence.text_score, evidence.keywords],
    ["read", "read_note", evidence.read_score ?? 0, evidence.read],
  ];
  return html`<section class="card">
    <h2>${t("scores")}</h2>
    <dl class="scores">
      <div>
        <dt>${t("confidence")}</dt>
        <dd>
          <${Meter} value=${confidence} mark=${threshold} />
          <b>${percent(confidence)}</b>
          <span class="quiet">${threshold != null && `${t("threshold")} ${percent(threshold)}`}</span>
        </dd>
      </div>
      ${rows.map(
        ([name, note, value, words]) =>
          html`<div key=${name}>
            <dt>${t(name)}</dt>
            <dd>
              <${Meter} value=${value} /> <b>${value.toFixed(2)}</b> <span class="quiet">${t(note)}</span>
              ${words?.length > 0 && html`<span class="words">${words.map((word) => html`<q key=${word}>${word}</q> `)}</span>`}
            </dd>
          </div>`,
      )}
    </dl>
  </section>`;
}

function Meter({ value, mark }) {
  return html`<span class="meter" aria-hidden="true">
    <i style=${{ width: `${Math.max(0, Math.min(1, value)) * 100}%` }}></i>
    ${mark != null && html`<em style=${{ left: `${mark * 100}%` }}></em>`}
  </span>`;
}

const WIDE = 320;
const HIGH = 96;

function Belief({ belief, threshold }) {
  if (!belief?.length) return null;
  const from = belief[0].media_ms;
  const to = belief.at(-1).media_ms;
  const x = ({ media_ms }) => (to > from ? ((media_ms - from) / (to - from)) * WIDE : WIDE / 2);
  const y = (share) => HIGH - share * HIGH;
  const points = belief.map((one) => `${x(one).toFixed(1)},${y(one.confidence).toFixed(1)}`).join(" ");
  const max = Math.max(...belief.map(({ confidence }) => confidence));
  return html`<section class="card">
    <h2>${t("belief")}</h2>
    <div class="chart">
      <svg
        viewBox="-2 -4 ${WIDE + 4} ${HIGH + 8}"
        preserveAspectRatio="none"
        role="img"
        aria-label=${t("belief_alt", { from: clock(from), to: clock(to), max: percent(max) })}
      >
        <line class="axis" x1="0" x2=${WIDE} y1=${HIGH} y2=${HIGH} />
        <polyline class="area" points=${`${x(belief[0])},${HIGH} ${points} ${x(belief.at(-1))},${HIGH}`} />
        ${threshold != null && html`<line class="threshold" x1="0" x2=${WIDE} y1=${y(threshold)} y2=${y(threshold)} />`}
        <polyline class="curve" points=${points} />
        ${belief.map((one) => html`<path key=${one.media_ms} class="dot" d=${`M${x(one)} ${y(one.confidence)}h0`} />`)}
      </svg>
      <span class="most" aria-hidden="true">100 %</span>
      <span class="least" aria-hidden="true">0 %</span>
    </div>
    <p class="ends">
      <span>${clock(from)}</span>
      ${threshold != null && html`<span class="legend">${t("threshold")} ${percent(threshold)}</span>`}
      <span>${clock(to)}</span>
    </p>
  </section>`;
}

function Candidates({ candidates, own }) {
  if (!candidates?.length) return null;
  return html`<section class="card">
    <h2>${t("candidates")}</h2>
    <ol class="candidates">
      ${candidates.map(
        (one) =>
          html`<li key=${one.product_id} class=${one.product_id === own ? "own" : ""}>
            <${Picture} url=${one.image_url} title=${one.title ?? one.product_id} />
            <a href=${at("product", one.product_id)}>${one.title ?? one.product_id}</a>
            <${Meter} value=${one.confidence} />
            <b>${percent(one.confidence)}</b>
          </li>`,
      )}
    </ol>
  </section>`;
}

const SHOWN = ["detection_id", "detected_at", "latency_ms", "model_version", "index_version"];

function Event({ detection }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(JSON.stringify(detection, null, 2));
    setCopied(true);
  };
  return html`<section class="card">
    <div class="line">
      <h2>${t("event")}</h2>
      <span role="status" class="quiet">${copied && t("copied")}</span>
      <button class="button" onClick=${copy}>${t("copy")}</button>
    </div>
    <dl class="fields">
      ${SHOWN.map((name) => html`<div key=${name}><dt>${name}</dt><dd>${detection[name]}</dd></div>`)}
    </dl>
  </section>`;
}

function LookAgain({ id }) {
  const [state, setState] = useState({});
  const look = async () => {
    setState({ busy: true });
    try {
      setState({ result: await send("POST", at("detections", id, "again")) });
    } catch (error) {
      setState({ error });
    }
  };
  const { busy, error, result } = state;
  return html`<section class="card again">
    <div class="line">
      <button class="button" disabled=${busy} onClick=${look}>${t("look_again")}</button>
      <span role="status" class="quiet">
        ${busy ? `${t("looking_again")}…` : !result && t("look_again_why")}
        ${result && t(result.before.product_id === result.after.product_id ? "same_result" : "other_result")}
      </span>
    </div>
    ${error && html`<${Problem} error=${error} again=${look} />`}
    ${result &&
    html`<p class="quiet">
        ${t(`looked_at_${result.source}`, { count: result.frames })}${" "}
        <${Span} from=${result.from_ms} to=${result.to_ms} />
      </p>
      <div class="pair">
      ${["before", "after"].map(
        (when) => html`<${Result} key=${when} name=${when} result=${result[when]} />`,
      )}
    </div>`}
  </section>`;
}

const SHOWN_AGAIN = 4;

function Result({ name, result }) {
  const best = result.candidates?.find((one) => one.product_id === result.product_id);
  return html`<div>
    <h3>${t(name)} <span class="id">${result.model_version}</span></h3>
    ${result.product_id
      ? html`<p><a href=${at("product", result.product_id)}>${best?.title ?? result.product_id}</a></p>
          <${Confidence} value=${result.confidence} />`
      : html`<p>${t("nothing_found")}</p>`}
    <${Candidates} candidates=${result.candidates.slice(0, SHOWN_AGAIN)} own=${result.product_id} />
  </div>`;
}
