// The log of one container. Its lines are written without the view library: thousands, and only at the end.

import { Component, html, Icon } from "./dom.js";
import { at, follow, save } from "./stream.js";

const KEPT = 5000;
const TAILS = [100, 500, 2000];
const AGAIN = 3000;

export class Logs extends Component {
	constructor() {
		super();
		this.state = { tail: TAILS[0], live: true, previous: false, q: "", problem: null, note: "", shown: 0 };
		this.lines = [];
	}

	componentDidMount() { this.begin(); }
	componentWillUnmount() { this.end(); }

	componentDidUpdate(props) {
		// Another container replaced the old one: its log starts from the beginning.
		if (props.container !== this.props.container && !this.state.previous) this.begin();
	}

	shouldComponentUpdate(next, state) {
		return state !== this.state || next.container !== this.props.container;
	}

	end() {
		clearTimeout(this.timer);
		this.stop?.abort();
	}

	query(tail, live) {
		const previous = this.state.previous ? "&previous=true" : "";
		return `logs/${encodeURIComponent(this.props.service)}?tail=${tail}${live ? "&follow=true" : ""}${previous}`;
	}

	async begin() {
		this.end();
		const { signal } = (this.stop = new AbortController());
		const live = this.state.live && !this.state.previous;
		this.lines = [];
		this.write();
		this.setState({ problem: null, note: "" });
		try {
			await follow(this.query(this.state.tail, live), (lines) => this.take(lines), signal);
			if (!signal.aborted) this.setState({ note: live ? "The log ended here." : "" });
		} catch (problem) {
			if (signal.aborted) return;
			this.setState(problem.status ? { problem } : { note: "The connection to the log was cut; it is taken up again." });
			if (!problem.status && live) this.timer = setTimeout(() => this.begin(), AGAIN);
		}
	}

	set(patch, again = true) {
		this.setState(patch, () => (again ? this.begin() : this.write()));
	}

	take(lines) {
		this.lines.push(...lines);
		if (this.lines.length > KEPT) this.lines.splice(0, this.lines.length - KEPT);
		if (this.writing) return;
		this.writing = requestAnimationFrame(() => {
			this.writing = 0;
			this.write();
		});
	}

	write() {
		const pane = this.pane;
		if (!pane) return;
		const wanted = this.state.q.toLowerCase();
		const shown = wanted ? this.lines.filter((line) => line.toLowerCase().includes(wanted)) : this.lines;
		const low = pane.scrollHeight - pane.scrollTop - pane.clientHeight < 24;
		pane.replaceChildren(...(wanted ? marked(shown, wanted) : [shown.join("\n")]));
		if (low) pane.scrollTop = pane.scrollHeight;
		if (shown.length !== this.state.shown) this.setState({ shown: shown.length });
	}

	save(event, service) {
		event.preventDefault();
		save(this.query(10000, false), `${service}.log`).catch((problem) => this.setState({ problem }));
	}

	render({ service }, { tail, live, previous, q, problem, note, shown }) {
		return html`<section class="logs" aria-label=${`Log of ${service}`}>
			<div class="tools">
				<b>Log</b>
				<label>last <select value=${tail} onChange=${(e) => this.set({ tail: Number(e.target.value) })}>
					${TAILS.map((n) => html`<option key=${n} value=${n}>${n}</option>`)}</select> lines</label>
				<label><input type="checkbox" checked=${live && !previous} disabled=${previous} onChange=${(e) => this.set({ live: e.target.checked })} /> follow</label>
				<label><input type="checkbox" checked=${previous} onChange=${(e) => this.set({ previous: e.target.checked })} /> of the one before</label>
				<label class="find"><${Icon} name="search" /><span class="vh">Search in this log</span>
					<input type="search" placeholder="Search in the log" value=${q} spellcheck="false" onInput=${(e) => this.set({ q: e.target.value }, false)} /></label>
				<a class="small" href=${at(this.query(10000, false)).href} download=${`${service}.log`} onClick=${(e) => this.save(e, service)}>Download</a>
				<span class="muted num">${q ? `${shown} of ${this.lines.length} lines` : ""}</span>
			</div>
			<pre class="pane" tabindex="0" role="log" aria-live="off" aria-label=${`Log lines of ${service}`} ref=${(pane) => { this.pane = pane; }}></pre>
			${problem && html`<p class="refusal"><${Icon} name="degraded" />${words(problem, previous)}</p>`}
			${!problem && (note || !shown) && html`<p class="muted">${note || (q ? "No line has that." : "No lines yet.")}</p>`}
		</section>`;
	}
}

function words(problem, previous) {
	if (problem.status === 422 && previous) return "This daemon keeps no log of earlier containers.";
	const text = problem.detail || problem.title;
	return problem.remedy ? `${text}: ${problem.remedy}` : text;
}

function marked(lines, wanted) {
	return lines.flatMap((line) => {
		const parts = [], low = line.toLowerCase();
		let from = 0;
		for (let i = low.indexOf(wanted); i >= 0; i = low.indexOf(wanted, from)) {
			const mark = document.createElement("mark");
			mark.textContent = line.slice(i, i + wanted.length);
			parts.push(line.slice(from, i), mark);
			from = i + wanted.length;
		}
		return [...parts, `${line.slice(from)}\n`];
	});
}
