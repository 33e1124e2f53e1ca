// What is fetched because of what is shown.

import { share } from "./share.js";
import { ask } from "./stream.js";

const PAUSE = 400;
const PAGE = 100;
const MOST = 2000;

export class Effects {
	constructor(app) {
		this.app = app;
		this.driftKey = this.auditQuery = this.historyOf = "";
		this.driftTimer = this.driftAt = 0;
		this.who();
	}

	seen(snapshot) {
		const all = Object.values(snapshot.groups).flatMap((group) => group.services);
		const marks = all.filter((s) => s.drift.length || (s.phase && s.phase !== "converged"))
			.map((s) => `${s.name} ${s.drift} ${s.phase} ${s.reason}`);
		const key = `${snapshot.generation} ${snapshot.engine.reachable} ${snapshot.orphans} ${marks.join()}`;
		if (key !== this.driftKey) {
			this.driftKey = key;
			clearTimeout(this.driftTimer);
			this.driftTimer = setTimeout(() => this.differences(), this.driftAt + PAUSE - Date.now());
		}
		if (this.app.state.route.tab === "history") this.history();
	}

	async differences() {
		this.driftAt = Date.now();
		try {
			const found = await ask("drift");
			const by = {};
			for (const one of found.drift) (by[one.service] ??= []).push(one);
			this.app.set({ drift: share(this.app.state.drift, by) });
		} catch {
			// The next change of the snapshot asks again; the marks are in the snapshot itself.
			this.driftKey = "";
		}
	}

	/** The connection changed: with a new one comes whatever was missed. */
	linked(link) {
		if (link.state === "forbidden" || link.state === "live") this.who();
		if (link.state !== "live") return;
		this.auditQuery = "";
		this.historyOf = "";
		this.routed();
	}

	async who() {
		try {
			this.app.set({ session: share(this.app.state.session, await ask("session")) });
		} catch {
			// The stream reports it.
		}
	}

	routed() {
		const { tab } = this.app.state.route;
		if (tab === "audit") this.audit();
		if (tab === "history") this.history();
	}

	filters() {
		const { filter } = this.app.state.route;
		return Object.entries(filter).filter(([, value]) => value);
	}

	async audit(before = null) {
		const query = JSON.stringify(this.filters());
		if (before === null && query === this.auditQuery) return;
		this.auditQuery = query;
		const arrived = before === null && (this.arrived = []);
		const parameters = new URLSearchParams([["limit", PAGE], ...this.filters()]);
		if (before !== null) parameters.set("before", before);
		try {
			const page = await ask(`audit?${parameters}`);
			if (query !== this.auditQuery) return;
			const known = before === null ? [] : this.app.state.audit.entries ?? [];
			this.app.set({ audit: { entries: [...page.entries, ...known], before: page.before, problem: null } });
			// Entries that arrived during the request may be missing from the page.
			if (arrived) this.arrived = null;
			for (const entry of arrived || []) this.audited(entry);
		} catch (problem) {
			this.arrived = null;
			this.auditQuery = "";
			this.app.set({ audit: { ...this.app.state.audit, problem } });
		}
	}

	older() {
		return this.audit(this.app.state.audit.before);
	}

	/** Shows an entry from the event stream if it passes the filters. */
	audited(entry) {
		const { entries } = this.app.state.audit;
		this.arrived?.push(entry);
		if (entries === null || entries[entries.length - 1]?.id >= entry.id) return;
		const { filter } = this.app.state.route;
		const passes = (!filter.group || entry.groups.includes(filter.group) || entry.target === filter.group)
			&& (!filter.action || entry.action === filter.action) && (!filter.user || entry.user === filter.user);
		if (passes) {
			this.app.set({ audit: { ...this.app.state.audit, entries: [...entries, entry].slice(-MOST) } });
		}
	}

	async history(before = null) {
		const { snapshot, history } = this.app.state;
		if (!snapshot) return;
		const key = `${snapshot.generation} ${snapshot.progress.state}`;
		if (before === null && key === this.historyOf) return;
		this.historyOf = key;
		try {
			const page = await ask(`history?limit=${PAGE}${before === null ? "" : `&before=${before}`}`);
			const known = before === null ? [] : history.entries;
			this.app.set({ history: { entries: [...page.entries, ...known], before: page.before, problem: null } });
		} catch (problem) {
			this.historyOf = "";
			this.app.set({ history: { entries: null, before: null, problem } });
		}
	}

	earlier() {
		return this.history(this.app.state.history.before);
	}
}
