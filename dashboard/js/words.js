// From the stable words of the API to what people read, and to the shape and tone that go with it. Pure.

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
};

export function look(name) {
  return LOOKS[name] ?? { ...LOOKS.waiting, word: name || "unknown" };
}

/** How a group stands, as one look. */
export function lookOfGroup(group) {
  if (group.phase === "converged" && group.desired === "off") return LOOKS.off;
  return look(group.phase);
}

/** How a service stands: the step being taken, its health, its phase; whatever says most. */
export function lookOfService(service) {
  if (service.step) return { ...LOOKS.progressing, word: doing(service.step) };
  if (service.phase === "converged" || !service.phase) return settled(service);
  if (service.phase === "progressing") return { ...LOOKS.progressing, word: working(service) };
  return look(service.phase);
}

function settled(service) {
  if (service.done) return { ...LOOKS.converged, word: "done" };
  if (service.ready) return { ...LOOKS.converged, word: service.health === "none" ? "running" : "ready" };
  if (["running", "restarting"].includes(service.status)) return { ...LOOKS.converged, word: service.status };
  return { ...LOOKS.off, word: service.status === "absent" ? "no container" : "stopped" };
}

function working(service) {
  return { starting: "starting", completing: "at work", unwanted: "stopping" }[service.reason] ?? "progressing";
}

const DOING = {
  pull: "pulling", build: "building", create: "creating", start: "starting", stop: "stopping", kill: "killing",
  unpause: "unpausing", remove: "removing", rename: "renaming", update: "updating", recreate: "recreating",
};

export function doing(step) {
  return DOING[step] ?? step;
}

const DRIFT = {
  missing: "its container is gone",
  stopped: "it stopped by itself, or by hand",
  paused: "it was paused",
  unwanted: "it runs though it should be off",
  duplicate: "it has two containers",
  altered: "its container was changed by hand",
  definition: "its container is from an older definition",
  image: "its image is older than what the tag now names",
  mounts: "a file mounted into it has changed since",
  unhealthy: "it is unhealthy",
  orphan: "it is in no file any more",
};

/** What a kind of drift means, as a half sentence. */
export function drifted(kind) {
  return DRIFT[kind] ?? kind;
}

const DONE = {
  pull: "pulled", build: "built", create: "created", start: "started again", stop: "stopped again",
  unpause: "unpaused", remove: "removed", recreate: "remade", rename: "renamed back", update: "set right",
  kill: "killed",
};

/** What a repair did. */
export function repaired(action) {
  return DONE[action] ?? action;
}

/** The quiet sentence of a group: what it is and needs, or what it would cost. */
export function quiet(group, needs, leaves) {
  const needed = needs.map((n) => `${n.name}${n.on ? " ✓" : " (off)"}`);
  const parts = [];
  if (group.desired === "on") parts.push(group.description);
  else {
    parts.push(`would use ${memory(group.estimated_memory_mb)}`);
    if (leaves != null) parts.push(leaves < 0 ? `${memory(-leaves)} too much` : `leaves ${memory(leaves)}`);
  }
  if (needed.length) parts.push(`needs ${listed(needed)}`);
  if (group.force) parts.push("forced");
  return parts.filter(Boolean).join(" · ");
}

/** What a change will do, in one line. */
export function consequence(plan) {
  const names = listed(plan.changes.map((c) => c.name));
  const services = count(plan.services, "container");
  if (plan.on) return `${names}: starts ${services}, ${memory(plan.memory)} by estimate`;
  return `${names}: stops ${services}, frees ${memory(plan.memory)}`;
}
