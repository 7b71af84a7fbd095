// The page: its header, the view that the address names, signing in.
import { send, whenUnauthorised } from "./api.js";
import { Catalogue, Product } from "./catalogue.js";
import { Detection } from "./detection.js";
import { forget, live, reload, start } from "./live.js";
import { Sign } from "./parts.js";
import { Review } from "./review.js";
import { Room } from "./room.js";
import { Rooms } from "./rooms.js";
import { place, startRouter } from "./router.js";
import { countByCondition } from "./trouble.js";
import { Fragment, html, render, useEffect, useRef, useState } from "./ui.js";
import { language, lasting, setLanguage, t } from "./words.js";

const VIEWS = {
  "": Rooms,
  room: Room,
  detection: Detection,
  queue: Review,
  catalogue: Catalogue,
  product: Product,
};
const MENU = { rooms: "/", review: "/queue", catalogue: "/catalogue" };
const BELONGS = { "": "rooms", room: "rooms", detection: "rooms", queue: "review", catalogue: "catalogue", product: "catalogue" };

function Page() {
  const at = place.use(whole);
  const code = language.use(codeOf);
  const connection = live.use(connectionOf);
  const main = useRef(null);
  const View = VIEWS[at.view];
  useEffect(() => {
    document.documentElement.lang = code === "zh" ? "zh-CN" : "en";
    document.title = [at.id, t(BELONGS[at.view] ?? "rooms"), "COPE live"].filter(Boolean).join(" · ");
  }, [at.view, at.id, code]);
  useEffect(() => {
    if (at.moved) main.current?.focus({ preventScroll: true });
  }, [at.view, at.id]);
  return html`<${Fragment} key=${code}>
    <a class="skip" href="#main">${t("skip")}</a>
    <${Header} at=${at} />
    <main id="main" tabindex="-1" ref=${main} class=${`view-${at.view || "rooms"}`}>
      ${connection === "signed out"
        ? html`<${SignIn} />`
        : View
          ? html`<${View} key=${`${at.view}/${at.id}`} id=${at.id} />`
          : html`<p class="problem">${t("not_found")}</p>`}
    </main>
  <//>`;
}

function Header({ at }) {
  const here = BELONGS[at.view];
  return html`<header class="top">
    <a class="brand" href="/"><img src="/page/icon.svg" alt="" width="28" height="28" /><span>COPE live</span></a>
    <nav aria-label=${t("menu")}>
      ${Object.entries(MENU).map(
        ([name, href]) => html`<a key=${name} href=${href} aria-current=${here === name ? "page" : null}>${t(name)}</a>`,
      )}
    </nav>
    <${Status} />
    <div class="switches">
      <${ThemeSwitch} />
      <button
        class="plain"
        lang=${language.get().code === "zh" ? "en" : "zh"}
        title=${t("language_title")}
        onClick=${() => setLanguage(language.get().code === "zh" ? "en" : "zh")}
      >
        ${t("language")}
      </button>
      <${SignOut} />
    </div>
  </header>`;
}

const TONES = { open: "good", connecting: "quiet", broken: "bad", "signed out": "warn" };

function Status() {
  const connection = live.use(connectionOf);
  const rooms = live.use(roomsOf);
  const summary = live.use(summaryOf);
  const counts = countByCondition(rooms);
  const latency = summary?.latency_ms;
  return html`<div class="status">
    <div>
      <span role="status"><${Sign} tone=${TONES[connection]}>${t(connection)}<//></span>
      ${counts.length > 0 &&
      html`<ul class="counts" aria-label=${t("rooms")}>
        ${counts.map(
          ({ state, tone, count }) => html`<li key=${state} class=${`tone-${tone}`}><b>${count}</b> ${t(`state_${state}`)}</li>`,
        )}
      </ul>`}
    </div>
    <div class="quiet">
      ${latency?.p50 != null &&
      html`<span title=${t("latency_title")}>
        ${t("latency", { p50: lasting(latency.p50 / 1000), p95: lasting(latency.p95 / 1000) })}
      </span>`}
      ${summary?.model_version &&
      html`<span>${t("versions", { model: summary.model_version, index: summary.index_version })}</span>`}
    </div>
  </div>`;
}

const THEMES = ["auto", "light", "dark"];

function ThemeSwitch() {
  const [theme, setTheme] = useState(localStorage.getItem("theme") ?? "auto");
  useEffect(() => {
    localStorage.setItem("theme", theme);
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  return html`<label class="select">
    <span class="hidden">${t("theme")}</span>
    <select value=${theme} onChange=${({ target }) => setTheme(target.value)}>
      ${THEMES.map((name) => html`<option key=${name} value=${name}>${t(`theme_${name}`)}</option>`)}
    </select>
  </label>`;
}

function SignOut() {
  const who = live.use(whoOf);
  if (!who) return null;
  const leave = async () => {
    await send("DELETE", "/session");
    forget();
  };
  return html`<button class="plain" onClick=${leave} title=${who}>${t("sign_out")}</button>`;
}

function SignIn() {
  const [error, setError] = useState(null);
  const enter = async (event) => {
    event.preventDefault();
    const { token, name } = Object.fromEntries(new FormData(event.target));
    try {
      await send("POST", "/session", { token, name });
      live.set({ connection: "connecting" });
      await reload();
    } catch (problem) {
      setError(problem.status === 401 || problem.status === 403 ? t("wrong_token") : problem.message);
    }
  };
  return html`<form class="sign-in" onSubmit=${enter}>
    <h1>${t("sign_in")}</h1>
    <p>${t("sign_in_why")}</p>
    <label>${t("token")}<input name="token" type="password" autocomplete="current-password" required autofocus /></label>
    <label>${t("name")}<input name="name" autocomplete="name" maxlength="80" /></label>
    ${error && html`<p class="problem" role="alert">${error}</p>`}
    <button class="button main">${t("sign_in")}</button>
  </form>`;
}

const whole = (value) => value;
const codeOf = (value) => value.code;
const connectionOf = (value) => value.connection;
const roomsOf = (value) => value.rooms;
const summaryOf = (value) => value.summary;
const whoOf = (value) => value.summary?.who;

whenUnauthorised(forget);
document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
startRouter();
start();
render(html`<${Page} />`, document.body);
