// The groups by what needs what; the path that something waits on is lit.

import { Component, html, Icon } from "./dom.js";
import { layout } from "./layout.js";
import { lookOfGroup, lookOfService } from "./words.js";

const HEAD = 60;
const LINE = 22;

export class Graph extends Component {
	constructor() {
		super();
		this.state = { width: 0 };
	}

	componentDidMount() {
		const measure = () => this.base && this.setState({ width: this.frame.clientWidth });
		this.watch = new ResizeObserver(measure);
		this.watch.observe(this.frame);
		measure();
	}

	componentWillUnmount() { this.watch.disconnect(); }

	render({ snapshot, route, act, card }, { width }) {
		const { groups } = snapshot;
		const tall = (name) => HEAD + (route.services ? groups[name].services.length * LINE + 8 : 0);
		const drawn = width ? layout(groups, width, tall) : null;
		return html`<section class="map" aria-label="Groups by dependency">
			<div class="tools"><label><input type="checkbox" checked=${route.services} onChange=${(e) => act.go({ services: e.target.checked })} /> show services</label>
				<span class="muted">An arrow leads from what is needed to what needs it.</span></div>
			<div class="scroll" ref=${(frame) => { this.frame = frame; }}>
				${drawn && html`<div class="canvas" style=${{ width: `${drawn.width}px`, height: `${drawn.height}px` }}>
					<svg width=${drawn.width} height=${drawn.height} aria-hidden="true">
						${drawn.edges.map((edge) => html`<path key=${`${edge.from} ${edge.to}`} d=${edge.path}
							class=${`edge ${lit(groups, edge)} ${near(edge, route.selected)}`} />`)}</svg>
					${drawn.nodes.map((node) => html`<${Node} key=${node.name} node=${node} group=${groups[node.name]}
						services=${route.services} selected=${route.selected === node.name} act=${act} />`)}
				</div>`}
			</div>
			${card ? html`<div class="groups chosen">${card}</div>` : html`<p class="muted hint">Choose a group to see it in full.</p>`}
		</section>`;
	}
}

/** Lit while something there waits for something here; dashed where what is needed is off. */
function lit(groups, { from, to }) {
	const source = groups[from], target = groups[to];
	const names = new Set(source.services.map((s) => s.name));
	const waits = target.services.some((s) => s.phase !== "converged" && s.waits_for.some((n) => names.has(n)));
	if (waits) return "lit";
	if (target.phase === "blocked" && source.desired === "off") return "cut";
	return target.desired === "on" && source.desired === "on" ? "live" : "";
}

function near({ from, to }, selected) {
	return selected && (from === selected || to === selected) ? "near" : "";
}

function Node({ node, group, services, selected, act }) {
	const { icon, tone, word } = lookOfGroup(group);
	const differs = group.phase !== "suspended" && group.services.some((s) => s.drift.length);
	const place = { left: `${node.x}px`, top: `${node.y}px`, width: `${node.w}px`, height: `${node.h}px` };
	return html`<button class=${`node ${tone} ${group.desired} ${selected ? "selected" : ""}`} style=${place} aria-pressed=${selected}
			data-row=${`map/${node.name}`} data-node=${node.name} onClick=${() => act.go({ selected: selected ? "" : node.name })}>
		<b>${node.name}</b>
		<span class=${`state ${differs ? "amber" : tone}`}><${Icon} name=${differs ? "differs" : icon} /><span>${differs ? "differs" : word}</span>
			<span class="num">${group.running_count}/${group.total_count}</span></span>
		${services && html`<span class="within">${group.services.map((s) => {
			const look = lookOfService(s);
			return html`<span key=${s.name} class=${`state ${look.tone}`} title=${look.word}><${Icon} name=${look.icon} /><span>${s.name}</span><span class="vh">${look.word}</span></span>`;
		})}</span>`}
	</button>`;
}
