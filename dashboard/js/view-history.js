// Earlier desired states, and the way back to one.

import { Component, html, Icon } from "./dom.js";
import { count, listed, moment } from "./format.js";
import { ask } from "./stream.js";

const ENDED = { converged: "well", degraded: "degraded", progressing: "working", superseded: "stopped" };

export class History extends Component {
	constructor() {
		super();
		this.state = { previewed: 0, found: null, problem: null };
	}

	async look(generation) {
		this.setState({ previewed: generation, found: null, problem: null });
		if (!generation) return;
		try {
			const found = await ask(`history/${generation}`);
			if (this.state.previewed === generation) this.setState({ found });
		} catch (problem) {
			if (this.state.previewed === generation) this.setState({ problem });
		}
	}

	render({ history, act, may }, { previewed, found, problem }) {
		if (history.problem) {
			const lacks = [404, 405].includes(history.problem.status);
			return html`<p class="empty">${lacks ? "This daemon keeps no history." : history.problem.detail || history.problem.title}</p>`;
		}
		if (history.entries === null) return html`<p class="empty">Reading …</p>`;
		return html`<section class="generations" aria-label="Earlier desired states"><ol>
			${[...history.entries].reverse().map((one) => html`<${Generation} key=${one.generation} one=${one} may=${may} look=${(g) => this.look(g)}
				found=${previewed === one.generation ? { ...found, waits: !found, problem } : null} act=${act} />`)}</ol>
			${history.before && html`<button class="small" onClick=${() => act.effects.earlier()}>Show earlier ones</button>`}
		</section>`;
	}
}

function Generation({ one, found, may, look, act }) {
	const tone = { degraded: "red", progressing: "amber" }[one.state] ?? "well";
	return html`<li class=${`generation ${one.current ? "now" : ""}`} data-generation=${one.generation}>
		<span class="num gen">#${one.generation}</span>
		<span class=${`state ${tone}`}><${Icon} name=${ENDED[one.state] ?? "waiting"} /><span>${one.state}</span></span>
		<span class="says"><b>${one.changes.length ? one.changes.join(", ") : one.reason}</b>
			${one.state === "degraded" && one.message && html`<span class="muted"> · ${one.message}</span>`}</span>
		<span class="muted num" title=${one.accepted_at}>${moment(one.accepted_at)}</span>
		<span class="muted" title=${one.reason}>${one.author}${one.commit && html` <code>${one.commit.slice(0, 7)}</code>`}</span>
		${one.current ? html`<span class="tag">holds now</span>`
			: html`<button class="small" disabled=${!may} aria-expanded=${Boolean(found)} onClick=${() => look(found ? 0 : one.generation)}>Go back …</button>`}
		${found && html`<${Back} one=${one} found=${found} look=${look} act=${act} />`}
	</li>`;
}

function Back({ one, found, look, act }) {
	const by = {};
	for (const step of found.steps ?? []) (by[step.action] ??= new Set()).add(step.service);
	const steps = Object.entries(by).map(([action, names]) => `${action} ${listed([...names])}`).join("; ");
	return html`<div class="preview">
		${found.problem ? html`<p class="refusal"><${Icon} name="degraded" />${found.problem.detail || found.problem.title}</p>`
			: found.waits ? html`<p class="muted">Looking what that would do …</p>`
			: html`<p><b>${found.changes.length ? found.changes.join(", ") : "The groups stay as they are"}.</b>
					${" "}${found.files.length > 0 && `${listed(found.files)} as then. `}${steps ? `Containers: ${steps}.` : "No container has to change."}</p>
				${!found.engine_seen && html`<p class="muted">The engine does not answer, so the steps are not known.</p>`}
				${found.waiting.length > 0 && html`<p class="muted">${count(found.waiting.length, "service")} would wait: ${found.waiting[0].message}</p>`}`}
		<div class="deeds"><button class="small strong" disabled=${found.waits} onClick=${() => { look(0); act.rollback(one.generation); }}>Go back to generation ${one.generation}</button>
			<button class="small" onClick=${() => look(0)}>Cancel</button></div></div>`;
}
