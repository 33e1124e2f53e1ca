// Asks for a key. It is exchanged at once for a cookie that no script can read, and kept nowhere.

import { Component, html, Icon } from "./dom.js";

export class SignIn extends Component {
	constructor() {
		super();
		this.state = { busy: false, problem: null };
	}

	async send(event) {
		event.preventDefault();
		const field = event.target.elements.key;
		if (!field.value.trim()) return field.focus();
		this.setState({ busy: true, problem: null });
		const problem = await this.props.act.signIn(field.value.trim());
		if (!problem) return undefined;
		this.setState({ busy: false, problem });
		field.select();
		return undefined;
	}

	render({ problem }, state) {
		const shown = state.problem ?? (problem?.status === 401 ? null : problem);
		return html`<form class="signin" onSubmit=${(event) => this.send(event)} autocomplete="off">
			<h2><${Icon} name="key" />This box asks for a key</h2>
			<p>Whoever runs it makes one with <code>service-manager key add NAME --role operator</code>, or
				${" "}<code>viewer</code> to look only. It is sent once and not kept in this browser.</p>
			<label for="key">API key</label>
			<div class="line"><input id="key" name="key" type="password" autocomplete="off" spellcheck="false" required
					aria-invalid=${shown ? "true" : null} aria-describedby="refusal" />
				<button class="main" disabled=${state.busy}>${state.busy ? "Asking …" : "Sign in"}</button></div>
			<p id="refusal" class="refusal" role="alert">${shown && html`<${Icon} name="degraded" /><b>${shown.detail || shown.title}</b>
				${shown.remedy && html`<span>${shown.remedy}</span>`}`}</p>
		</form>`;
	}
}
