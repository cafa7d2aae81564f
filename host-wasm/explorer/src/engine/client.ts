/** The page's end of an engine. */
import { wrap, type Remote } from 'comlink';
import type { ImageEngine } from '../api';
import { CLOSE, prepare } from './wire';

/** How long a worker has to write what is to be kept. */
const ENDING_MS = 1000;

export interface Engine {
    /** Failures arrive as `ApiError`; callbacks have to be comlink proxies. */
    engine: Remote<ImageEngine>;
    /** Ends the worker and all that it does, after it wrote what is to be kept. Calls that it had not answered never are. */
    close(): Promise<void>;
}

prepare();

/** Starts an engine in a worker of its own, for one image. */
export function startEngine(): Engine {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module', name: 'lazystar' });
    const close = (): Promise<void> =>
        new Promise((done) => {
            const end = (): void => {
                worker.terminate();
                done();
            };
            worker.addEventListener('message', ({ data }) => data === CLOSE && end());
            worker.postMessage(CLOSE);
            setTimeout(end, ENDING_MS);
        });
    return { engine: wrap<ImageEngine>(worker), close };
}
