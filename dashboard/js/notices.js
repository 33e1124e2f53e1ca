// The state of the host: what is wrong, why, and what happens next. The worst comes first.

import { About, html, Icon, memo, Since, Until } from "./dom.js";
import { count, listed, moment } from "./format.js";
import { differs, doing } from "./words.js";
import { flip } from "./memory.js";
import { spoken } from "./view-group.js";

export const Notices = memo(({ link, snapshot, drift, act, may }) => {
	const found = [...ofLink(link, act), ...(snapshot ? ofStack(snapshot, drift, act, may) : [])];
	if (!found.length && snapshot) found.push(well(snapshot));
	return html`<section class="notices" aria-label="State of the stack">
		${found.map(({ key, tone, icon, body }) => html`
			<div key=${key} class=${`notice ${tone}`} data-notice=${key}><${Icon} name=${icon} /><div>${body}</div></div>`)}
		<p class="vh" role="status">${found.map((one) => one.announce ?? "").filter(Boolean).join(". ")}</p>
	</section>`;
});

function ofLink(link, act) {
	if (link.state === "lost") {
		const since = new Date(link.since).toISOString();
		return [{
			key: "lost", tone: "grey", icon: "lost", announce: "The connection is lost",
			body: html`<p><b>No answer from the daemon</b> since ${moment(since)}. What you see is from then; the page keeps
				trying. <button class="plain" onClick=${() => act.retry()}>Try now</button></p>`,
		}];
	}
	if (link.state === "polling") {
		return [{
			key: "polling", tone: "grey", icon: "lost", announce: "No live events",
			body: html`<p>Live events do not get through; this page looks every ten seconds instead.</p>`,
		}];
	}
	return [];
}

function ofStack(snapshot, drift, act, may) {
	const found = [];
	const { engine, errors, generation } = snapshot;
	if (!engine.reachable && engine.error !== "not contacted yet") found.push(engineGone(engine));
	if (errors.length) found.push(broken(errors, generation));
	const groups = Object.values(snapshot.groups);
	found.push(...stuck(groups, snapshot, act, may), ...differing(groups, drift, act));
	if (snapshot.progress.state === "progressing" && snapshot.progress.total) found.push(working(snapshot));
	const still = groups.filter((group) => group.phase === "suspended");
	if (still.length) found.push(suspended(still, drift, act));
	return found;
}

function engineGone(engine) {
	return {
		key: "engine", tone: "red", icon: "degraded", announce: "The engine does not answer",
		body: html`<p><b>The container engine does not answer</b>${engine.since && html` since <span class="num">${moment(engine.since)}</span>, for <${Since} at=${engine.since} />`}. Containers keep running; what you see is from then. The daemon continues
			when the engine is back. If it stays away: <code>sudo systemctl status docker</code>.</p>
			${engine.error && html`<p class="muted">${engine.error}</p>`}`,
	};
}

function broken(errors, generation) {
	const last = generation ? `Generation ${generation}, the last valid state, stays in force.` : "Nothing was accepted yet.";
	const remedy = `Correct ${errors.length > 1 ? "them" : "it"} and save.`;
	return {
		key: "files", tone: "red", icon: "degraded", announce: "The files of desired state are not valid",
		body: html`<p><b>${count(errors.length, "mistake")} in the files of desired state.</b> ${last} ${remedy}</p>
			<ul class="mistakes">${errors.map((e) => html`<li key=${`${e.path}:${e.line}:${e.message}`}>
				<code>${e.path}${e.line ? `:${e.line}` : ""}${e.line && e.column ? `:${e.column}` : ""}</code> ${e.message}</li>`)}</ul>`,
	};
}

function differing(groups, drift, act) {
	const all = groups.filter((g) => g.phase !== "suspended").flatMap((g) => g.services.filter((s) => s.drift.length).map((s) => ({ group: g, service: s })));
	if (!all.length) return [];
	const shown = all.slice(0, 3);
	const verb = all.length === 1 ? "differs" : "differ";
	return [{
		key: "drift", tone: "amber", icon: "differs", announce: `${count(all.length, "service")} ${verb} from what should be`,
		body: html`<p><b>${count(all.length, "service")} ${verb} from what should be${all.length > 1 ? "." : ":"}</b>
			${all.length === 1 ? " " : html`<br />`}
			${shown.map(({ group, service }, i) => html`<span key=${service.name}>${i > 0 && html`<br />`}
				<button class="plain" onClick=${() => act.show(`${group.group}/${service.name}`)}>${service.name}</button>
				${" "}${differs(service, drift[service.name])} · <${Next} service=${service} group=${group} /></span>`)}
			${all.length > 3 && html`<br />and ${all.length - 3} more`}</p>`,
	}];
}

export function Next({ service, group }) {
	if (service.step) return `${doing(service.step)} now`;
	if (service.retry_at) return html`tried again <${Until} at=${service.retry_at} />`;
	if (service.phase === "progressing") return html`on its way <${About} at=${service.started_at} seconds=${service.expected_seconds} />`;
	return service.message || "being repaired";
}

function stuck(groups, snapshot, act, may) {
	return groups.filter((g) => g.phase === "blocked" || g.phase === "degraded").slice(0, 4).map((group) => {
		const off = group.dependencies.filter((name) => snapshot.groups[name]?.desired === "off");
		const held = group.reason === "held_back";
		const retry = group.services.find((s) => s.phase === "degraded" && s.retry_at);
		return {
			key: `stuck-${group.group}`, tone: held ? "blue" : "red", icon: held ? "suspended" : group.phase, announce: `${group.group} is ${group.phase}`,
			body: html`<p><button class="plain" onClick=${() => act.show(group.group)}>${group.group}</button> ${" "}is ${held ? "held back" : group.phase}: ${spoken(group.message)}${retry && html` · tried again <${Until} at=${retry.retry_at} />`}
				${held && may && html`<span class="ways"><button class="small" onClick=${() => act.accept(group.group)}>Apply</button></span>`}
				${group.phase === "blocked" && off.length > 0 && may && html`<span class="ways">
					<button class="small" onClick=${() => act.carryOut(flip(snapshot, off[0], true), "with")}>Switch ${listed(off)} on</button>
					<button class="small" onClick=${() => act.carryOut({ group: group.group, on: true, changes: [] }, "force")}>Start without</button></span>`}
			</p>`,
		};
	});
}

function working(snapshot) {
	const { progress } = snapshot;
	return {
		key: "working", tone: "amber", icon: "working", announce: `Working on generation ${progress.generation}`,
		body: html`<p><b>Working on it:</b> <span class="num">${progress.done} of ${count(progress.total, "service")}</span> where
			${progress.total > 1 ? " they" : " it"} should be${progress.expected_at && html`, done <${Until} at=${progress.expected_at} about />`}</p>`,
	};
}

function suspended(groups, drift, act) {
	return {
		key: "suspended", tone: "blue", icon: "suspended", announce: `Suspended: ${listed(groups.map((g) => g.group))}`,
		body: groups.map((group) => {
			const moved = group.services.filter((s) => s.drift.length);
			const until = [group.suspended_until && `until ${moment(group.suspended_until)}`, group.suspend_reason].filter(Boolean);
			return html`<p key=${group.group}><b>Suspended:</b> <button class="plain" onClick=${() => act.show(group.group)}>${group.group}</button>
				${until.length > 0 && ` (${until.join(", ")})`}: ${moved.length
					? moved.map((s) => `${s.name} ${differs(s, drift[s.name])}`).join(", ") : "drift is reported, nothing is repaired"}.</p>`;
		}),
	};
}

function well(snapshot) {
	const { running_services: running, total_services: total, converged } = snapshot;
	if (!converged) {
		return { key: "well", tone: "calm", icon: "waiting", announce: "Looking", body: html`<p>The daemon is looking at what runs.</p>` };
	}
	return {
		key: "well", tone: "calm", icon: "well", announce: "Everything is as it should be",
		body: html`<p><b>Everything is as it should be.</b> <span class="num muted">${running} of ${count(total, "service")} on</span></p>`,
	};
}
