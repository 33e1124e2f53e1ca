// Suspends a group, with an end and a reason, and resumes it.

import { Component, html } from "./dom.js";
import { moment, now } from "./format.js";

const FOR = [["1 hour", 1], ["4 hours", 4], ["12 hours", 12], ["2 days", 48], ["until resumed", 0]];

export class Suspend extends Component {
	constructor() {
		super();
		this.state = { open: false };
	}

	async send(event) {
		event.preventDefault();
		const { reason, hours } = event.target.elements;
		const until = Number(hours.value) && new Date(Math.round(now() / 1000) * 1000 + hours.value * 3_600_000).toISOString();
		const done = await this.props.act.suspend(this.props.group.group, { ...(until && { until }), reason: reason.value.trim() });
		if (done) this.setState({ open: false });
	}

	render({ group, may, act }, { open }) {
		if (group.phase === "suspended") {
			const why = [group.suspended_until && `until ${moment(group.suspended_until)}`, group.suspend_reason].filter(Boolean).join(", ");
			return html`<button class="small" disabled=${!may} onClick=${() => act.suspend(group.group, false)}>Resume</button>
				${why && html`<span class="muted">suspended: ${why}</span>`}`;
		}
		if (!open) return html`<button class="small" disabled=${!may} onClick=${() => this.setState({ open: true })}>Suspend …</button>`;
		return html`<form class="suspend" onSubmit=${(event) => this.send(event)}>
			<label>Suspend for <select name="hours" ref=${(e) => e && !this.focused && (this.focused = true) && e.focus()}>
				${FOR.map(([words, hours]) => html`<option key=${hours} value=${hours}>${words}</option>`)}</select></label>
			<label>because <input name="reason" maxlength="200" placeholder="camera work" autocomplete="off" /></label>
			<button class="small strong">Suspend</button>
			<button type="button" class="small" onClick=${() => { this.focused = false; this.setState({ open: false }); }}>Cancel</button>
		</form>`;
	}
}
