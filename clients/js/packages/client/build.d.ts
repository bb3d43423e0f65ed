import type { OutputFile } from "esbuild";

/** Bundles the package and its worklets; returns the files if `write` is false. */
export function bundle(options?: { write?: boolean }): Promise<OutputFile[]>;
