// The whole page for one state.

import { html } from "./dom.js";
import { Frame, Toast } from "./view-frame.js";
import { Notices } from "./notices.js";
import { SignIn } from "./view-signin.js";
import { Group, Unmanaged } from "./view-group.js";
import { left } from "./memory.js";
import { Audit } from "./view-audit.js";
import { Help } from "./view-help.js";
import { History } from "./view-history.js";
import { Graph } from "./view-map.js";
import { Memory } from "./view-memory.js";

export function App(state) {
	const { link, snapshot, act, route, session } = state;
	const stale = link.state === "lost" ? "stale" : "";
	return html`
		<${Frame} link=${link} snapshot=${snapshot} route=${route} session=${session} theme=${state.theme} act=${act} />
		<main class=${`page ${stale}`} id="main">
			${link.state === "forbidden"
				? html`<${SignIn} problem=${link.problem} act=${act} />`
				: html`<${Notices} link=${link} snapshot=${snapshot} drift=${state.drift} act=${act}
						may=${may(session)} />`}
			${snapshot ? html`<${Tab} ...${state} />` : link.state === "loading" && html`<p class="empty">Asking the daemon …</p>`}
		</main>
		<${Toast} toast=${state.toast} act=${act} />
		${state.help && html`<${Help} act=${act} />`}`;
}

function may(session) {
	return !session.required || session.role === "operator";
}

function Tab(state) {
	const { snapshot, route, act } = state;
	if (route.tab === "map") return html`<${Graph} ...${state} card=${card(state, route.selected)} />`;
	if (route.tab === "memory") return html`<${Memory} snapshot=${snapshot} act=${act} />`;
	if (route.tab === "history") return html`<${History} history=${state.history} snapshot=${snapshot} act=${act} may=${may(state.session)} />`;
	if (route.tab === "audit") return html`<${Audit} audit=${state.audit} filter=${route.filter} groups=${snapshot.groups} act=${act} />`;
	return html`<${Groups} ...${state} />`;
}

function Groups(state) {
	const { snapshot, route, act } = state;
	const wanted = route.q.trim().toLowerCase();
	const names = Object.keys(snapshot.groups).filter((name) => found(snapshot.groups[name], wanted));
	if (!Object.keys(snapshot.groups).length) return html`<${Empty} snapshot=${snapshot} />`;
	return html`
		<div class="groups">
			${names.map((name) => card(state, name, wanted))}
			${!names.length && html`<p class="empty">No group or service is called <b>${route.q}</b>.
				<button class="plain" onClick=${() => act.go({ q: "" })}>Show all</button></p>`}
		</div>
		${!wanted && html`<${Unmanaged} services=${snapshot.unmanaged} orphans=${snapshot.orphans}
			open=${route.open.includes("-")} act=${act} />`}`;
}

function card(state, name, wanted = "") {
	const { snapshot, route, act } = state;
	const group = snapshot.groups[name];
	if (!group) return null;
	const needs = group.dependencies.map((n) => `${n}${snapshot.groups[n]?.desired === "on" ? " ✓" : " (off)"}`);
	const inside = route.open.filter((id) => id.startsWith(`${name}/`)).join();
	// A search that met a service opens its group, and leaves the address as it is.
	const met = wanted && !name.toLowerCase().includes(wanted);
	// Text and numbers, so that a card is drawn again only when one of them changed.
	return html`<${Group} key=${name} group=${group} needs=${needs.join("\n")}
		leaves=${group.desired === "off" ? left(snapshot, group.estimated_memory_mb) : null}
		requested=${state.requested[name]} open=${route.open.includes(name) || Boolean(met)} inside=${inside}
		preview=${state.preview?.group === name ? state.preview : null} drift=${group.services.some((s) => state.drift[s.name]) ? state.drift : null}
		all=${group.services.some((s) => s.waits_for.length) ? snapshot.groups : null}
		may=${may(state.session)} marked=${wanted} act=${act} />`;
}

function found(group, wanted) {
	return !wanted || group.group.toLowerCase().includes(wanted)
		|| group.services.some((s) => s.name.toLowerCase().includes(wanted));
}

function Empty({ snapshot }) {
	// Nothing was accepted yet: what is wrong with the files is said above.
	if (snapshot.errors.length) return null;
	return html`<p class="empty">The daemon is reading its files. Groups show up here as soon as it has.</p>`;
}
