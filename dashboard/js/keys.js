// The keyboard: a person who looks after twenty boxes does not reach for the mouse.

import { TABS } from "./address.js";

const ROWS = "[data-row]";

export function listen(app, act) {
	document.addEventListener("keydown", (event) => {
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		const typing = event.target.closest?.("input, select, textarea");
		if (event.key === "Escape") return leave(app, act, typing);
		if (typing) return undefined;
		return press(app, act, event);
	});
}

function press(app, act, event) {
	const row = event.target.closest?.(ROWS);
	const does = {
		"/": () => find(app),
		"?": () => act.help(),
		j: () => move(row, 1),
		k: () => move(row, -1),
		// Space is the switch's own key, and enter would be as well: here it opens.
		Enter: row?.getAttribute("role") === "switch" && (() => act.toggle(row.dataset.row)),
	}[event.key] ?? tab(app, event.key);
	if (!does) return;
	event.preventDefault();
	does();
}

function tab(app, key) {
	const name = TABS[Number(key) - 1];
	return name && (() => app.go({ tab: name }, true));
}

function leave(app, act, typing) {
	if (app.state.help) act.help(false);
	else if (app.state.preview) act.cancel();
	else if (typing?.type === "search" && typing.value && typing.id === "search") act.go({ q: "" });
	else if (typing) typing.blur();
	else if (app.state.toast) act.dismiss();
}

function find(app) {
	const focus = () => document.getElementById("search")?.focus();
	if (app.state.route.tab === "groups") return focus();
	app.go({ tab: "groups" });
	return requestAnimationFrame(() => requestAnimationFrame(focus));
}

function move(row, by) {
	const rows = [...document.querySelectorAll(ROWS)];
	const at = rows.indexOf(row);
	const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
	next?.focus();
	next?.scrollIntoView({ block: "nearest" });
}
