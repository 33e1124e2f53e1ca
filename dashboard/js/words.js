// From the words of the API to what people read, with shape and tone. Pure.

import { count, listed, memory } from "./format.js";

/** Phase to shape and tone. Well is quiet; amber works, red needs a person, blue is held back. */
const LOOKS = {
	converged: { icon: "well", tone: "well", word: "converged" },
	off: { icon: "stopped", tone: "off", word: "stopped" },
	progressing: { icon: "working", tone: "amber", word: "progressing" },
	waiting: { icon: "waiting", tone: "amber", word: "waiting" },
	blocked: { icon: "blocked", tone: "red", word: "blocked" },
	degraded: { icon: "degraded", tone: "red", word: "degraded" },
	suspended: { icon: "suspended", tone: "blue", word: "suspended" },
	differs: { icon: "differs", tone: "amber", word: "differs" },
	held_back: { icon: "suspended", tone: "blue", word: "held back" },
};

export function look(name) {
	return LOOKS[name] ?? { ...LOOKS.waiting, word: name || "unknown" };
}

export function lookOfGroup(group) {
	if (group.phase === "converged" && group.desired === "off") return LOOKS.off;
	if (group.reason === "held_back") return LOOKS.held_back;
	const works = group.phase === "progressing" || group.phase === "waiting";
	return works && group.services.some((s) => s.drift.length) ? LOOKS.differs : look(group.phase);
}

/** The state of a service: its running step, its health or its phase, the most specific first. */
export function lookOfService(service) {
	if (service.step) return { ...LOOKS.progressing, word: doing(service.step) };
	if (service.phase === "converged" || !service.phase) return settled(service);
	if (service.reason === "held_back") return LOOKS.held_back;
	if (service.phase === "progressing") return { ...LOOKS.progressing, word: working(service) };
	return look(service.phase);
}

function settled(service) {
	if (service.done) return { ...LOOKS.converged, word: "done" };
	if (service.ready) return { ...LOOKS.converged, word: service.health === "none" ? "running" : "ready" };
	if (["running", "restarting"].includes(service.status)) return { ...LOOKS.converged, word: service.status };
	if (service.reason === "scaled_to_zero") return { ...LOOKS.off, word: "scaled to zero" };
	return { ...LOOKS.off, word: service.status === "absent" ? "absent" : "stopped" };
}

function working(service) {
	return { starting: "starting", completing: "at work", unwanted: "stopping" }[service.reason] ?? "progressing";
}

const DOING = {
	pull: "pulling", build: "building", create: "creating", start: "starting", stop: "stopping", kill: "killing",
	unpause: "unpausing", remove: "removing", rename: "renaming", update: "updating", recreate: "recreating",
	post_start: "running hooks",
};

export function doing(step) {
	return DOING[step] ?? step;
}

const SHOULD = {
	missing: "have a container",
	stopped: "run",
	paused: "run",
	unwanted: "be stopped",
	duplicate: "have one container",
	altered: "be as its file says",
	definition: "be as its file says now",
	image: "run what its image's tag names now",
	mounts: "see the files mounted into it as they are now",
	unhealthy: "be healthy",
	orphan: "be in a file",
};

export function should(kind) {
	return `should ${SHOULD[kind] ?? "be otherwise"}`;
}

/** How a service differs, as half a sentence: the daemon's message, or the meaning of its kind. */
export function differs(service, entries = []) {
	const moved = entries.filter((entry) => !entry.pending);
	if (!moved.length) return service.drift.map((kind) => should(kind)).join(", ");
	return moved.map((entry) => [entry.message, entry.fields.length && `(${listed(entry.fields)})`]
		.filter(Boolean).join(" ")).join(", ");
}

export function overall(snapshot, link) {
	if (link.state === "lost") return { icon: "lost", tone: "off", word: "connection lost" };
	if (!snapshot.engine.reachable) return { icon: "degraded", tone: "red", word: "engine unreachable" };
	const groups = Object.values(snapshot.groups);
	if (snapshot.errors.length) return { icon: "degraded", tone: "red", word: "files invalid" };
	for (const phase of ["degraded", "blocked"]) {
		const found = groups.find((g) => g.phase === phase);
		if (found) return lookOfGroup(found);
	}
	if (groups.some((g) => g.phase !== "suspended" && g.services.some((s) => s.drift.length))) return LOOKS.differs;
	if (snapshot.converged) return LOOKS.converged;
	return LOOKS.progressing;
}

/** The quiet sentence of a group: what it is, what it needs, or what it would cost. */
export function quiet(group, needs, leaves) {
	const parts = [];
	if (group.desired === "on") parts.push(group.description);
	else {
		parts.push(`would use ${memory(group.estimated_memory_mb)}`);
		if (leaves != null) parts.push(leaves < 0 ? `${memory(-leaves)} too much` : `leaves ${memory(leaves)}`);
	}
	if (needs.length) parts.push(`needs ${listed(needs)}`);
	if (group.force) parts.push("started without what it needs");
	return parts.filter(Boolean).join(" · ");
}

export function consequence(plan) {
	const names = listed(plan.changes.map((c) => c.name));
	const services = count(plan.services, "container");
	if (plan.on) return `${names}: starts ${services}, ${memory(plan.memory)} by estimate`;
	return `${names}: stops ${services}, frees ${memory(plan.memory)}`;
}
