// Detections that are likely wrong, one at a time, judged by one key each.
import { at, get } from "./api.js";
import { live } from "./live.js";
import { Evidence } from "./detection.js";
import { Confidence, Loading, Problem, RunnerUp, Span, useKeys, useLoaded, Words } from "./parts.js";
import { html, useEffect, useState } from "./ui.js";
import { give, KEYS, mayJudge, ProductSearch, VerdictButtons } from "./verdict.js";
import { t } from "./words.js";

const LIMIT = 50;
const AGAIN_EVERY_MS = 15_000; // when the queue is empty
const AGAIN_SOON_MS = 1_000; // when it has just been emptied: there may be more than was asked for

export function Review() {
  const [got, error, again] = useLoaded(() => get("/review", { limit: LIMIT }), []);
  const [position, setPosition] = useState(0);
  const [done, setDone] = useState([]); // judged here, the newest last: what undo takes back
  const [searching, setSearching] = useState(false);
  const [message, setMessage] = useState("");
  const [problem, setProblem] = useState(null);
  const verdicts = live.use(verdictsOf);
  const may = live.use(mayJudge);
  const isOpen = ({ detection_id }) => (verdicts.get(detection_id)?.verdict ?? "undo") === "undo";
  const all = got?.items ?? [];
  const items = all.filter(isOpen);
  const place = Math.min(position, items.length - 1);
  const item = items[place];

  useEffect(() => {
    if (items.length || !got) return;
    const timer = setTimeout(again, all.length ? AGAIN_SOON_MS : AGAIN_EVERY_MS);
    return () => clearTimeout(timer);
  }, [items.length, got]);

  const judge = async (verdict, product) => {
    const of = verdict === "undo" ? done.at(-1) : item;
    if (!of || !may) return;
    if (verdict === "other" && !product) return setSearching(true);
    setSearching(false);
    try {
      await give(of.detection_id, verdict, product);
    } catch (failure) {
      return setProblem(failure);
    }
    setProblem(null);
    if (verdict === "undo") {
      setDone((before) => before.filter((one) => one !== of));
      setPosition(all.filter((one) => one === of || isOpen(one)).indexOf(of));
      setMessage(t("undone"));
    } else {
      setDone((before) => [...before, of]);
      setMessage(t(`judged_${verdict}`, { title: product?.title }));
    }
  };
  const move = (by) => setPosition(Math.max(0, Math.min(items.length - 1, place + by)));
  useKeys({
    ...Object.fromEntries(Object.entries(KEYS).map(([name, key]) => [key, () => judge(name)])),
    j: () => move(1),
    k: () => move(-1),
    ArrowRight: () => move(1),
    ArrowLeft: () => move(-1),
  });

  if (!got) return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} />`;
  return html`<section class="review">
    <div class="bar-above">
      <div>
        <h1>${t("review")}</h1>
        <p class="quiet">${t("review_why")}</p>
      </div>
      <p class="left"><b>${t("n_left", { n: items.length })}</b></p>
    </div>
    ${item
      ? html`<${Item} key=${item.detection_id} item=${item} />`
      : html`<div class="empty-view"><h2>${t("all_done")}</h2><p>${t("all_done_why")}</p></div>`}
    <div class="dock">
      <div class="actions">
        <${VerdictButtons} judge=${judge} mayUndo=${done.length > 0} />
        <div class="moves">
          <button class="plain" onClick=${() => move(-1)}>${t("previous")} <kbd aria-hidden="true">K</kbd></button>
          <button class="plain" onClick=${() => move(1)}>${t("next")} <kbd aria-hidden="true">J</kbd></button>
        </div>
      </div>
      <p class="told" role="status">${message}</p>
      ${problem && html`<${Problem} error=${problem} />`}
    </div>
    ${searching &&
    item &&
    html`<${ProductSearch}
      not=${item.product_id}
      choose=${(product) => judge("other", product)}
      cancel=${() => setSearching(false)}
    />`}
  </section>`;
}

const verdictsOf = (value) => value.verdicts;

function Item({ item }) {
  const [got, error, again] = useLoaded(() => get(at("detections", item.detection_id)), [item.detection_id]);
  const title = item.title || item.product_id;
  const runner = item.evidence.runner_up;
  const runnerTitle = got?.candidates.find(({ product_id }) => product_id === runner?.product_id)?.title;
  return html`<article>
    <div class="card claim">
      <div class="line">
        <h2>${title}</h2>
        <span class="reason">${t(item.why)}</span>
      </div>
      <div class="line">
        <${Confidence} value=${item.confidence} />
        <span class="quiet">${t("in_room", { room: item.stream_id })} · <${Span} from=${item.media_start_ms} to=${item.media_end_ms} /></span>
        <a href=${at("detection", item.detection_id)}>${t("details")}</a>
      </div>
      <${Words} name="heard" words=${item.evidence.keywords} />
      <${Words} name="read" words=${item.evidence.read} />
      ${runner && html`<${RunnerUp} title=${runnerTitle} other=${runner} />`}
    </div>
    ${got && html`<${Evidence} got=${got} title=${title} />`}
    ${!got && (error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} />`)}
  </article>`;
}
