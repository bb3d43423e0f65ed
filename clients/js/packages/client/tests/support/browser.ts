// The parts of a browser around a call that Node lacks: storage, locks, the page's events.

import { vi } from "vitest";

/** A tab: its storage, and the events of its page. Locks are shared by the tabs of a browser. */
export class Tab {
  readonly storage: Map<string, string>;
  readonly page = new EventTarget();
  private readonly locks: Set<string>;

  constructor(of?: Tab) {
    this.storage = new Map(of?.storage);
    this.locks = of?.locks ?? new Set();
  }

  /** Makes this tab the one that runs. */
  show(): this {
    vi.stubGlobal("sessionStorage", {
      getItem: (key: string) => this.storage.get(key) ?? null,
      setItem: (key: string, value: string) => this.storage.set(key, value),
      removeItem: (key: string) => this.storage.delete(key),
    });
    vi.stubGlobal("navigator", { onLine: true, locks: { request: this.#request } });
    for (const name of ["addEventListener", "removeEventListener"] as const)
      vi.stubGlobal(name, this.page[name].bind(this.page));
    return this;
  }

  /** Closes or reloads the page. */
  hide(): void {
    this.page.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: false }));
  }

  /** Ends the page: a reload releases its locks. */
  unload(): void {
    this.hide();
    this.locks.clear();
  }

  readonly #request = async (name: string, { signal }: { signal: AbortSignal }, hold: () => Promise<void>) => {
    while (this.locks.has(name)) {
      if (signal.aborted) throw signal.reason;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    this.locks.add(name);
    await hold();
    this.locks.delete(name);
  };
}
