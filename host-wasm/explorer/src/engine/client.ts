/** The page's end of an engine. */
import { wrap, type Remote } from 'comlink';
import type { ImageEngine } from '../api';
import { prepare } from './wire';

export interface Engine {
    /** Failures arrive as `ApiError`; callbacks have to be comlink proxies. */
    engine: Remote<ImageEngine>;
    /** Ends the worker and all that it does. Calls that it had not answered never are. */
    close(): void;
}

prepare();

/** Starts an engine in a worker of its own, for one image. */
export function startEngine(): Engine {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'lazystar' });
    return { engine: wrap<ImageEngine>(worker), close: () => worker.terminate() };
}
