/** What the server of this page says of itself. A plain web server says nothing: registries are then asked directly. */
export interface Server {
    /** The path in front of `HOST/v2/…`; `null` where there is no proxy. */
    proxy: string | null;
    /** The image that `lazystar explore` was called with. */
    image: { name: string; registry: string; repository: string; reference: string } | null;
}

export const server: Promise<Server> = ask();

async function ask(): Promise<Server> {
    const none: Server = { proxy: null, image: null };
    try {
        const response = await fetch(new URL('lazystar.json', document.baseURI));
        if (!response.ok || !/json/.test(response.headers.get('content-type') ?? '')) return none;
        return { ...none, ...((await response.json()) as Partial<Server>) };
    } catch {
        return none;
    }
}
