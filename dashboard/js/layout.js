// Where groups stand in the picture: columns by dependency, rows so that edges cross little. Pure.

/** Place groups of `{name: {dependencies, services}}` in `width`; `tall(name)` is the height of one. */
export function layout(groups, width, tall) {
	const names = Object.keys(groups);
	const depth = depths(groups);
	const columns = [];
	for (const name of names) (columns[depth[name]] ??= []).push(name);
	order(columns, groups);
	const gap = { x: width < 520 ? 18 : 64, y: 20 };
	const free = (width - gap.x * (columns.length - 1)) / columns.length;
	const w = Math.round(Math.min(196, Math.max(104, free)));
	const heights = columns.map((column) => column.reduce((sum, n) => sum + tall(n) + gap.y, -gap.y));
	const height = Math.max(...heights);
	const nodes = {};
	columns.forEach((column, index) => {
		let y = (height - heights[index]) / 2;
		for (const name of column) {
			nodes[name] = { name, x: index * (w + gap.x), y, w, h: tall(name) };
			y += tall(name) + gap.y;
		}
	});
	const edges = names.flatMap((name) => groups[name].dependencies.filter((d) => nodes[d])
		.map((from) => ({ from, to: name, path: curve(nodes[from], nodes[name]) })));
	return { nodes: Object.values(nodes), edges, width: columns.length * (w + gap.x) - gap.x, height };
}

function depths(groups) {
	const found = {};
	const depth = (name, above) => {
		if (name in found) return found[name];
		// A cycle can't be accepted, but an answer in between must not hang the page.
		const needed = groups[name].dependencies.filter((d) => groups[d] && !above.includes(d));
		return (found[name] = Math.max(-1, ...needed.map((d) => depth(d, [...above, name]))) + 1);
	};
	for (const name of Object.keys(groups)) depth(name, []);
	return found;
}

function order(columns, groups) {
	for (let i = 1; i < columns.length; i++) {
		const place = Object.fromEntries(columns.slice(0, i).flatMap((c) => c.map((n, row) => [n, row])));
		const middle = (name) => {
			const rows = groups[name].dependencies.map((d) => place[d] ?? 0);
			return rows.length ? rows.reduce((a, b) => a + b, 0) / rows.length : 0;
		};
		columns[i] = columns[i].map((name, row) => [middle(name), row, name])
			.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((entry) => entry[2]);
	}
}

function curve(from, to) {
	const x1 = from.x + from.w, y1 = from.y + from.h / 2, y2 = to.y + to.h / 2;
	const bend = Math.max(14, (to.x - x1) / 2);
	return `M${x1} ${y1}C${x1 + bend} ${y1} ${to.x - bend} ${y2} ${to.x} ${y2}`;
}
