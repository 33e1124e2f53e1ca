// The only reader of the network: the event stream, or a poll every ten seconds where events do not arrive.

import { Events } from "./events.js";
import { headers } from "./session.js";

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

/** Read one endpoint as JSON. Throws a problem; its status is 0 without a response. */
export async function ask(path, options = {}) {
	let response;
	try {
		response = await fetch(at(path), {
			signal: AbortSignal.timeout(8000), headers: headers(), ...options,
		});
	} catch {
		throw { status: 0, title: "No answer", detail: "the daemon does not answer", remedy: "" };
	}
	if (!response.ok) throw await problemOf(response);
	return response.json();
}

/** Log lines as they come: calls `receive(lines)` for each chunk. Returns at the end of the response; throws like `ask`. */
export async function follow(path, receive, signal) {
	const response = await fetch(at(path), { headers: headers(), signal });
	if (!response.ok) throw await problemOf(response);
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	for (;;) {
		const { value, done } = await reader.read();
		const lines = (rest + (value ?? "")).split("\n");
		rest = done ? "" : lines.pop();
		if (done && lines[lines.length - 1] === "") lines.pop();
		if (lines.length) receive(lines);
		if (done) return;
	}
}

/** Save a response as a file: a plain link can't send the header of a session. */
export async function save(path, name) {
	const response = await fetch(at(path), { headers: headers() });
	if (!response.ok) throw await problemOf(response);
	const href = URL.createObjectURL(await response.blob());
	Object.assign(document.createElement("a"), { href, download: name }).click();
	setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

/** The event stream. Calls `sink.status(text)`, `.audit(entry)` and `.link({state, since, problem})`. */
export class Stream {
	constructor(sink) {
		this.sink = sink;
		this.state = "loading";
		this.cut = this.unanswered = 0;
		this.receivedAt = Date.now();
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
		const source = (this.source = new Events(at("events")));
		source.addEventListener("open", () => {
			this.cut = this.unanswered = 0;
			this.link("live");
		});
		source.addEventListener("status", (event) => this.receive(event.data));
		source.addEventListener("progress", () => { this.receivedAt = Date.now(); });
		source.addEventListener("audit", (event) => this.sink.audit(JSON.parse(event.data)));
		source.addEventListener("error", () => {
			source.close();
			this.cut += 1;
			this.look();
		});
	}

	receive(text) {
		this.receivedAt = Date.now();
		this.sink.status(text);
	}

	/** Polls once: is the daemon gone, a key required, or does a proxy drop events? */
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
		this.receive(text);
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

	/** A hidden page holds no connection: a browser has only six per host for all its tabs. */
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

	/** A connection that dies silently (a phone that slept, a cable pulled) raises no event, so poll. */
	check() {
		if (this.state === "loading") this.look();
		if (this.resting || this.state !== "live" || Date.now() - this.receivedAt < SILENT) return;
		this.receivedAt = Date.now();
		ask("status").then((status) => this.sink.status(JSON.stringify(status)), () => {
			this.source?.close();
			this.look();
		});
	}

	link(state, problem = null) {
		this.looking = null;
		const since = state === this.state ? this.since : Date.now();
		const same = state === this.state && problem?.detail === this.problem?.detail;
		Object.assign(this, { state, since, problem });
		if (!same) this.sink.link({ state, since, problem });
	}
}
