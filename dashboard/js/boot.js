// Starts the page. What did not arrive (on the box, the network changes with every container) is asked for again.

const again = () => setTimeout(() => location.reload(), 1000);
addEventListener("load", () => { if ([...document.querySelectorAll("link[rel=stylesheet]")].some((l) => !l.sheet)) again(); });
import("./main.js").catch((error) => {
  if (!(error instanceof TypeError)) throw error;
  again();
});
