// What fits, by the daemon's numbers, and what a flip of a switch would add to them. Pure.

export function box(snapshot) {
	const groups = Object.values(snapshot.groups);
	const pilot = snapshot.pilot?.memory_mb ?? null;
	const planned = sum(groups.filter((g) => g.desired === "on"), (g) => g.estimated_memory_mb);
	return {
		total: snapshot.engine.memory_mb || null,
		pilot,
		planned: planned + (pilot ?? 0),
		measured: snapshot.total_memory_mb + (pilot ?? 0),
		everything: sum(groups, (g) => g.estimated_memory_mb) + (pilot ?? 0),
	};
}

export function left(snapshot, more = 0) {
	const { total, planned } = box(snapshot);
	return total === null ? null : total - planned - more;
}

/** The groups reached from one by a field that names others. */
export function reached(groups, name, field) {
	const found = new Set(), ahead = [name];
	while (ahead.length) {
		for (const next of groups[ahead.pop()]?.[field] ?? []) {
			if (found.has(next)) continue;
			found.add(next);
			ahead.push(next);
		}
	}
	return Object.keys(groups).filter((other) => found.has(other) && other !== name);
}

/** These groups in an order that no write refuses: dependencies on first, off last. */
export function inOrder(groups, names, on) {
	const below = (name) => reached(groups, name, "dependencies").length;
	return [...names].sort((a, b) => (on ? below(a) - below(b) : below(b) - below(a)));
}

/** What switching a group would change: itself, what else has to come along, and what it costs. */
export function flip(snapshot, name, on) {
	const groups = snapshot.groups;
	const others = reached(groups, name, on ? "dependencies" : "dependents")
		.filter((other) => (groups[other].desired === "on") !== on);
	const direct = groups[name][on ? "dependencies" : "dependents"].filter((other) => others.includes(other));
	const changes = [name, ...others].filter((other) => (groups[other].desired === "on") !== on)
		.map((other) => groups[other]);
	const cost = sum(changes, (g) => (on ? g.estimated_memory_mb : g.total_memory_mb || g.estimated_memory_mb));
	return {
		group: name, on, others, direct,
		changes: changes.map((g) => ({ name: g.group, services: g.total_count, memory: g.estimated_memory_mb })),
		services: sum(changes, (g) => (on ? g.total_count : g.running_count)),
		memory: cost,
		left: on ? left(snapshot, cost) : left(snapshot, -sum(changes, (g) => g.estimated_memory_mb)),
	};
}

export function needsLook(plan) {
	return plan.direct.length > 0 || (plan.on && plan.left !== null && plan.left < 0);
}

/** A groups.yaml as JSON: what is desired now, with some groups switched. For `POST /services/plan`. */
export function asFile(snapshot, switched, on) {
	const entries = Object.values(snapshot.groups).map((group) => {
		const here = switched.includes(group.group);
		const entry = { state: here ? (on ? "on" : "off") : group.desired };
		if (group.force && !here) entry.force = true;
		if (group.phase === "suspended") entry.suspend = group.suspended_until ? { until: group.suspended_until } : true;
		return [group.group, entry];
	});
	return Object.fromEntries(entries);
}

/** The table of what fits: the pilot alone, what it needs, what is on, each group that is off, everything. */
export function configurations(snapshot) {
	const groups = snapshot.groups, { pilot, everything, planned } = box(snapshot);
	const rows = [];
	const add = (name, needs, mb) => rows.push({ name, needs, mb, ...room(snapshot, mb) });
	if (pilot !== null) {
		add("pilot alone", "", pilot);
		const own = snapshot.pilot.groups ?? [];
		const all = [...new Set(own.flatMap((n) => [n, ...reached(groups, n, "dependencies")]))];
		add("pilot and what it needs", all.join(", "), pilot + sum(all, (n) => groups[n]?.estimated_memory_mb ?? 0));
	}
	add("what is on now", Object.values(groups).filter((g) => g.desired === "on").map((g) => g.group).join(", "), planned);
	for (const group of Object.values(groups)) {
		if (group.desired === "on") continue;
		const plan = flip(snapshot, group.group, true);
		add(`… and ${group.group}`, plan.others.length ? `with ${plan.others.join(", ")}` : "", planned + plan.memory);
	}
	add("everything", "", everything);
	return rows;
}

function room(snapshot, mb) {
	const { total } = box(snapshot);
	return total === null ? { left: null, fits: null } : { left: total - mb, fits: mb <= total };
}

function sum(list, of) {
	return list.reduce((total, one) => total + of(one), 0);
}
