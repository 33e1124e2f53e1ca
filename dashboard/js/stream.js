// The only reader of the network: events while they flow, a look every ten seconds while they do not.

const FALLBACK = 10_000;
const SILENT = 30_000;
const REST = 15_000;
const BASE = new URL("../../", import.meta.url);

export function at(path) {
  return new URL(path, BASE);
}

export async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return { title: response.statusText || "Refused", detail: "", remedy: "", ...body, status: response.status };
}

/** Read one endpoint as JSON. Throws a problem; its status is 0 where nothing answered. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(at(path), {
      signal: AbortSignal.timeout(8000), ...options,
    });
  } catch {
    throw { status: 0, title: "No answer", detail: "the daemon does not answer", remedy: "" };
  }
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

/** Log lines as they come: `told(lines)` for each piece. Returns at the answer's end; throws as `ask` does. */
export async function follow(path, told, signal) {
  const response = await fetch(at(path), { signal });
  if (!response.ok) throw await problemOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    if (done && lines[lines.length - 1] === "") lines.pop();
    if (lines.length) told(lines);
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
    document.addEventListener("visibilitychange", () => (document.hidden ? this.rest() : this.wake()));
    setInterval(() => this.check(), FALLBACK);
    this.open();
  }

  retry() {
    if (this.state === "live") return;
    clearTimeout(this.timer);
    this.look();
  }

  open() {
    this.source?.close();
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
      response = await fetch(at("status"), { signal: AbortSignal.timeout(8000) });
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
    const polls = this.cut > 2;
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

  /** A page that nobody sees holds no connection: a browser has only six of them for all its tabs. */
  rest() {
    this.nap = setTimeout(() => {
      if (this.state !== "live") return;
      this.resting = true;
      this.source.close();
    }, REST);
  }

  wake() {
    clearTimeout(this.nap);
    if (!this.resting) return this.check();
    this.resting = false;
    return this.open();
  }

  /** A line that died without a word (a phone that slept, a cable pulled) tells nothing: look for ourselves. */
  check() {
    if (this.state === "loading") this.look();
    if (this.resting || this.state !== "live" || Date.now() - this.heard < SILENT) return;
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
