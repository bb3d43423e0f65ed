/** The web site with the test's page, under a strict content security policy and on another origin than the API. */

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

const PAGE = fileURLToPath(new URL("../page", import.meta.url));
const PACKAGES = fileURLToPath(new URL("../../../packages", import.meta.url));
const MODULES = fileURLToPath(new URL("../../../node_modules", import.meta.url));
const KINDS: Record<string, string> = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8" };

export class Site {
  private constructor(private readonly server: Server) {}

  /** Serve the page, which may connect to these origins. */
  static async for(...origins: string[]): Promise<Site> {
    const policy = [
      "default-src 'none'",
      "script-src 'self'",
      "worker-src 'self'",
      `connect-src ${origins.join(" ")}`,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      "require-trusted-types-for 'script'",
    ].join("; ");
    const server = createServer(async (request, response) => {
      const path = fileOf(request.url ?? "/");
      try {
        const content = await readFile(path);
        response.setHeader("Content-Type", KINDS[extname(path)] ?? "application/octet-stream");
        response.setHeader("Content-Security-Policy", policy);
        response.end(content);
      } catch {
        response.writeHead(404).end();
      }
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Site(server);
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, "close");
  }
}

function fileOf(url: string): string {
  const { pathname } = new URL(url, "http://site");
  if (pathname.startsWith("/client/")) return join(PACKAGES, "client/dist", pathname.slice(8));
  if (pathname.startsWith("/livekit-client/")) return join(MODULES, "livekit-client/dist", pathname.slice(16));
  return join(PAGE, pathname === "/" ? "index.html" : pathname);
}
