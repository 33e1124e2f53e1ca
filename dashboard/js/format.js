// Numbers, times and lists as people read them. Pure, but for the clock: the daemon's, as far as known.

let ahead = 0;

/** Take in the daemon's time of an answer: the clock of a phone is not to be trusted. */
export function synchronise(timestamp, received = Date.now()) {
	// The answer's time is cut to whole seconds: it is half a second old, on average.
	const found = Date.parse(timestamp) + 500 - received;
	if (Math.abs(found - ahead) > 1500) ahead = found;
}

export function now() {
	return Date.now() + ahead;
}

export function memory(mb) {
	if (mb == null) return "–";
	return Math.abs(mb) < 1000 ? `${Math.round(mb)} MB` : `${(mb / 1000).toFixed(1)} GB`;
}

export function memoryOf(measured, estimate) {
	if (measured == null) return `– of ${memory(estimate)}`;
	if (estimate < 1000 && measured < 1000) return `${Math.round(measured)} of ${memory(estimate)}`;
	return `${(measured / 1000).toFixed(1)} of ${(estimate / 1000).toFixed(1)} GB`;
}

/** 4 s, 2 min, 3 h 20 min, 5 d 4 h; `short` as a clock: 0:11, 12:40, 3 h 20, 5 d 4 h. */
export function duration(ms, short = false) {
	const s = Math.max(0, Math.round(ms / 1000));
	const m = Math.floor(s / 60), hours = Math.floor(m / 60), days = Math.floor(hours / 24);
	if (days) return `${days} d ${hours % 24} h`;
	if (hours) return short ? `${hours} h ${two(m % 60)}` : `${hours} h ${m % 60} min`;
	if (short) return `${m}:${two(s % 60)}`;
	if (m >= 10) return `${m} min`;
	return m ? `${m} min${s % 60 ? ` ${s % 60} s` : ""}` : `${s} s`;
}

export function rough(ms) {
	const s = Math.max(0, Math.round(ms / 1000));
	if (s < 60) return `${s - (s % 10) || s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min`;
	return s < 86400 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

function two(number) {
	return String(number).padStart(2, "0");
}

export function until(ms) {
	return ms >= 500 ? `in ${duration(ms)}` : "now";
}

/** 14:05:09 of today, 23 Nov 14:05 before. */
export function moment(at, today = new Date(now())) {
	if (!at) return "–";
	const when = new Date(at);
	const clock = `${two(when.getHours())}:${two(when.getMinutes())}`;
	if (when.toDateString() === today.toDateString()) return `${clock}:${two(when.getSeconds())}`;
	return `${when.getDate()} ${when.toLocaleString("en", { month: "short" })} ${clock}`;
}

/** "a", "a and b", "a, b and c"; from the ninth on, how many more. */
export function listed(names) {
	const shown = names.length > 9 ? [...names.slice(0, 8), `${names.length - 8} more`] : names;
	if (shown.length < 2) return shown.join("");
	return `${shown.slice(0, -1).join(", ")} and ${shown[shown.length - 1]}`;
}

export function count(number, noun) {
	return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
