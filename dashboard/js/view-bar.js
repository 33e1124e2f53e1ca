// The box as one bar: the pilot, each group that is on, what is free. Measured where measured.

import { html } from "./dom.js";
import { box } from "./memory.js";
import { memory } from "./format.js";

function parts(snapshot) {
	const { total, pilot } = box(snapshot);
	const found = [];
	if (pilot) found.push({ name: "pilot", mb: pilot, kind: "pilot" });
	for (const group of Object.values(snapshot.groups)) {
		const mb = group.total_memory_mb;
		if (mb > 0) found.push({ name: group.group, mb, kind: `g${found.length % 4}` });
	}
	const used = found.reduce((sum, one) => sum + one.mb, 0);
	if (total && total > used) found.push({ name: "free", mb: total - used, kind: "free" });
	return found;
}

/** One bar; `tall` names the parts that are wide enough for it. */
export function Bar({ snapshot, tall = false }) {
	const all = parts(snapshot);
	const whole = all.reduce((sum, one) => sum + one.mb, 0) || 1;
	const text = all.map((one) => `${one.name} ${memory(one.mb)}`).join(", ");
	return html`<span class=${`box ${tall ? "tall" : ""}`} role="img" aria-label=${`Memory: ${text}`} title=${text}>
		${all.map((one) => html`<span key=${one.name} class=${`part ${one.kind}`}
			style=${{ flexGrow: one.mb / whole }} title=${`${one.name} ${memory(one.mb)}`}>
			${tall && one.mb / whole > 0.045 && one.name}</span>`)}
	</span>`;
}
