// The address names what is shown: /room/ID?t=12 is a room at a moment. Links are plain links.
import { createStore } from "./store.js";

export const place = createStore(parse(false));

export function startRouter() {
  addEventListener("popstate", () => place.set(parse(true)));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    const ours = link?.origin === location.origin && !link.target && !link.hasAttribute("download");
    const plain = event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (!ours || !plain || event.defaultPrevented || link.getAttribute("href").startsWith("#")) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
}

export function go(path) {
  history.pushState(null, "", path);
  place.set(parse(true));
  scrollTo(0, 0);
}

// The moment that is looked at changes all the time: it stands in the address, but makes no history.
export function note(asked) {
  const text = new URLSearchParams(asked).toString();
  history.replaceState(null, "", location.pathname + (text && `?${text}`));
}

// What the address asks for now, also where `note` has written it.
export const query = () => Object.fromEntries(new URLSearchParams(location.search));

function parse(moved) {
  const [, view, ...rest] = location.pathname.split("/");
  return {
    view,
    id: rest.map(decode).join("/"),
    moved,
  };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
