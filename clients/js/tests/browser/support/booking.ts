/** The server with the tools of the example behind a door that can be closed, and its webhook endpoint. */

import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { type Running, runModule } from "./process.js";
import { type Json, until, type World } from "./world.js";

export class BookingServer {
  /** The calls that have come to the door, in order. */
  readonly calls: Json[] = [];
  /** Whether calls wait at the door. */
  isClosed = false;
  endpoint: Json;
  #program: Running | undefined;

  private constructor(
    private readonly door: Server,
    private readonly port: number,
  ) {}

  /** Start the server, and create its endpoint. */
  static async for(world: World): Promise<BookingServer> {
    const door = createServer();
    door.listen(0, "127.0.0.1");
    await once(door, "listening");
    const server = new BookingServer(door, await freePort());
    server.endpoint = await world.ask("/webhook-endpoints", { url: server.url });
    const variables = { PORT: String(server.port), WEBHOOK_SECRET: server.endpoint.secret };
    server.#program = await runModule(["examples.booking_server"], /^Tools on /m, variables);
    door.on("request", async (request, response) => {
      const body = await buffer(request);
      server.calls.push(JSON.parse(String(body)).data);
      await until("the door is open", () => !server.isClosed);
      const headers = Object.entries(request.headers).filter(([name]) => name.startsWith("webhook-"));
      const target = `http://127.0.0.1:${server.port}/`;
      const answer = await fetch(target, { method: "POST", body, headers: Object.fromEntries(headers) as Json });
      response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
    });
    return server;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.door.address() as AddressInfo).port}/`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.isClosed = false;
    await this.#program?.stop();
    this.door.closeAllConnections();
    this.door.close();
    await once(this.door, "close");
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
