// Tagged templates, components that render only when their properties change, and a few that tick every second.

import { Component, h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";
import { duration, now, rough, until } from "./format.js";

export const html = htm.bind(h);
export { Component, render };

/** A component from a pure function, rendered only when a property changes. */
export function memo(view) {
	return class extends Component {
		shouldComponentUpdate(next) {
			return differ(this.props, next) || differ(next, this.props);
		}
		render(props) {
			return view(props);
		}
	};
}

function differ(one, other) {
	for (const name in one) if (one[name] !== other[name]) return true;
	return false;
}

const ticking = new Set();
setInterval(() => { if (!document.hidden) for (const one of ticking) one.tick(); }, 1000);

class Ticking extends Component {
	componentDidMount() { ticking.add(this); }
	componentWillUnmount() { ticking.delete(this); }
	shouldComponentUpdate(next) { return differ(next, this.props) || this.text(next) !== this.shown; }
	tick() { if (this.text(this.props) !== this.shown) this.forceUpdate(); }
	render(props) {
		this.shown = this.text(props);
		return this.shown;
	}
}

/** How long ago `at` was, or for how long something has been so; `rough`: in one unit. */
export class Since extends Ticking {
	text({ at, short, rough: one }) {
		if (!at) return "–";
		const ms = now() - Date.parse(at);
		return one ? rough(ms) : duration(ms, short);
	}
}

/** "in 4 s", counted down to `at`; "now" when it is over. `about`: an estimate. */
export class Until extends Ticking {
	text({ at, about }) {
		const text = until(Date.parse(at) - now());
		return about ? { now: "any moment" }[text] ?? text.replace("in", "in about") : text;
	}
}

/** "about 4 s": what is left of `seconds` since `at`; empty when it is over or unknown. */
export class About extends Ticking {
	text({ at, seconds }) {
		if (seconds == null) return "";
		const left = seconds - (at ? (now() - Date.parse(at)) / 1000 : 0);
		return left >= 0.5 ? `about ${duration(left * 1000)}` : "";
	}
}

const PATHS = {
	well: "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13Zm-3 6.7 2.1 2.1 4-4.4",
	stopped: "M8 2.2a5.8 5.8 0 1 0 0 11.6A5.8 5.8 0 0 0 8 2.2Z",
	working: "M8 1.8a6.2 6.2 0 1 1-6.2 6.2",
	waiting: "M4 1.8h8M4 14.2h8M4.8 1.8c0 3.6 6.4 4.6 6.4 12.4M11.2 1.8c0 3.6-6.4 4.6-6.4 12.4",
	blocked: "M5.2 1.5h5.6l3.7 3.7v5.6l-3.7 3.7H5.2l-3.7-3.7V5.2ZM4.8 8h6.4",
	degraded: "M8 1.6 15 14H1ZM8 6v3.6M8 11.7v.3",
	suspended: "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM6.3 5.6v4.8M9.7 5.6v4.8",
	differs: "M8 1.2 14.8 8 8 14.8 1.2 8ZM5.5 6.8h5M5.5 9.2h5",
	restart: "M13.4 6.2A5.8 5.8 0 1 0 13.8 8M13.8 2.4v3.8h-3.8",
	more: "m4 6 4 4 4-4",
	search: "M7 2.2a4.8 4.8 0 1 0 0 9.6 4.8 4.8 0 0 0 0-9.6ZM10.6 10.6l3.6 3.6",
	lost: "M2 2l12 12M8 12.8v.2M5.4 10a3.8 3.8 0 0 1 3.9-.8M2.8 7.4A7.6 7.6 0 0 1 5.6 5.6M13.2 7.4a7.6 7.6 0 0 0-5-2",
	close: "M4 4l8 8M12 4l-8 8",
	auto: "M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8Zm0 0v12.4",
	sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1.2M8 13.8V15M1 8h1.2M13.8 8H15M3 3l.9.9M12.1 12.1l.9.9M3 13l.9-.9M12.1 3.9 13 3",
	moon: "M13.6 9.6A6 6 0 0 1 6.4 2.4a6 6 0 1 0 7.2 7.2Z",
	key: "M5.2 6.6a3.2 3.2 0 1 0 0 6.4 3.2 3.2 0 0 0 0-6.4ZM7.6 7.6l5.8-5.8M11 4.2l2 2",
};

/** A small drawing; the word beside it, or its button's label, says the same. */
export function Icon({ name }) {
	return html`<svg class=${`icon ${name}`} viewBox="0 0 16 16" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}
