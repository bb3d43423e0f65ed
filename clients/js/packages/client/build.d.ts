/** Bundles the package and its worklets; returns the code of each file by its name. */
export function bundle(): Promise<Record<string, string>>;
