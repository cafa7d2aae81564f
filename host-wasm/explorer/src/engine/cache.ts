export class Store {
    readonly #kept = new Map<string, Uint8Array>();
    async get(key: string): Promise<Uint8Array | null> { return this.#kept.get(key) ?? null; }
    has(key: string): boolean { return this.#kept.has(key); }
    async put(key: string, bytes: Uint8Array): Promise<void> { this.#kept.set(key, bytes.slice()); }
    forget(key: string): void { this.#kept.delete(key); }
    async tag(name: string): Promise<string | null> { const b = this.#kept.get(name); return b ? new TextDecoder().decode(b) : null; }
    async setTag(name: string, digest: string): Promise<void> { this.#kept.set(name, new TextEncoder().encode(digest)); }
}
