// A receiver of webhooks: it verifies each request, skips repeated events, and prints a line for each event.

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const PORT = Number(process.env.PORT ?? 9000);
const LARGEST_BODY = 10_000_000;
const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const seen = new Set(); // in your app: a table, written in the transaction that handles the event

/** Handles a request, and returns the status of the response. */
function receive(headers, body) {
  let event;
  try {
    event = webhook.verify(body, headers); // the body as it was received, not parsed and written again
  } catch {
    console.log("refused: the signature does not match");
    return 401;
  }
  if (!seen.has(headers["webhook-id"])) {
    const { type, data } = event;
    console.log(type, data.session_id ?? data.endpoint_id, data.status ?? "");
    seen.add(headers["webhook-id"]);
    if (seen.size > 10_000) seen.delete(seen.values().next().value); // the oldest
  }
  return 204;
}

const server = createServer({ requestTimeout: 10_000, connectionsCheckingInterval: 1000 }, async (request, response) => {
  const parts = [];
  let size = 0;
  try {
    for await (const part of request) if ((size += part.length) <= LARGEST_BODY) parts.push(part);
  } catch {
    return; // the sender has hung up
  }
  const status = request.method === "POST" ? receive(request.headers, Buffer.concat(parts)) : 405;
  response.writeHead(status, { Connection: "close" }).end();
});
server.listen(PORT, "127.0.0.1", () => console.log(`Listening on http://127.0.0.1:${PORT}/`));
process.on("SIGINT", () => process.exit(0));
