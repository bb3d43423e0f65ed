/** The pauses before each try of something that failed, in seconds; the first try waits, too. */
export const PAUSES = [0, 1, 2, 4, 8, 16] as const;

/** Resolves after some seconds, or at once when the signal is aborted. */
export function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const wake = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", wake);
      resolve();
    };
    const timer = setTimeout(wake, seconds * 1000);
    signal?.addEventListener("abort", wake);
  });
}

/** Waits for a promise, but not longer than some seconds; a failure counts as an end, too. */
export async function atMost(seconds: number, work: Promise<unknown>): Promise<void> {
  const over = new AbortController();
  await Promise.race([work.catch(() => {}), sleep(seconds, over.signal)]);
  over.abort();
}

/** Whether the browser knows that it has no network. */
export const isOffline = (): boolean => globalThis.navigator?.onLine === false;

/** Waits until the browser may have a network again, at most some seconds. */
export async function online(seconds: number, signal?: AbortSignal): Promise<void> {
  if (!isOffline()) return;
  const back = new AbortController();
  const wake = () => back.abort();
  addEventListener("online", wake);
  signal?.addEventListener("abort", wake);
  await sleep(seconds, back.signal);
  removeEventListener("online", wake);
  signal?.removeEventListener("abort", wake);
}
