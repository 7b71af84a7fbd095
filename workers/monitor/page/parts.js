// Small pieces that several views show.
import { ApiError } from "./api.js";
import { html, useEffect, useLayoutEffect, useState } from "./ui.js";
import { clock, percent, sureness, t } from "./words.js";

// A frame, and the region that was recognised. The drawing fits into the picture's place as the picture itself does
// ("contain", "meet"), so that the box lies where it was found, at any size and shape.
export function Frame({ url, box, room, large = false }) {
  const [size, setSize] = useState(null);
  const [gone, setGone] = useState(null);
  if (!url || gone === url) return html`<div class="frame empty"><span>${t("no_frame")}</span></div>`;
  const place = size?.url === url ? box : null;
  return html`<div class="frame">
    <img
      src=${url}
      alt=${t(box ? "frame_alt_box" : "frame_alt", { room })}
      loading=${large ? "eager" : "lazy"}
      onLoad=${({ target }) => setSize({ url, width: target.naturalWidth, height: target.naturalHeight })}
      onError=${() => setGone(url)}
    />
    ${place && html`<${Box} box=${place} width=${size.width} height=${size.height} />`}
  </div>`;
}

function Box({ box: [x0, y0, x1, y1], width, height }) {
  const place = { x: x0 * width, y: y0 * height, width: (x1 - x0) * width, height: (y1 - y0) * height };
  return html`<svg viewBox="0 0 ${width} ${height}" aria-hidden="true">
    <rect class="halo" rx=${width / 200} ...${place} />
    <rect class="box" rx=${width / 200} ...${place} />
  </svg>`;
}

export function Picture({ url, title }) {
  const [gone, setGone] = useState(null);
  return url && gone !== url
    ? html`<div class="picture">
        <img src=${url} alt=${t("page_alt", { title })} loading="lazy" onError=${() => setGone(url)} />
      </div>`
    : html`<div class="picture empty"><span>${t("no_picture")}</span></div>`;
}

export function Confidence({ value }) {
  return html`<div class="confidence" data-sure=${sureness(value)}>
    <div class="bar" aria-hidden="true"><i style=${{ width: `${Math.round(value * 100)}%` }}></i></div>
    <span class="words">${t(`sure_${sureness(value)}`)} <b>${percent(value)}</b></span>
  </div>`;
}

const SIGNS = { good: "●", quiet: "○", warn: "▲", bad: "✕" };

export function Sign({ tone, children }) {
  return html`<span class="sign tone-${tone}"><span aria-hidden="true">${SIGNS[tone]}</span> ${children}</span>`;
}

// Longer words often hold shorter ones that were found too: these say nothing more.
export function Words({ name, words }) {
  if (!words?.length) return null;
  const telling = words.filter((word) => !words.some((other) => other !== word && other.includes(word)));
  return html`<p class="said">
    <span class="label">${t(name)}</span> ${telling.map((word, n) => html`${n > 0 && " "}<q key=${word}>${word}</q>`)}
  </p>`;
}

export function RunnerUp({ title, other }) {
  return html`<p class="said">
    <span class="label">${t("runner_up")}</span> ${title ?? other.product_id} ${percent(other.confidence)}
  </p>`;
}

export function Span({ from, to }) {
  return html`<span class="time">${t("from_to", { from: clock(from), to: clock(to) })}</span>`;
}

export function Problem({ error, again }) {
  const known = error instanceof ApiError;
  if (!known) console.error(error);
  return html`<div class="problem" role="alert">
    <p>${known && error.status === 404 ? t("not_found") : ""} ${known ? error.message : String(error)}</p>
    ${again && html`<button class="button" onClick=${again}>${t("again")}</button>`}
  </div>`;
}

// Loads something for a view: [what was loaded, the error, a function that loads it again].
export function useLoaded(load, deps) {
  const [got, setGot] = useState({ value: null, error: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let current = true;
    load().then(
      (value) => current && setGot({ value, error: null }),
      (error) => current && setGot((old) => ({ value: old.value, error })),
    );
    return () => (current = false);
  }, [...deps, round]);
  return [got.value, got.error, () => setRound((n) => n + 1)];
}

export const Loading = () => html`<p class="loading" role="status">${t("loading")}…</p>`;

// Keys of a view. Typing in a field is no key; neither is a key with Ctrl, Alt or Meta, which the browser knows.
export function useKeys(keys) {
  // At once, not when the browser is idle: a key is about what is shown, and not about what was shown before it.
  useLayoutEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest?.("input, textarea, select, dialog")) return;
      const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act) return;
      event.preventDefault();
      act(event);
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  });
}
