// What the box has, who uses it, how that went, and what would fit besides.

import { html, memo } from "./dom.js";
import { duration, memory, now } from "./format.js";
import { box, configurations } from "./memory.js";
import { trail } from "./trail.js";
import { Bar } from "./view-bar.js";

const W = 240, H = 32;

export const Memory = memo(({ snapshot }) => {
	const { total, measured, planned } = box(snapshot);
	return html`<section class="memory" aria-label="Memory">
		<div class="panel">
			<h2>The box</h2>
			<p class="figures"><span><b class="num">${memory(measured)}</b> used by pilot and groups</span>
				<span><b class="num">${memory(planned)}</b> by estimate for what is on</span>
				${total !== null && html`<span><b class=${`num ${total < planned ? "red-ink" : ""}`}>${memory(total - planned)}</b> left of <span class="num">${memory(total)}</span></span>`}</p>
			<${Bar} snapshot=${snapshot} tall />
		</div>
		<${Users} snapshot=${snapshot} />
		<${Fits} snapshot=${snapshot} />
	</section>`;
});

function Users({ snapshot }) {
	const points = trail();
	const span = points.length ? now() - points[0].at : 0;
	const { pilot, total } = box(snapshot);
	const most = Math.max(1, ...points.map((p) => p.total));
	return html`<div class="panel">
		<h2>Who uses it <small>${span > 30_000 ? `the lines show the last ${duration(span)}` : "lines grow while this page is open"}</small></h2>
		<table><thead><tr><th scope="col">group</th><th scope="col" class="r">measured</th><th scope="col" class="r">estimate</th><th scope="col" class="history">so far</th></tr></thead>
			<tbody>
				${pilot !== null && html`<tr><th scope="row">pilot</th><td class="r num faint">not measured</td><td class="r num">${memory(pilot)}</td><td></td></tr>`}
				${Object.values(snapshot.groups).map((group) => {
					const over = group.total_memory_mb > 1.1 * group.estimated_memory_mb;
					return html`<tr key=${group.group} class=${group.desired}><th scope="row">${group.group}</th>
						<td class=${`r num ${over ? "amber-ink" : ""}`}>${group.running_count ? memory(group.total_memory_mb) : "–"}${over && html` <span class="tag amber">over</span>`}</td>
						<td class="r num">${memory(group.estimated_memory_mb)}</td>
						<td class="history"><${Line} points=${points} of=${(p) => p.groups[group.group] ?? 0}
							most=${Math.max(group.estimated_memory_mb, ...points.map((p) => p.groups[group.group] ?? 0))} name=${group.group} /></td></tr>`;
				})}
				<tr class="sum"><th scope="row">all groups</th><td class="r num">${memory(snapshot.total_memory_mb)}</td><td class="r num">${memory(snapshot.estimated_memory_mb)}</td>
					<td class="history"><${Line} points=${points} of=${(p) => p.total} most=${Math.max(most, total ?? 0)} name="all groups" /></td></tr>
			</tbody></table></div>`;
}

/** A line over time; its height is the greater of the estimate and what was seen. */
function Line({ points, of, most, name }) {
	if (points.length < 2 || !points.some(of)) return html`<span class="faint">–</span>`;
	const first = points[0].at, wide = Math.max(1, points[points.length - 1].at - first);
	const xy = points.map((p) => `${((p.at - first) / wide * W).toFixed(1)} ${(H - 1 - of(p) / (most || 1) * (H - 2)).toFixed(1)}`);
	const values = points.map(of);
	const text = `${name}: from ${memory(Math.min(...values))} to ${memory(Math.max(...values))}, now ${memory(values[values.length - 1])}`;
	return html`<svg class="spark" viewBox=${`0 0 ${W} ${H}`} preserveAspectRatio="none" role="img" aria-label=${text}>
		<title>${text}</title><path class="area" d=${`M0 ${H}L${xy.join("L")}L${W} ${H}Z`} /><path class="line" d=${`M${xy.join("L")}`} /></svg>`;
}

function Fits({ snapshot }) {
	const { total } = box(snapshot);
	return html`<div class="panel">
		<h2>What fits <small>by estimate</small></h2>
		<table><thead><tr><th scope="col">configuration</th><th scope="col" class="wide">groups</th><th scope="col" class="r">needs</th><th scope="col" class="r">leaves</th><th scope="col">fits</th></tr></thead>
			<tbody>${configurations(snapshot).map((row) => html`<tr key=${row.name}><th scope="row">${row.name}</th><td class="muted wide">${row.needs}</td>
				<td class="r num">${memory(row.mb)}</td><td class="r num">${row.left === null ? "–" : memory(row.left)}</td>
				<td>${row.fits === null ? "–" : row.fits ? "yes" : html`<b class="red-ink">no</b>`}</td></tr>`)}</tbody></table>
		${total === null && html`<p class="muted">The engine has not reported the host's memory.</p>`}
	</div>`;
}
