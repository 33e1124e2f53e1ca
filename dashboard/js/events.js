// Server-sent events by fetch, since an EventSource can't send the header of a session. Never reconnects by itself.

import { headers } from "./session.js";

/** Dispatches `open`, each event by its name with its `data`, and `error` at the end of the stream. */
export class Events extends EventTarget {
	constructor(url) {
		super();
		this.ended = new AbortController();
		this.read(url, this.ended.signal);
	}

	close() { this.ended.abort(); }

	async read(url, signal) {
		try {
			const response = await fetch(url, { headers: headers({ Accept: "text/event-stream" }), cache: "no-store", signal });
			if (!response.ok) throw new Error(response.statusText);
			this.dispatchEvent(new Event("open"));
			const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
			let rest = "";
			for (;;) {
				const { value, done } = await reader.read();
				if (done) break;
				const blocks = (rest + value).split("\n\n");
				rest = blocks.pop();
				if (!signal.aborted) blocks.forEach((block) => this.block(block));
			}
		} catch {
			// The error event says it.
		}
		if (!signal.aborted) this.dispatchEvent(new Event("error"));
	}

	block(text) {
		const fields = { event: "message", data: [] };
		for (const line of text.split("\n")) {
			const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
			if (name === "data") fields.data.push(value);
			else if (name === "event") fields.event = value;
		}
		if (fields.data.length) this.dispatchEvent(new MessageEvent(fields.event, { data: fields.data.join("\n") }));
	}
}
