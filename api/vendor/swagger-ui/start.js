// Shows the API of the daemon that served this page. The document names no server, which would mean the root of
// the host; a proxy may serve the daemon below a path.
fetch("openapi.json").then((response) => response.json()).then((spec) => SwaggerUIBundle({
  spec: { ...spec, servers: [{ url: new URL(".", location.href).href.slice(0, -1) }] },
  dom_id: "#docs", deepLinking: true, tryItOutEnabled: true, validatorUrl: null,
}));
