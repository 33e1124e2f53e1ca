// One group: a line with its switch, state and cost; details open below.

import { About, html, Icon, memo } from "./dom.js";
import { count, memory, memoryOf } from "./format.js";
import { Preview } from "./view-preview.js";
import { Service } from "./view-service.js";
import { Suspend } from "./view-suspend.js";
import { lookOfGroup, quiet } from "./words.js";

export const Group = memo((props) => {
	const { group, requested, open, preview, act, may } = props;
	const name = group.group;
	const on = requested ? requested.on : group.desired === "on";
	const waits = requested && requested.on !== (group.desired === "on");
	const differs = group.services.some((s) => s.drift.length);
	return html`
		<section class=${`card ${open ? "open" : ""} ${differs ? "differs" : ""}`} data-group=${name} id=${`at-${name}`}
				aria-label=${`Group ${name}`}>
			<div class="row" onClick=${(event) => { if (!event.target.closest("button, a, input")) act.toggle(name); }}>
				<${Switch} name=${name} on=${on} busy=${waits} may=${may} act=${act} />
				<button class="name" aria-expanded=${open} aria-controls=${open ? `in-${name}` : null} tabindex="-1"
					onClick=${() => act.toggle(name)}>${name}</button>
				<${State} group=${group} waits=${waits} on=${on} />
				<span class=${`count num ${group.running_count ? "" : "idle"}`}>${group.running_count}/${group.total_count}</span>
				<${Sentence} ...${props} />
				<${Meter} group=${group} />
				<span class="ends">
					<button class="tool" disabled=${group.desired === "off" || !may} onClick=${() => act.restart(name)}
						aria-label=${`Restart ${name}`} title="Restart, container by container"><${Icon} name="restart" /></button>
					<button class="tool more" aria-expanded=${open} onClick=${() => act.toggle(name)}
						aria-label=${`${open ? "Close" : "Open"} ${name}`}><${Icon} name="more" /></button>
				</span>
			</div>
			${preview && html`<${Preview} preview=${preview} act=${act} />`}
			${open && html`<${Inside} ...${props} />`}
		</section>`;
});

function Switch({ name, on, busy, may, act }) {
	return html`<button role="switch" class="switch" aria-checked=${on} aria-busy=${busy} disabled=${!may}
		aria-label=${`${name} should be on`} data-row=${name} onClick=${() => act.flip(name, !on)}>
		<span class="track"><span class="knob"></span></span><span class="word" aria-hidden="true">${on ? "on" : "off"}</span></button>`;
}

function State({ group, waits, on }) {
	const { icon, tone, word } = waits
		? { icon: "working", tone: "amber", word: on ? "to be on" : "to be off" } : lookOfGroup(group);
	const code = `phase ${group.phase}${group.reason ? `, reason ${group.reason}` : ""}`;
	return html`<span class=${`state ${tone}`} title=${code}><${Icon} name=${icon} /><span>${word}</span></span>`;
}

function Sentence({ group, needs, leaves, all }) {
	const quietly = group.phase === "converged" || !group.message;
	if (quietly) {
		const text = quiet(group, needs ? needs.split("\n") : [], leaves);
		return html`<span class=${`says ${leaves !== null && leaves < 0 ? "tight" : ""}`} title=${text}>${text}</span>`;
	}
	const doing = ["progressing", "waiting"].includes(group.phase);
	const first = group.services.find((s) => s.phase === group.phase && s.reason === group.reason);
	const target = first && (awaited(all, first) ?? first);
	return html`<span class="says" title=${`${group.message} (${group.reason})`}>
		${doing && html`<${Steps} group=${group} />`}<span class="why">${spoken(group.message)}</span>
		${doing && target && html`<span class="left num"><${About} at=${target.started_at} seconds=${target.expected_seconds} /></span>`}</span>`;
}

function awaited(all, { waits_for: [name] }) {
	for (const group of name && all ? Object.values(all) : []) {
		const found = group.services.find((s) => s.name === name);
		if (found) return found;
	}
	return null;
}

export function spoken(message) {
	return message.replace(/^([\w.-]+): (waits|needs|stops|runs|ends) /, "$1 $2 ").replace(/ \(`service-manager.*$/, "");
}

function Steps({ group }) {
	const there = group.services.filter((s) => (group.desired === "on" ? s.ready || s.done : !s.step && s.phase === "converged")).length;
	const whole = group.total_count || 1;
	return html`<span class="steps" role="progressbar" aria-label=${`${group.group}: services where they should be`}
		aria-valuemin="0" aria-valuemax=${whole} aria-valuenow=${there}>
		<span style=${{ transform: `scaleX(${there / whole})` }}></span></span>`;
}

function Meter({ group }) {
	const known = group.services.some((s) => s.memory_mb != null);
	const measured = known ? group.total_memory_mb : 0;
	const part = group.estimated_memory_mb ? measured / group.estimated_memory_mb : 0;
	const over = part > 1.1;
	const text = group.running_count
		? memoryOf(known ? measured : null, group.estimated_memory_mb) : memory(group.estimated_memory_mb);
	return html`<span class=${`meter num ${over ? "over" : ""} ${group.running_count ? "" : "idle"}`} title="measured of estimated">
		<span class="gauge" aria-hidden="true"><span style=${{ transform: `scaleX(${Math.min(1, part)})` }}></span></span>
		<span class="vh">memory </span>${text}${over && html`<span class="vh">, more than estimated</span>`}</span>`;
}

function Inside(props) {
	const { group, inside, drift, act, marked, all } = props;
	return html`<div class="inside" id=${`in-${group.group}`}>
		<${Facts} ...${props} />
		<div class="heads" aria-hidden="true"><span>service</span><span>state</span><span></span><span>memory</span><span>cpu</span>
			<span>up</span><span>restarts</span><span>ports</span><span></span></div>
		<ul class="services">
			${group.services.map((service) => html`<${Service} key=${service.name} service=${service} group=${group.group} awaited=${awaited(all, service)}
				held=${group.phase === "suspended"} desired=${group.desired} drift=${drift?.[service.name]} marked=${Boolean(marked) && service.name.toLowerCase().includes(marked)}
				open=${inside.split(",").includes(`${group.group}/${service.name}`)} act=${act} />`)}
		</ul>
	</div>`;
}

function Facts({ group, act, may }) {
	const name = group.group, on = group.desired === "on";
	const link = (other) => html`<button key=${other} class="plain" onClick=${() => act.show(other)}>${other}</button>`;
	const held = group.services.some((s) => s.reason === "held_back");
	return html`<div class="about">
		<dl class="pairs">
			${group.message && html`<div class="wide"><dt><code>${group.reason}</code></dt><dd>${spoken(group.message)}</dd></div>`}
			<div><dt>should be</dt><dd>${group.desired}${group.force && ", without waiting for what it needs"}</dd></div>
			<div><dt>needs</dt><dd>${group.dependencies.length ? spaced(group.dependencies.map(link)) : "nothing"}</dd></div>
			<div><dt>needed by</dt><dd>${group.dependents.length ? spaced(group.dependents.map(link)) : "nothing"}</dd></div>
			<div><dt>memory</dt><dd class="num">${memory(group.total_memory_mb)} of ${memory(group.estimated_memory_mb)} estimated</dd></div>
		</dl>
		<div class="deeds">
			<button class="small" disabled=${!may || on} onClick=${() => act.flip(name, true)}>Start</button>
			<button class="small" disabled=${!may || !on} onClick=${() => act.flip(name, false)}>Stop</button>
			<button class="small" disabled=${!may || !on} onClick=${() => act.restart(name)}>Restart</button>
			<button class="small" onClick=${() => act.would(name, !on)}>What would ${on ? "stopping" : "starting"} do?</button>
			${held && html`<button class="small strong" disabled=${!may} onClick=${() => act.accept(name)}>Carry out what is held back</button>`}
			<${Suspend} key=${`s-${group.phase === "suspended"}`} group=${group} may=${may} act=${act} />
		</div>
	</div>`;
}

function spaced(parts) {
	return parts.flatMap((part, i) => (i ? [", ", part] : [part]));
}

export const Unmanaged = memo(({ services, orphans, open, act }) => {
	if (!services.length && !orphans.length) return null;
	const running = services.filter((s) => s.status === "running").length;
	return html`<section class="card beside" aria-label="Not managed">
		<div class="row" onClick=${(event) => { if (!event.target.closest("button")) act.toggle("-"); }}>
			<span class="says"><b>Not managed</b> ${count(services.length, "service")} in no group${running > 0 && `, ${running} running`}${orphans.length > 0 && ` · ${count(orphans.length, "orphan")}`}</span>
			<span class="ends"><button class="tool more" aria-expanded=${open} aria-label=${`Not managed`} onClick=${() => act.toggle("-")}><${Icon} name="more" /></button></span>
		</div>
		${open && html`<div class="inside"><p class="muted">The daemon never touches these; <code>docker compose up -d NAME</code> starts one by hand.</p>
			${orphans.length > 0 && html`<p><b>Orphans</b>, containers of services that no file names any more: ${orphans.join(", ")}. Left alone, unless stack.yaml says <code>prune: true</code>.</p>`}
			<ul class="services">${services.map((s) => html`<${Service} key=${s.name} service=${s} group="-" unmanaged />`)}</ul></div>`}
	</section>`;
});

