/** The page's end of an engine. */
import { wrap, type Remote } from 'comlink';
import type { ImageEngine } from '../api';
import { CLOSE, prepare } from './wire';

/** How long a worker has to write what is to be kept. */
const ENDING_MS = 500;

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
    const close = (): void => {
        worker.postMessage(CLOSE);
        setTimeout(() => worker.terminate(), ENDING_MS);
    };
    return { engine: wrap<ImageEngine>(worker), close };
}
