// Memory used since this page was opened, and the one thing that it remembers: light or dark.

const EVERY = 5000;
const MOST = 720;
const points = [];

/** Take in a status, at most every few seconds: when, and the MB of each group. */
export function record(status) {
	const at = Date.parse(status.timestamp);
	if (points.length && at - points[points.length - 1].at < EVERY) return;
	const groups = {};
	for (const group of Object.values(status.groups)) groups[group.group] = group.total_memory_mb;
	points.push({ at, total: status.total_memory_mb, groups });
	if (points.length > MOST) points.shift();
}

export function trail() {
	return points;
}

export function remembered() {
	try {
		return localStorage.theme ?? "";
	} catch {
		return "";
	}
}

export function remember(theme) {
	try {
		localStorage.theme = theme;
	} catch {
		// Forgotten with the page, then.
	}
}
