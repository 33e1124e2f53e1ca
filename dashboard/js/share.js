// Reuses unchanged objects from one snapshot to the next, so that a view can compare by identity. Pure.

/** `next`, with equal parts of `before` reused; `before` if all are equal. */
export function share(before, next) {
	const deep = before && next && typeof before === "object" && typeof next === "object";
	if (!deep || Array.isArray(before) !== Array.isArray(next)) return next;
	const names = Object.keys(next);
	let same = names.length === Object.keys(before).length;
	for (const name of names) {
		if (name in before) next[name] = share(before[name], next[name]);
		same &&= next[name] === before[name];
	}
	return same ? before : next;
}

/** A status without values that change with time alone: uptime is computed from `started_at`. */
export function still(status) {
	delete status.timestamp;
	const services = Object.values(status.groups).flatMap((group) => group.services);
	for (const service of [...services, ...(status.unmanaged ?? [])]) delete service.uptime;
	return status;
}
