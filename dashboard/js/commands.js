// The commands of the page, whatever triggers them.

import * as actions from "./actions.js";
import { listed } from "./format.js";
import { asFile, flip, inOrder, needsLook } from "./memory.js";
import { remember } from "./trail.js";

const UNDO = 10_000;
const THEMES = ["", "light", "dark"];
const MEDIA = { "": "(prefers-color-scheme: dark)", light: "not all", dark: "all" };

export class Commands {
	constructor(app, effects) {
		this.app = app;
		this.effects = effects;
		this.toastTimer = 0;
		this.sent = Promise.resolve();
	}

	get state() { return this.app.state; }

	flip(group, on) {
		const plan = flip(this.wanted(), group, on);
		if (needsLook(plan)) this.look(plan);
		else this.carryOut(plan);
	}

	look(plan) {
		this.app.set({ preview: { ...plan, kind: "flip", plan: null, problem: null } });
		this.askPlan(plan);
	}

	would(group, on) { this.look(flip(this.state.snapshot, group, on)); }

	async askPlan(plan) {
		const switched = plan.changes.map((change) => change.name);
		const answer = await actions.preview(asFile(this.state.snapshot, switched, plan.on));
		const shown = this.state.preview;
		if (shown?.group !== plan.group || shown.on !== plan.on) return;
		// An older daemon has no previews: the page's own estimate is shown alone.
		const lacks = !answer.ok && [404, 405].includes(answer.problem.status);
		const problem = answer.ok || lacks ? null : answer.problem;
		this.app.set({ preview: { ...shown, plan: answer.ok ? answer.body : null, problem } });
	}

	cancel() {
		const from = this.state.preview?.group;
		this.app.set({ preview: null });
		if (from) document.querySelector(`[data-group="${CSS.escape(from)}"] [role=switch]`)?.focus();
	}

	/** `how`: "" for this group alone, "with" to include dependencies, "force" to ignore them. */
	async carryOut(plan, how = "") {
		const { group, on } = plan;
		const names = how === "with" ? plan.changes.map((change) => change.name) : [group];
		const undo = this.asNow(names, !on);
		const words = { with: on ? "with_dependencies" : "with_dependents", force: "force" };
		this.app.set({ preview: null });
		const done = await this.ask(names, on, () => actions.act(on ? "start" : "stop", group, words[how]));
		if (done) this.toast(`${listed(names)} switched ${on ? "on" : "off"}`, undo);
	}

	/** The current desired state of these groups, in an order in which no write is refused. */
	asNow(names, on) {
		const { groups } = this.state.snapshot;
		return inOrder(groups, names, on)
			.map((name) => [name, { state: groups[name].desired, force: groups[name].force }]);
	}

	async undo(before) {
		this.app.set({ toast: null });
		for (const [name, previous] of before) {
			// One at a time, so that an undo never overtakes its change.
			const done = await this.ask([name], previous.state === "on", () => actions.put(name, previous));
			if (!done) return;
		}
		this.toast(`${listed(before.map(([name]) => name))} ${before.length > 1 ? "are" : "is"} as before`);
	}

	/** Sends a change; the requested state is shown until the daemon confirms or refuses it. */
	async ask(names, on, send) {
		this.note(names, { on, generation: Infinity });
		// One after the other: the second may depend on the first.
		const answer = await (this.sent = this.sent.then(send));
		if (!answer.ok) {
			this.forget(names);
			this.refused(answer.problem);
			return false;
		}
		if (this.state.snapshot && answer.body.generation <= this.state.snapshot.generation) this.forget(names);
		else this.note(names, { on, generation: answer.body.generation });
		return true;
	}

	/** The snapshot as it will be when all requested changes are accepted. */
	wanted() {
		const { snapshot, requested } = this.state;
		const groups = { ...snapshot.groups };
		for (const [name, { on }] of Object.entries(requested)) groups[name] = { ...groups[name], desired: on ? "on" : "off" };
		return { ...snapshot, groups };
	}

	note(names, one) {
		const more = Object.fromEntries(names.map((name) => [name, one]));
		this.app.set({ requested: { ...this.state.requested, ...more } });
	}

	forget(names) {
		const left = Object.entries(this.state.requested).filter(([name]) => !names.includes(name));
		this.app.set({ requested: Object.fromEntries(left) });
	}

	async restart(group, sure = false) {
		const { groups } = this.state.snapshot;
		const users = groups[group].dependents.filter((name) => groups[name].desired === "on");
		if (users.length && !sure) {
			this.app.set({ preview: { kind: "restart", group, users } });
			return;
		}
		this.app.set({ preview: null });
		const done = await this.ask([group], true, () => actions.act("restart", group));
		if (done) this.toast(`${group} is being restarted, container by container`);
	}

	async suspend(group, suspend) {
		const now = this.state.snapshot.groups[group];
		const on = now.desired === "on";
		const body = { state: now.desired, force: now.force, suspend };
		const done = await this.ask([group], on, () => actions.put(group, body));
		if (done) this.toast(suspend ? `${group} suspended` : `${group} resumed`);
		return done;
	}

	async accept(group) {
		const done = await this.ask([group], true, () => actions.act("accept", group));
		if (done) this.toast(`applying the held changes of ${group}`);
	}

	async rollback(generation) {
		const answer = await actions.act("rollback", generation);
		if (!answer.ok) return this.refused(answer.problem);
		return this.toast(`rolled back to generation ${generation}, as generation ${answer.body.generation}`);
	}

	toast(text, undo = null, problem = null) {
		clearTimeout(this.toastTimer);
		this.app.set({ toast: { text, undo, problem } });
		if (!problem) this.toastTimer = setTimeout(() => this.app.set({ toast: null }), UNDO);
	}

	refused(problem) {
		this.toast(problem.detail || problem.title, null, problem);
		if (problem.status === 401) this.app.reconnect();
	}

	dismiss() {
		clearTimeout(this.toastTimer);
		this.app.set({ toast: null });
	}

	/** Open or close a group (`kafka`) or a service (`kafka/zookeeper`). */
	toggle(id) {
		const { open } = this.state.route;
		const closed = open.filter((one) => one !== id && !one.startsWith(`${id}/`));
		this.app.go({ open: closed.length < open.length ? closed : [...open, id] });
	}

	show(id) {
		const group = this.state.snapshot.groups[id] ? id : id.replace(/\/[^/]*$/, "");
		const open = [...new Set([...this.state.route.open, group, id])];
		this.app.go({ tab: "groups", open, q: "" }, true);
		requestAnimationFrame(() => requestAnimationFrame(() => {
			const found = document.getElementById(`at-${id}`);
			found?.scrollIntoView({ block: "center" });
			found?.querySelector("button")?.focus({ preventScroll: true });
		}));
	}

	/** Change what is open or looked for; `push`: as a step to come back from. */
	go(patch, push) { this.app.go(patch, push); }

	help(shown = !this.state.help) { this.app.set({ help: shown }); }

	theme(name = THEMES[(THEMES.indexOf(this.state.theme) + 1) % THEMES.length]) {
		document.getElementById("dark").media = MEDIA[name] ?? MEDIA[""];
		remember(name);
		this.app.set({ theme: name });
	}

	retry() { this.app.reconnect(); }

	async signIn(key) {
		const answer = await actions.signIn(key);
		if (!answer.ok) return answer.problem;
		this.app.set({ session: answer.body });
		this.app.reconnect();
		return null;
	}

	async signOut() {
		await actions.signOut();
		location.reload();
	}
}
