// Starts the page. Reloads what did not arrive: on the host, the network changes with every container.

const again = () => setTimeout(() => location.reload(), 1000);
addEventListener("load", () => { if ([...document.querySelectorAll("link[rel=stylesheet]")].some((l) => !l.sheet)) again(); });
import("./main.js").catch((error) => {
	if (!(error instanceof TypeError)) throw error;
	again();
});
