// What a person says of a detection: buttons, keys, and the search for another product.
import { at, get, send } from "./api.js";
import { live, tellVerdict } from "./live.js";
import { Picture, useLoaded } from "./parts.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./ui.js";
import { t } from "./words.js";

// The key of each verdict, in both languages: keyboards have these letters.
export const KEYS = { right: "r", wrong: "w", other: "o", not_in_catalogue: "n", undo: "u" };

export async function give(id, verdict, product) {
  const word = { verdict, ...(product && { product_id: product.product_id }) };
  tellVerdict(await send("POST", at("detections", id, "verdict"), word));
}

// The newest word on a detection: told by the feed, or known when the detection was read. An undone one is none.
export function useVerdict(id, known) {
  const told = live.use((value) => value.verdicts.get(id));
  const verdict = told ?? known ?? null;
  return verdict?.verdict === "undo" ? null : verdict;
}

export const mayJudge = (value) => value.summary === null || value.summary.role !== "viewer";

export function VerdictButtons({ judge, judged, mayUndo }) {
  const may = live.use(mayJudge);
  if (!may) return html`<p class="quiet">${t("viewer_only")}</p>`;
  return html`<div class="verdicts" role="group" aria-label=${t("verdict")}>
    ${Object.entries(KEYS).map(
      ([name, key]) =>
        html`<button
          key=${name}
          class="button ${name}"
          aria-pressed=${name === "undo" ? null : judged?.verdict === name}
          aria-keyshortcuts=${key}
          disabled=${name === "undo" && !mayUndo}
          onClick=${() => judge(name)}
        >
          ${t(name)} <kbd aria-hidden="true">${key.toUpperCase()}</kbd>
        </button>`,
    )}
  </div>`;
}

export function Judged({ verdict }) {
  const other = verdict?.product_id;
  const [product] = useLoaded(() => (other ? get(at("products", other)) : Promise.resolve(null)), [other]);
  if (!verdict) return null;
  const words = t(`judged_${verdict.verdict}`, { title: product?.title ?? verdict.product_id });
  return html`<p class="judged ${verdict.verdict}">
    ${words}${verdict.who && html` <span class="quiet">${t("by", { who: verdict.who })}</span>`}
  </p>`;
}

const SEARCH_AFTER_MS = 150;

export function ProductSearch({ choose, cancel, not }) {
  const dialog = useRef(null);
  const [text, setText] = useState("");
  const [found, setFound] = useState(null);
  useLayoutEffect(() => {
    const opener = document.activeElement;
    const box = dialog.current;
    box.showModal();
    return () => {
      box.close(); // what is behind an open one takes no focus
      opener?.focus();
    };
  }, []);
  useEffect(() => {
    let current = true;
    const timer = setTimeout(async () => {
      const answer = await get("/products", { q: text, limit: 12 }).catch(() => ({ products: [] }));
      if (current) setFound(answer.products.filter(({ product_id }) => product_id !== not));
    }, SEARCH_AFTER_MS);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [text]);
  // Gone at once: a dialog that is closed, not removed, keeps the focus until the next frame, and with it the next key.
  const leave = (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    cancel();
  };
  return html`<dialog ref=${dialog} aria-labelledby="which" onKeyDown=${leave} onClose=${() => dialog.current && cancel()}>
    <div class="line">
      <h2 id="which">${t("which_product")}</h2>
      <button class="plain" onClick=${cancel}>${t("close")} <kbd aria-hidden="true">Esc</kbd></button>
    </div>
    <input
      type="search"
      autofocus
      aria-label=${t("search_products")}
      placeholder=${t("search_products")}
      value=${text}
      onInput=${({ target }) => setText(target.value)}
      onKeyDown=${(event) => {
        if (event.key !== "Enter" || !found?.length) return;
        event.preventDefault();
        choose(found[0]);
      }}
    />
    <ul class="choices" aria-live="polite">
      ${found?.map(
        (product) =>
          html`<li key=${product.product_id}>
            <button class="choice" onClick=${() => choose(product)}>
              <${Picture} url=${product.image_urls[0]} title=${product.title} />
              <span>${product.title}</span>
            </button>
          </li>`,
      )}
    </ul>
    ${found?.length === 0 && html`<p class="quiet">${t("no_products")}</p>`}
  </dialog>`;
}
