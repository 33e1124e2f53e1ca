// The only writer: every change of desired state that this page can ask for, and nothing else. Each answers
// `{ok, body}` or `{ok: false, problem}`; a refusal is an answer, not an exception.

import { at, problemOf } from "./stream.js";

async function write(method, path, body, headers = {}) {
  let response;
  try {
    response = await fetch(at(path), {
      method,
      headers: body ? { ...headers, "Content-Type": "application/json" } : headers,
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(15_000),
    });
  } catch {
    const remedy = "look at what is shown once the connection is back, then try again";
    return { ok: false, problem: { status: 0, title: "No answer", detail: "nobody knows whether it was done", remedy } };
  }
  if (!response.ok) return { ok: false, problem: await problemOf(response) };
  return { ok: true, body: response.status === 204 ? null : await response.json() };
}

const name = encodeURIComponent;

/** Switch a group on; `how`: "", "with_dependencies" or "force". */
export function start(group, how = "") {
  return write("POST", `start/${name(group)}${how && `?${how}=true`}`);
}

/** Switch a group off; `how`: "", "with_dependents" or "force". */
export function stop(group, how = "") {
  return write("POST", `stop/${name(group)}${how && `?${how}=true`}`);
}

/** Restart every container of a group, in order. */
export function restart(group) {
  return write("POST", `restart/${name(group)}`);
}

/** Say what should be of a group, with the words of groups.yaml. */
export function put(group, state) {
  return write("PUT", `groups/${name(group)}`, state);
}

/** Carry out the changes of a group that are held back. */
export function accept(group) {
  return write("POST", `accept/${name(group)}`);
}

/** Go back to an earlier desired state. */
export function rollback(generation) {
  return write("POST", `rollback/${generation}`);
}

/** What another groups.yaml would lead to. Changes nothing; asked here because it is sent as a body. */
export function preview(groups) {
  return write("POST", "plan", { groups });
}

/** Exchange a key for a session cookie that no script can read. */
export function signIn(key) {
  return write("POST", "session", null, { "X-API-Key": key });
}

/** Give the session back. */
export function signOut() {
  return write("DELETE", "session");
}
