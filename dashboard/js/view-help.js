// The keys.

import { Component, html, Icon } from "./dom.js";

const KEYS = [
	["/", "search groups and services"], ["j k", "next and previous row"], ["space", "the switch of this row"],
	["enter", "open or close the row"], ["1 to 5", "groups, map, memory, history, audit"], ["esc", "cancel, close"], ["?", "this help"],
];

export class Help extends Component {
	componentDidMount() {
		this.before = document.activeElement;
		this.base?.showModal?.();
	}

	componentWillUnmount() { this.before?.focus?.(); }

	render({ act }) {
		return html`<dialog class="help" aria-labelledby="help-title" onClose=${() => act.help(false)}
				onClick=${(e) => { if (e.target === e.currentTarget) act.help(false); }}>
			<div class="sheet"><header><h2 id="help-title">Keys</h2><button class="tool" aria-label="Close" onClick=${() => act.help(false)}><${Icon} name="close" /></button></header>
				<dl class="keys">${KEYS.map(([key, does]) => html`<div key=${key}><dt>${key.split(" ").map((k) => (k === "to" ? " to " : html`<kbd key=${k}>${k}</kbd> `))}</dt><dd>${does}</dd></div>`)}</dl>
				<p class="muted">The switch is what should be; the word beside it is what is. <a href="/docs">The API</a> has all of this as JSON.</p></div>
		</dialog>`;
	}
}
