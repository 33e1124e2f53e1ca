// One service: a line of what is known of it; below it what differs, why it failed, its log.

import { About, html, Icon, memo, Since, Until } from "./dom.js";
import { listed, memory, moment } from "./format.js";
import { Logs } from "./view-logs.js";
import { lookOfService, should } from "./words.js";

export const Service = memo((props) => {
	const { service, group, open, unmanaged, marked, act } = props;
	const { icon, tone, word } = lookOfService(service);
	const code = `container ${service.status}, health ${service.health}, phase ${service.phase || "none"}${service.reason ? `, reason ${service.reason}` : ""}`;
	const id = `${group}/${service.name}`;
	const differs = service.drift.length > 0;
	return html`
		<li class=${`service ${open ? "open" : ""} ${marked ? "marked" : ""}`} id=${`at-${id}`} data-service=${service.name}>
			<div class="line" onClick=${(event) => { if (act && !event.target.closest("button, a")) act.toggle(id); }}>
				${unmanaged ? html`<span class="name">${service.name}</span>`
					: html`<button class="name" data-row=${id} aria-expanded=${open} onClick=${() => act.toggle(id)}>${service.name}</button>`}
				<span class=${`state ${differs ? "amber" : tone}`} title=${code}><${Icon} name=${differs && tone !== "red" ? "differs" : icon} /><span>${word}</span></span>
				<span class="says"><${Says} ...${props} /></span>
				<span class="num cell" data-of="memory"><span class="vh">memory </span>${memory(service.memory_mb)}</span>
				<span class="num cell" data-of="cpu"><span class="vh">CPU </span>${service.cpu_percent == null ? "–" : `${service.cpu_percent < 10 ? service.cpu_percent.toFixed(1) : Math.round(service.cpu_percent)} %`}</span>
				<span class="num cell" data-of="up"><span class="vh">up </span>${service.started_at && service.status === "running" ? html`<${Since} at=${service.started_at} short />` : "–"}</span>
				<span class=${`num cell ${service.restart_count ? "" : "faint"}`} data-of="restarts"><span class="vh">restarts </span>${service.restart_count}</span>
				<span class="num cell ports" data-of="ports" title=${service.ports.join(", ")}><span class="vh">ports </span>${ports(service.ports)}</span>
				${!unmanaged && html`<span class="chevron" aria-hidden="true"><${Icon} name="more" /></span>`}
			</div>
			${open && html`<${Details} ...${props} />`}
		</li>`;
});

function ports(list) {
	const hosts = list.map((port) => port.split(":").slice(-2)[0]);
	if (!hosts.length) return html`<span class="faint">–</span>`;
	return hosts.length > 2 ? `${hosts[0]} +${hosts.length - 1}` : hosts.join(" ");
}

function Says({ service, drift, desired, awaited }) {
	if (service.phase && service.phase !== "converged") {
		const retry = service.retry_at && html`again <${Until} at=${service.retry_at} />`;
		const on = ["starting", "start"].includes(service.reason) || service.step === "start" ? service : awaited;
		const about = on && html`<${About} at=${on.started_at} seconds=${on.expected_seconds} />`;
		return html`<span class="why" title=${service.message}>${service.message}</span><span class="left num">${about}${retry}</span>`;
	}
	if (drift?.length) return drift.map((entry) => entry.message).join(", ");
	if (service.last_error && desired === "on") return html`<span class="muted" title=${service.last_error}>last error: ${service.last_error}</span>`;
	return "";
}

function Details({ service, drift, held, act }) {
	const pairs = [
		["container", service.container], ["id", service.id.slice(0, 12)], ["image", service.image],
		["health", service.health === "none" ? "no check" : service.health],
		["started", service.started_at && moment(service.started_at)],
		["exit code", service.status === "exited" ? String(service.exit_code) : ""],
		["waits for", listed(service.waits_for)], ["ports", service.ports.join(", ")],
		["a start takes", service.expected_seconds ? `about ${service.expected_seconds < 10 ? service.expected_seconds.toFixed(1) : Math.round(service.expected_seconds)} s` : ""],
	].filter(([, value]) => value);
	return html`<div class="details">
		${drift?.length > 0 && html`<ul class="differences" aria-label="What differs">
			${drift.map((entry) => html`<${Difference} key=${`${entry.kind} ${entry.container}`} entry=${entry} service=${service} held=${held} />`)}</ul>`}
		${service.last_error && html`<div class="failed"><b>Last error</b><pre tabindex="0">${service.last_error}</pre></div>`}
		<dl class="pairs">${pairs.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="num">${value}</dd></div>`)}</dl>
		<${Logs} service=${service.name} container=${service.id} act=${act} />
	</div>`;
}

function Difference({ entry, service, held }) {
	const next = held ? "Left as it is: suspended." : service.retry_at
		? html`Tried again <${Until} at=${service.retry_at} />.` : entry.pending ? "Not applied yet." : "Being repaired.";
	return html`<li><span class=${`tag ${entry.pending ? "blue" : "amber"}`}>${entry.pending ? "pending" : entry.kind}</span>
		<span>${should(entry.kind)}; <b>${entry.message}</b>.
			${entry.fields.length > 0 && html` Differs in ${entry.fields.map((f, i) => html`<span key=${f}>${i > 0 && ", "}<code>${f}</code></span>`)}.`}
			${" "}<span class="muted">${next}</span></span></li>`;
}
