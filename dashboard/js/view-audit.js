// Who did what, when, and what came of it: people, files and the loop alike. Refusals stand out.

import { html, Icon, memo } from "./dom.js";
import { moment } from "./format.js";

const ACTIONS = ["start", "stop", "restart", "put", "edit", "accept", "rollback", "generation_end", "container_start", "container_stop", "request"];
const BAD = { refused: "blocked", failed: "degraded", degraded: "degraded", unknown: "waiting" };

export const Audit = memo(({ audit, filter, groups, act }) => {
	const { entries, before, problem } = audit;
	const set = (patch) => act.go({ filter: { ...filter, ...patch } });
	const filtered = Object.values(filter).some(Boolean);
	return html`<section class="audit" aria-label="Audit log">
		<div class="tools">
			<label>group <select value=${filter.group} onChange=${(e) => set({ group: e.target.value })}>
				<option value="">all</option>${Object.keys(groups).map((n) => html`<option key=${n} value=${n}>${n}</option>`)}</select></label>
			<label>action <input list="actions" value=${filter.action} placeholder="all" autocomplete="off" onChange=${(e) => set({ action: e.target.value.trim() })} /></label>
			<datalist id="actions">${ACTIONS.map((n) => html`<option key=${n} value=${n} />`)}</datalist>
			<label>who <input value=${filter.user} placeholder="all" autocomplete="off" onChange=${(e) => set({ user: e.target.value.trim() })} /></label>
			${filtered && html`<button class="plain" onClick=${() => set({ group: "", action: "", user: "" })}>Show all</button>`}
		</div>
		${problem ? html`<p class="refusal"><${Icon} name="degraded" />${problem.status === 404 ? "This daemon keeps no audit log." : problem.detail || problem.title}</p>`
			: entries === null ? html`<p class="empty">Reading …</p>`
			: html`<${Entries} entries=${entries} filtered=${filtered} />`}
		${before && html`<button class="small" onClick=${() => act.effects.older()}>Show older ones</button>`}
	</section>`;
});

function Entries({ entries, filtered }) {
	if (!entries.length) return html`<p class="empty">${filtered ? "No entry passes these filters." : "Nothing happened yet."}</p>`;
	return html`<div class="scroll" tabindex="0" role="group" aria-label="Entries"><table class="log">
		<thead><tr><th scope="col">when</th><th scope="col">who</th><th scope="col">what</th><th scope="col">result</th><th scope="col" class="wide">in words</th></tr></thead>
		<tbody>${[...entries].reverse().map((entry) => html`<${Entry} key=${entry.id} entry=${entry} />`)}</tbody></table></div>`;
}

const Entry = memo(({ entry }) => {
	const bad = BAD[entry.result];
	const who = entry.source ? `${entry.user}, from ${entry.source}` : entry.user;
	return html`<tr class=${bad ? "bad" : ""} data-result=${entry.result}>
		<td class="num" title=${entry.timestamp}>${moment(entry.timestamp)}</td>
		<td title=${who}>${entry.user}</td>
		<td>${entry.action.replaceAll("_", " ")} <b>${entry.target}</b>${entry.generation && html` <span class="faint num" title="generation">#${entry.generation}</span>`}</td>
		<td class=${bad ? "red-ink" : "muted"}>${bad && html`<${Icon} name=${bad} />`}${entry.result}${entry.count > 1 && ` ×${entry.count}`}</td>
		<td class="wide muted">${entry.message || entry.reason}</td></tr>`;
});
