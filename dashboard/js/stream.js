// The only reader of the network: events while they flow, a look every ten seconds while they do not, and
// what a view asks for once. Whoever is told here draws; nothing is drawn here.

const FALLBACK = 10_000;
const SILENT = 30_000;
const BASE = new URL("../../", import.meta.url);

let key = "";

/** A key to send with every request, for a daemon that gives out no session cookie. Kept in memory alone. */
export function useKey(value) {
  key = value;
}

/** The headers that every request carries, with those given. */
export function headers(more = {}) {
  return key ? { ...more, "X-API-Key": key } : more;
}

/** The address of an endpoint under /services. */
export function at(path) {
  return new URL(path, BASE);
}

/** A problem as the API tells it, whatever answered. */
export async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return { title: response.statusText || "Refused", detail: "", remedy: "", ...body, status: response.status };
}

/** Read one endpoint as JSON. Throws a problem; its status is 0 where nothing answered. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(at(path), {
      signal: AbortSignal.timeout(8000), ...options, headers: headers(options.headers),
    });
  } catch {
    throw { status: 0, title: "No answer", detail: "the daemon does not answer", remedy: "" };
  }
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

/** What this daemon can do, by the paths that it documents: `can["/services/audit"].get`. */
export async function capabilities() {
  return (await ask("../openapi.json")).paths ?? {};
}

/** Log lines as they come. `told(lines)` for each piece; the answer ends it. Throws as `ask` does. */
export async function follow(path, told, signal) {
  const response = await fetch(at(path), { signal, headers: headers() });
  if (!response.ok) throw await problemOf(response);
  const type = response.headers.get("content-type") ?? "";
  if (type.startsWith("application/json")) {
    const body = await response.json();
    told((body.lines ?? []).map((line) => (typeof line === "string" ? line : line.text ?? line.message ?? "")));
    return;
  }
  const events = type.startsWith("text/event-stream");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    const shown = events ? lines.filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trimStart()) : lines;
    if (done && shown[shown.length - 1] === "") shown.pop();
    if (shown.length) told(shown);
    if (done) return;
  }
}

/** Keeps the page told. `told.status(text)`, `.audit(entry)` and `.link({state, since, problem})`. */
export class Stream {
  constructor(told) {
    this.told = told;
    this.state = "loading";
    this.cut = this.unanswered = 0;
    this.heard = Date.now();
    this.timer = 0;
    addEventListener("online", () => this.retry());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.check(); });
    setInterval(() => this.check(), FALLBACK);
    this.open();
  }

  /** Try now, whatever was planned. */
  retry() {
    if (this.state === "live") return;
    clearTimeout(this.timer);
    this.look();
  }

  open() {
    this.source?.close();
    if (key) {
      // EventSource sends no headers: without a cookie there are no events, only looks.
      this.look();
      return;
    }
    const source = (this.source = new EventSource(at("events")));
    source.onopen = () => {
      this.cut = this.unanswered = 0;
      this.link("live");
    };
    source.addEventListener("status", (event) => this.hear(event.data));
    source.addEventListener("progress", () => { this.heard = Date.now(); });
    source.addEventListener("audit", (event) => this.told.audit(JSON.parse(event.data)));
    source.onerror = () => {
      source.close();
      this.cut += 1;
      this.look();
    };
  }

  hear(text) {
    this.heard = Date.now();
    this.told.status(text);
  }

  /** Look once: it tells a daemon that is gone from one that wants a key, and from a proxy that eats events. */
  async look() {
    const mine = (this.looking = {});
    let response, text;
    try {
      response = await fetch(at("status"), { headers: headers(), signal: AbortSignal.timeout(8000) });
      text = response.ok && (await response.text());
    } catch {
      response = null;
    }
    if (mine !== this.looking) return;
    if (response?.ok) this.seen(text);
    else this.unseen(response && (await problemOf(response)));
  }

  seen(text) {
    this.unanswered = 0;
    this.hear(text);
    const polls = key || this.cut > 2;
    if (polls) this.link("polling");
    this.later(polls ? FALLBACK : 200, () => this.open());
  }

  unseen(problem) {
    const refused = [401, 403, 429].includes(problem?.status);
    this.link(refused ? "forbidden" : "lost", problem);
    if (refused) return;
    this.unanswered += 1;
    this.later(Math.min(FALLBACK, 500 * 2 ** Math.min(this.unanswered, 5)), () => this.look());
  }

  later(ms, next) {
    clearTimeout(this.timer);
    this.timer = setTimeout(next, ms);
  }

  /** A line that died without a word (a phone that slept, a cable pulled) tells nothing: look for ourselves. */
  check() {
    if (this.state !== "live" || Date.now() - this.heard < SILENT) return;
    this.heard = Date.now();
    ask("status").then((status) => this.told.status(JSON.stringify(status)), () => {
      this.source?.close();
      this.look();
    });
  }

  link(state, problem = null) {
    this.looking = null;
    const since = state === this.state ? this.since : Date.now();
    const same = state === this.state && problem?.detail === this.problem?.detail;
    Object.assign(this, { state, since, problem });
    if (!same) this.told.link({ state, since, problem });
  }
}
