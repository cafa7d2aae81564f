/** The engine itself: one instance a worker, with the instructions that the browser has. */
import scalarCore from '../generated/scalar/engine.core.wasm?url';
import core2 from '../generated/simd/engine.core2.wasm?url';
import core3 from '../generated/simd/engine.core3.wasm?url';
import simdCore from '../generated/simd/engine.core.wasm?url';
import { instantiate, type Root } from '../generated/simd/engine.js';

export type { Root } from '../generated/simd/engine.js';
export type { Descriptor, Layer, Opener, Reader, Span } from '../generated/simd/interfaces/lazystar-engine-layers.js';
export type { Located, Rootfs } from '../generated/simd/interfaces/lazystar-engine-overlay.js';
export type { Configuration, Manifest } from '../generated/simd/interfaces/lazystar-engine-oci.js';
export type { ByteRange, Entry, ErrorCode } from '../generated/simd/interfaces/lazystar-engine-types.js';

// A function that makes a vector of a constant and drops it.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 26, 11];

/** Instantiates the engine. The glue is the same for both variants. */
export async function instance(): Promise<Root> {
    const simd = WebAssembly.validate(new Uint8Array(SIMD));
    const urls: Record<string, string> = {
        'engine.core.wasm': simd ? simdCore : scalarCore,
        'engine.core2.wasm': core2,
        'engine.core3.wasm': core3,
    };
    return instantiate(async (path: string) => {
        const response = await fetch(urls[path] ?? path);
        // Some servers of static files do not know the type of WebAssembly.
        return WebAssembly.compile(await response.arrayBuffer());
    }, {});
}

/** Frees what a handle holds; the garbage collector would come too late. */
export function dispose(handle: object | null | undefined): void {
    (handle as { [Symbol.dispose]?: () => void } | null | undefined)?.[Symbol.dispose]?.();
}
