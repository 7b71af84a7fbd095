// What all views share: one value that is replaced when it changes, and a hook that renders a view anew when its part
// of it changes. Changes are told at most once in TELL_MS, however many come.
import { useEffect, useState } from "./ui.js";

const TELL_MS = 200;

export function createStore(initial) {
  let value = initial;
  let timer = null;
  const readers = new Set();

  const tell = () => {
    timer = null;
    for (const reader of [...readers]) reader();
  };

  return {
    get: () => value,
    set(change, { soon = false } = {}) {
      value = { ...value, ...change };
      if (!soon) {
        clearTimeout(timer);
        tell();
      } else if (timer === null) {
        timer = setTimeout(tell, TELL_MS);
      }
    },
    use(part) {
      const [seen, setSeen] = useState(() => part(value));
      useEffect(() => {
        const read = () => setSeen(() => part(value));
        read();
        readers.add(read);
        return () => readers.delete(read);
      }, [part]);
      return seen;
    },
  };
}
