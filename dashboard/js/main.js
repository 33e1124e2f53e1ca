// Composes the page: one state, one way to change it, at most one render per frame.

import * as address from "./address.js";
import { Commands } from "./commands.js";
import { html, render } from "./dom.js";
import { Effects } from "./effects.js";
import { synchronise } from "./format.js";
import { listen } from "./keys.js";
import { share, still } from "./share.js";
import { Stream } from "./stream.js";
import * as trail from "./trail.js";
import { App } from "./view.js";

const root = document.getElementById("app");
const state = {
	link: { state: "loading", since: Date.now(), problem: null },
	snapshot: null,
	drift: {},                    // service to its differences
	session: { required: false, name: null, role: "operator" },
	route: address.read(location.hash),
	requested: {},                // group to {on, generation}: requested and not yet confirmed
	preview: null,
	toast: null,
	audit: { entries: null, before: null, problem: null },
	history: { entries: null, problem: null },
	help: false,
	theme: "",
};

let drawing = false;
function draw() {
	if (drawing) return;
	drawing = true;
	// A hidden page gets no frames, but must be current when it is shown.
	const soon = document.hidden ? (f) => setTimeout(f, 0) : requestAnimationFrame;
	soon(() => {
		drawing = false;
		render(html`<${App} ...${state} act=${commands} />`, root);
	});
}

const app = {
	state,
	set(patch) {
		Object.assign(state, patch);
		draw();
	},
	/** Change what is open; the address follows. `push`: as a step to come back from. */
	go(patch, push = false) {
		state.route = { ...state.route, ...patch };
		const hash = address.write(state.route);
		if (hash !== location.hash) history[push ? "pushState" : "replaceState"](null, "", hash);
		effects.routed();
		draw();
	},
	reconnect() { stream.retry(); },
};
const effects = new Effects(app);
const commands = new Commands(app, effects);

addEventListener("hashchange", () => {
	app.set({ route: address.read(location.hash) });
	effects.routed();
});
listen(app, commands);
commands.theme(trail.remembered());

// The loading text in the page is for browsers without scripts.
root.replaceChildren();
const stream = new Stream({
	status(text) {
		const found = JSON.parse(text);
		synchronise(found.timestamp);
		trail.record(found);
		const snapshot = share(state.snapshot, still(found));
		if (snapshot === state.snapshot) return;
		app.set({ snapshot, requested: unconfirmed(state.requested, snapshot) });
		effects.seen(snapshot);
	},
	audit(entry) { effects.audited(entry); },
	link(link) {
		const patch = { link };
		// Protected data is removed when the key is revoked.
		if (link.state === "forbidden") Object.assign(patch, { snapshot: null, preview: null, toast: null });
		app.set(patch);
		effects.linked(link);
	},
});

function unconfirmed(requested, snapshot) {
	const left = Object.entries(requested).filter(([, one]) => one.generation > snapshot.generation);
	return left.length === Object.keys(requested).length ? requested : Object.fromEntries(left);
}
draw();
