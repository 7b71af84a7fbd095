// The products: what can be recognised, what cannot and why, and what is easily confused.
import { at, get } from "./api.js";
import { Frame, Loading, Picture, Problem, Sign, useLoaded } from "./parts.js";
import { note, query } from "./router.js";
import { html, useEffect, useState } from "./ui.js";
import { clock, t } from "./words.js";

const LIMIT = 48;
const TYPING_MS = 200;
const TWIN = 0.9; // cosine of two page pictures above which they are hard to tell apart

export function Catalogue() {
  const [text, setText] = useState(() => query().q ?? "");
  const [wanted, setWanted] = useState(text);
  const [more, setMore] = useState([]);
  const [got, error, again] = useLoaded(() => get("/products", { q: wanted, limit: LIMIT }), [wanted]);
  const [next, setNext] = useState(null);
  useEffect(() => {
    const timer = setTimeout(() => {
      setWanted(text.trim());
      note(text.trim() ? { q: text.trim() } : {});
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  useEffect(() => {
    setMore([]);
    setNext(got?.next ?? null);
  }, [got]);
  const load = async () => {
    const page = await get("/products", { q: wanted, limit: LIMIT, after: next });
    setMore([...more, ...page.products]);
    setNext(page.next);
  };
  const products = [...(got?.products ?? []), ...more];
  return html`<section class="catalogue">
    <div class="bar-above">
      <h1>${t("catalogue")}</h1>
      <input
        type="search"
        aria-label=${t("find_product")}
        placeholder=${t("find_product")}
        value=${text}
        onInput=${({ target }) => setText(target.value)}
      />
    </div>
    ${error && html`<${Problem} error=${error} again=${again} />`}
    ${!got && !error && html`<${Loading} />`}
    ${got && products.length === 0 && html`<p class="empty-view">${t(wanted ? "no_products" : "empty_catalogue")}</p>`}
    <ul class="grid small">
      ${products.map((product) => html`<${Card} key=${product.product_id} product=${product} />`)}
    </ul>
    ${next && html`<button class="button" onClick=${load}>${t("more")}</button>`}
  </section>`;
}

function Card({ product }) {
  return html`<li class="tile product">
    <${Picture} url=${product.image_urls[0]} title=${product.title} />
    <div class="body">
      <h2><a href=${at("product", product.product_id)}>${product.title}</a></h2>
      <p class="quiet id">${product.product_id}</p>
      <${Failure} product=${product} />
    </div>
  </li>`;
}

function Failure({ product }) {
  if (product.state !== "failed") return null;
  return html`<p class="trouble tone-bad"><${Sign} tone="bad">${t("failed")}<//> ${product.error}</p>`;
}

export function Product({ id }) {
  const [product, error, again] = useLoaded(() => get(at("products", id)), [id]);
  if (!product) return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} />`;
  const alike = product.look_alikes ?? [];
  return html`<article class="product-page">
    <header class="bar-above">
      <div>
        <h1>${product.title}</h1>
        <p class="quiet id">${product.product_id}</p>
      </div>
    </header>
    <${Failure} product=${product} />
    <ul class="pictures-row">
      ${product.image_urls.map((url) => html`<li key=${url}><${Picture} url=${url} title=${product.title} /></li>`)}
    </ul>
    ${product.description && html`<p class="description">${product.description}</p>`}
    <section class="card">
      <h2>${t("look_alikes")}</h2>
      ${alike.some(({ score }) => score >= TWIN) && html`<p class="trouble tone-warn"><${Sign} tone="warn">${t("twins_note")}<//></p>`}
      ${alike.length === 0 && html`<p class="quiet">${t("no_look_alikes")}</p>`}
      <ul class="alike">
        ${alike.map(
          (one) =>
            html`<li key=${one.product_id}>
              <${Picture} url=${one.image_url} title=${one.title} />
              <a href=${at("product", one.product_id)}>${one.title}</a>
              <span class="quiet">${t("likeness", { score: one.score.toFixed(2) })}</span>
              ${one.score >= TWIN && html`<${Sign} tone="warn">${t("twin")}<//>`}
            </li>`,
        )}
      </ul>
    </section>
    <section class="card">
      <h2>${t("recent_sightings")}</h2>
      ${!product.sightings?.length && html`<p class="quiet">${t("never_seen")}</p>`}
      <ul class="sightings">
        ${product.sightings?.map((one) => html`<${Sighting} key=${one} id=${one} />`)}
      </ul>
    </section>
  </article>`;
}

function Sighting({ id }) {
  const [got] = useLoaded(() => get(at("detections", id)), [id]);
  const seen = got?.frames.at(-1);
  return html`<li class="sighting">
    <${Frame} url=${seen?.url} box=${seen?.box} room=${got?.detection.stream_id ?? ""} />
    <a href=${at("detection", id)}>
      ${got ? `${got.detection.stream_id} ${clock(got.detection.media_start_ms)}` : id}
    </a>
  </li>`;
}
