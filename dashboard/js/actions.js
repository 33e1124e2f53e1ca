// The only writer: every change of desired state that this page can request. Each call returns `{ok, body}` or
// `{ok: false, problem}`; a refusal is a result, not an exception.

import { headers, keep } from "./session.js";
import { at, problemOf } from "./stream.js";

async function write(method, path, body, more = {}) {
	let response;
	try {
		response = await fetch(at(path), {
			method,
			headers: headers(body ? { ...more, "Content-Type": "application/json" } : more),
			body: body && JSON.stringify(body),
			signal: AbortSignal.timeout(15_000),
		});
	} catch {
		const remedy = "check the state when the connection is back, then try again";
		return { ok: false, problem: { status: 0, title: "No answer", detail: "it is unknown whether the change was accepted", remedy } };
	}
	if (!response.ok) return { ok: false, problem: await problemOf(response) };
	return { ok: true, body: response.status === 204 ? null : await response.json() };
}

const name = encodeURIComponent;

/** start, stop, restart or accept a group, or rollback to a generation; `how`: with_dependencies, force, ... */
export function act(action, target, how = "") {
	return write("POST", `${action}/${name(target)}${how && `?${how}=true`}`);
}

export function put(group, state) {
	return write("PUT", `groups/${name(group)}`, state);
}

export function preview(groups) {
	return write("POST", "plan", { groups });
}

/** Exchange a key for a session: a cookie that no script can read, and a token that only this origin has. */
export async function signIn(key) {
	const answer = await write("POST", "session", null, { "X-API-Key": key });
	if (answer.ok) keep(answer.body.token);
	return answer;
}

export async function signOut() {
	const answer = await write("DELETE", "session");
	keep("");
	return answer;
}
