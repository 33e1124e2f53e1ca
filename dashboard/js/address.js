// The address of the page holds what is open, so that a link shows the same. Pure.

export const TABS = ["groups", "map", "memory", "history", "audit"];

/** `#/groups?open=kafka,storage/minio&q=…` to the page's own state. */
export function read(hash) {
	const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
	const fields = new URLSearchParams(query);
	return {
		tab: TABS.includes(path) ? path : "groups",
		open: (fields.get("open") ?? "").split(",").filter(Boolean),
		q: fields.get("q") ?? "",
		selected: fields.get("group") ?? "",
		services: fields.get("services") === "1",
		filter: Object.fromEntries(["group", "action", "user"].map((n) => [n, fields.get(`by_${n}`) ?? ""])),
	};
}

export function write({ tab, open, q, selected, services, filter }) {
	const fields = new URLSearchParams();
	if (open.length) fields.set("open", open.join(","));
	if (q) fields.set("q", q);
	if (selected) fields.set("group", selected);
	if (services) fields.set("services", "1");
	for (const [name, value] of Object.entries(filter)) if (value) fields.set(`by_${name}`, value);
	const query = fields.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
	return `#/${tab}${query ? `?${query}` : ""}`;
}
