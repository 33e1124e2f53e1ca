// The second token of a session. A browser sends the cookie to every port of this host; this token stays with this
// origin, which includes the port. Alone it opens nothing.

const NAME = "session-token";
let token = "";

/** Headers of a request, with the token of the session if there is one. */
export function headers(more = {}) {
	const current = read();
	return current ? { ...more, "X-Session-Token": current } : more;
}

/** Keep the token for all tabs of this origin; an empty one forgets it. */
export function keep(value) {
	token = value ?? "";
	try {
		if (token) localStorage.setItem(NAME, token);
		else localStorage.removeItem(NAME);
	} catch {
		// Kept by this page only.
	}
}

function read() {
	try {
		return localStorage.getItem(NAME) ?? token;
	} catch {
		return token;
	}
}
