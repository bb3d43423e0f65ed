// What your web framework does in your app: serve the pages, and let only them create sessions.
//
// The server listens on loopback only. It knows each file that it serves, so no path leads to another one.

import { existsSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const ROOT = join(HERE, "../..");
const PACKAGE = join(ROOT, "clients/js/packages/client/dist");
const FILES = new Map([
  ["/", join(HERE, "index.html")],
  ["/react", join(HERE, "react.html")],
  ["/page.js", join(HERE, "page.js")],
  ["/react.js", join(ROOT, ".web-example/react.js")],
  ["/view.js", join(HERE, "view.js")],
  ["/style.css", join(HERE, "style.css")],
  ["/icon.svg", join(HERE, "icon.svg")],
]);
if (existsSync(PACKAGE)) {
  for (const name of readdirSync(PACKAGE)) {
    if (name.endsWith(".js")) FILES.set(`/@pi-voice/client/${name}`, join(PACKAGE, name));
  }
}
const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
};

const LARGEST_BODY = 1024;
const MOST_CONNECTIONS = 32;
const ARRIVAL_MS = 10_000; // in which a request has to arrive

class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.body = { error: { code, message } };
  }
}

/** Serves until Ctrl-C; exits with one sentence if it cannot start. */
export function serve(createSession, apiUrl) {
  if (!FILES.has("/@pi-voice/client/index.js")) {
    stop(`The browser client is not built, there is no ${PACKAGE}/index.js: run \`make web-example\`.`);
  }
  const port = Number(process.env.PORT || 8080);
  const headers = headersFor(apiUrl);
  const server = createServer(
    { requestTimeout: ARRIVAL_MS, headersTimeout: ARRIVAL_MS, connectionsCheckingInterval: 1000 },
    async (request, response) => {
      let [status, kind, content] = [200, "application/json", ""];
      try {
        [kind, content] = await answer(request, server.address().port, createSession, apiUrl);
      } catch (error) {
        const refused = error instanceof Refused ? error : new Refused(500, "internal_error", "This server has a fault.");
        if (refused.status >= 500) console.error(refused.message);
        [status, content] = [refused.status, JSON.stringify(refused.body)];
      }
      const length = Buffer.byteLength(content);
      response.writeHead(status, { ...headers, "Content-Type": kind, "Content-Length": length, Connection: "close" });
      response.end(request.method === "HEAD" ? undefined : content);
    },
  );
  server.maxConnections = MOST_CONNECTIONS;
  server.on("error", (error) => {
    stop(`Port ${port} cannot be used (${error.code}): choose another, as in \`make web-example WEB_PORT=8090\`.`);
  });
  server.listen(port, "127.0.0.1", () => {
    const url = `http://127.0.0.1:${server.address().port}`;
    console.log(`Talk to the agent: ${url}\nThe same with React: ${url}/react\nPress Ctrl-C to stop.`);
  });
  process.on("SIGINT", () => {
    console.log("\nStopped.");
    process.exit(0);
  });
}

async function answer(request, port, createSession, apiUrl) {
  const { host, origin } = request.headers;
  // By DNS rebinding, another site could have a name for this server.
  if (host !== `127.0.0.1:${port}` && host !== `localhost:${port}`) {
    throw new Refused(403, "forbidden_host", "Open this page at 127.0.0.1 or localhost.");
  }
  if (request.method === "GET" || request.method === "HEAD") return file(request.url, apiUrl);
  if (request.method !== "POST") throw new Refused(501, "not_implemented", "There are GET, HEAD and POST.");
  await readBody(request);
  if (request.url !== "/session") throw new Refused(404, "not_found", "There is only POST /session.");
  // A page of another site could spend the key: browsers say which page a POST comes from.
  if (origin !== `http://${host}`) {
    throw new Refused(403, "forbidden_origin", "Only the pages of this server may create sessions.");
  }
  return ["application/json", JSON.stringify(await session(createSession, apiUrl))];
}

async function file(url, apiUrl) {
  const path = FILES.get(url.split("?")[0]);
  if (!path) throw new Refused(404, "not_found", "There is no such page.");
  const content = await readFile(path, "utf8").catch(() => {
    throw new Refused(404, "not_found", "This file is not built: run `make web-example`.");
  });
  return [TYPES[extname(path)], path.endsWith(".html") ? content.replaceAll("{{api_url}}", escaped(apiUrl)) : content];
}

async function session(createSession, apiUrl) {
  try {
    const data = await createSession();
    if (!data?.session_id) throw new SyntaxError("no session");
    return data;
  } catch (error) {
    // It is the operator who can remove a refusal of Pi Voice, not the visitor.
    if (typeof error.code === "string") {
      throw new Refused(502, "session_refused", `Pi Voice refused to create a session, ${error.code}: ${error.message}`);
    }
    throw error instanceof SyntaxError
      ? new Refused(503, "api_unavailable", `The answer of ${apiUrl} is not one of Pi Voice: check BASE.`)
      : new Refused(503, "api_unavailable", `Pi Voice at ${apiUrl} does not answer: is \`make run\` running?`);
  }
}

/** Reads the body, which may be empty, so that the client gets the response. */
async function readBody(request) {
  const length = request.headers["content-length"] ?? "0";
  if (request.headers["transfer-encoding"] || !/^\d+$/.test(length) || Number(length) > LARGEST_BODY) {
    throw new Refused(413, "request_too_large", "POST /session takes no body.");
  }
  for await (const _ of request);
}

function headersFor(apiUrl) {
  const livekit = process.env.LIVEKIT_URL ?? "";
  const gemini = "wss://generativelanguage.googleapis.com";
  const standIns = apiUrl.startsWith("http:") ? "ws://127.0.0.1:* ws://localhost:*" : "";
  const sources = [apiUrl, gemini, standIns, livekit, livekit.replace("ws", "http")].filter(Boolean).join(" ");
  return {
    "Content-Security-Policy": [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "img-src 'self'",
      `connect-src 'self' ${sources}`,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join("; "),
    "Permissions-Policy": "microphone=(self), speaker-selection=(self), camera=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
  };
}

function escaped(text) {
  return text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

function stop(message) {
  console.error(message);
  process.exit(1);
}
