// What a change would do, in place, before it is made.

import { Component, html, Icon } from "./dom.js";
import { listed, memory } from "./format.js";
import { consequence } from "./words.js";

export class Preview extends Component {
	componentDidMount() {
		this.base?.querySelector?.(".strong")?.focus();
	}

	render({ preview, act }) {
		return preview.kind === "restart" ? html`<${Restart} preview=${preview} act=${act} />` : html`<${Flip} preview=${preview} act=${act} />`;
	}
}

function Restart({ preview, act }) {
	const { group, users } = preview;
	return html`<div class="preview" role="group" aria-label=${`Restart ${group}?`}>
		<p><b>Restart ${group}?</b> ${listed(users)} ${users.length > 1 ? "use" : "uses"} it and may lose the connection for a while.</p>
		<div class="deeds"><button class="small strong" onClick=${() => act.restart(group, true)}>Restart ${group}</button>
			<button class="small" onClick=${() => act.cancel()}>Cancel</button></div>
	</div>`;
}

function Flip({ preview, act }) {
	const { group, on, others, direct, plan, problem } = preview;
	const way = on ? "on" : "off";
	const tight = on && preview.left !== null && preview.left < 0;
	return html`<div class="preview" role="group" aria-label=${`Switch ${group} ${way}?`}>
		<p>${others.length > 0
			? html`<b>${group} ${on ? "needs" : "is needed by"} ${listed(others)}</b>, which ${others.length > 1 ? "are" : "is"} ${on ? "off" : "on"}. `
			: html`<b>Switch ${group} ${way}.</b> `}
			${consequence(preview)}${preview.left !== null && html`; <span class=${tight ? "red-ink" : ""}>
			${tight ? `that is ${memory(-preview.left)} more than this box has` : `${memory(preview.left)} stay free`}</span>`}.</p>
		<${Planned} plan=${plan} problem=${problem} />
		<div class="deeds">
			${others.length > 0
				? html`<button class="small strong" onClick=${() => act.carryOut(preview, "with")}>Switch ${listed([group, ...others])} ${way}</button>
					${direct.length > 0 && html`<button class="small" onClick=${() => act.carryOut(preview, "force")}
						title=${on ? "Starts without waiting for what it needs" : "What needs it stays on, and will miss it"}>Only ${group}</button>`}`
				: html`<button class="small strong" onClick=${() => act.carryOut(preview)}>Switch ${group} ${way}</button>`}
			<button class="small" onClick=${() => act.cancel()}>Cancel</button>
		</div>
	</div>`;
}

const SHOWN = 6;

function Planned({ plan, problem }) {
	if (problem) return html`<p class="refusal"><${Icon} name="degraded" />${problem.detail || problem.title}</p>`;
	if (!plan) return html`<p class="muted planned">&nbsp;</p>`;
	const { steps } = plan;
	if (!steps.length) return html`<p class="muted planned">No step is needed now.</p>`;
	const by = new Map();
	for (const step of steps) by.set(step.action, [...(by.get(step.action) ?? []), step.service]);
	const words = [...by].slice(0, SHOWN).map(([action, names]) => `${action} ${listed(names)}`);
	return html`<p class="muted planned" title=${plan.text}>The daemon would ${words.join("; ")}.</p>`;
}
