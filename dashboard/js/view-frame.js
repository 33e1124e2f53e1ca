// The frame around every tab.

import { TABS } from "./address.js";
import { html, Icon, memo, Since } from "./dom.js";
import { count, memory } from "./format.js";
import { Bar } from "./view-bar.js";
import { box } from "./memory.js";
import { overall } from "./words.js";

const NAMES = { groups: "Groups", map: "Map", memory: "Memory", history: "History", audit: "Audit" };
const THEME = { "": "as the system has it", light: "light", dark: "dark" };

export const Frame = memo(({ link, snapshot, route, session, theme, act }) => html`
	<a class="skip" href="#main" onClick=${skip}>To the content</a>
	<header class="top">
		<div class="bar">
			<h1 class="stack">${snapshot?.stack || "Service Manager"}<span class="host">${location.hostname}</span></h1>
			${snapshot && html`<${Overall} snapshot=${snapshot} link=${link} />`}
			<span class="gap"></span>
			${session.required && session.name && html`
				<span class="who"><${Icon} name="key" />${session.name}${session.role === "viewer" && html`<span class="muted"> reads only</span>`}
					<button class="plain" onClick=${() => act.signOut()}>Sign out</button></span>`}
			<button class="tool" onClick=${() => act.theme()} aria-label=${`Colours: ${THEME[theme]}. Change`}
				title=${`Colours: ${THEME[theme]}`}><${Icon} name=${{ "": "auto", light: "sun", dark: "moon" }[theme]} /></button>
			<button class="tool" onClick=${() => act.help()} aria-label="Help and keys" title="Help and keys (?)"><b aria-hidden="true">?</b></button>
		</div>
		${snapshot && html`<${Strip} snapshot=${snapshot} />`}
		<div class="bar under">
			${snapshot && html`<nav class="tabs" aria-label="Views">
				${TABS.map((tab, i) => html`<a key=${tab} href=${`#/${tab}`} aria-current=${route.tab === tab ? "page" : null}
					title=${`${NAMES[tab]} (${i + 1})`} onClick=${stay(act, tab)}>${NAMES[tab]}</a>`)}
			</nav>`}
			${route.tab === "groups" && snapshot && html`
				<label class="find"><${Icon} name="search" /><span class="vh">Search groups and services</span>
					<input id="search" type="search" placeholder="Search" autocomplete="off" spellcheck="false"
						value=${route.q} onInput=${(event) => act.go({ q: event.target.value })} /><kbd aria-hidden="true">/</kbd></label>`}
		</div>
	</header>`);

function skip(event) {
	event.preventDefault();
	const row = document.querySelector("main button, main a");
	row?.focus();
}

/** A plain click changes the tab and keeps what is open; with a modifier the link is a link. */
function stay(act, tab) {
	return (event) => {
		if (event.ctrlKey || event.metaKey || event.shiftKey) return;
		event.preventDefault();
		act.go({ tab }, true);
	};
}

function Overall({ snapshot, link }) {
	const { icon, tone, word } = overall(snapshot, link);
	return html`
		<span class=${`state ${tone}`} id="overall"><${Icon} name=${icon} />${word}</span>
		<span class="facts" title=${`generation ${snapshot.generation}, accepted ${snapshot.accepted_at ?? "never"}, content ${snapshot.revision}`}>
			gen <b class="num">${snapshot.generation}</b>
			${snapshot.commit && html`<span class="when"> · <code>${snapshot.commit.slice(0, 7)}</code></span>`}
			${snapshot.accepted_at && html`<span class="when"> · <${Since} at=${snapshot.accepted_at} rough /> ago</span>`}
		</span>`;
}

const Strip = memo(({ snapshot }) => {
	const { total, measured } = box(snapshot);
	return html`<div class="bar strip">
		<${Pilot} snapshot=${snapshot} />
		<a class="mem" href="#/memory">
			<span class="label">Memory</span>
			<${Bar} snapshot=${snapshot} />
			<span class="num">${total ? `${(measured / 1000).toFixed(1)} of ${(total / 1000).toFixed(1)} GB` : memory(measured)}</span>
		</a>
	</div>`;
});

function Pilot({ snapshot }) {
	const { pilot, pilot_ready: ready, groups } = snapshot;
	if (!pilot.groups.length && !pilot.memory_mb) return null;
	const lacks = pilot.groups.filter((name) => groups[name] && !well(groups[name]));
	const why = lacks.map((name) => `${name} ${excuse(groups[name])}`).join(", ");
	return html`<span class=${`pilot ${ready ? "" : "not"}`} id="pilot"><${Icon} name=${ready ? "well" : "waiting"} />
		<b>Pilot ${ready ? "ready" : "not ready"}</b>${!ready && why && html`<span class="why" title=${why}>: ${why}</span>`}</span>`;
}

function well(group) {
	return group.desired === "on" && group.services.every((s) => s.ready || s.done);
}

function excuse(group) {
	if (group.desired === "off") return "is off";
	const ready = group.services.filter((s) => s.ready || s.done).length;
	return `has ${ready} of ${count(group.services.length, "service")} ready`;
}

export const Toast = memo(({ toast, act }) => html`
	<div class="toasts" role="status" aria-live="polite">
		${toast && html`<div class=${`toast ${toast.problem ? "red" : ""}`}>
			${toast.problem && html`<${Icon} name="degraded" />`}
			<p><span>${toast.text}</span>${toast.problem?.remedy && html`<small>${toast.problem.remedy}</small>`}</p>
			${toast.undo && html`<button class="quiet" onClick=${() => act.undo(toast.undo)}>Undo</button>`}
			<button class="tool" aria-label="Close" onClick=${() => act.dismiss()}><${Icon} name="close" /></button>
		</div>`}
	</div>`);

