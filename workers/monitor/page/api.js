// Requests to the monitor. Errors are JSON there; here they are ApiErrors with its words.
export class ApiError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

let onUnauthorised = () => {};

export function whenUnauthorised(callback) {
  onUnauthorised = callback;
}

export function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return request("GET", given.length ? `${path}?${new URLSearchParams(given)}` : path);
}

export function send(method, path, body) {
  return request(method, path, {
    // Another site can make a browser send our cookie, but not this header.
    headers: { "X-COPE-CSRF": "1", ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
}

// Ids may hold slashes: as one segment of a path they are encoded.
export const at = (...parts) => "/" + parts.map(encodeURIComponent).join("/");

async function request(method, path, options = {}) {
  let response;
  try {
    response = await fetch(path, { method, credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "the monitor does not answer");
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = { error: text.slice(0, 200) };
  }
  if (response.ok) return answer;
  if (response.status === 401 && path !== "/session") onUnauthorised();
  throw new ApiError(response.status, answer?.error ?? response.statusText);
}
