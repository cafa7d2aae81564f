/** What comlink has to know on both sides: failures keep their `problem`, streams cross over. */
import { transferHandlers, type TransferHandler } from 'comlink';
import { ApiError, type Problem } from '../api';
import { asProblem } from './problems';

/** What the page says when it needs a worker no longer, and the worker when all is written. */
export const CLOSE = 'close';

interface Thrown {
    value: unknown;
}

type Carrier = ReadableStream<Uint8Array> | MessagePort;

const ownThrow = transferHandlers.get('throw') as TransferHandler<Thrown, unknown>;
const throwing: TransferHandler<Thrown, Problem> = {
    canHandle: (value): value is Thrown => ownThrow.canHandle(value),
    serialize: ({ value }) => [asProblem(value), []],
    deserialize: (problem) => {
        throw new ApiError(problem);
    },
};

const streaming: TransferHandler<ReadableStream<Uint8Array>, Carrier> = {
    canHandle: (value): value is ReadableStream<Uint8Array> => value instanceof ReadableStream,
    serialize: (stream) => {
        const carrier = streamsCross() ? stream : send(stream);
        return [carrier, [carrier]];
    },
    deserialize: (carrier) => (carrier instanceof MessagePort ? receive(carrier) : carrier),
};

/** Called once on each side, before anything else. */
export function prepare(): void {
    transferHandlers.set('throw', throwing as TransferHandler<unknown, unknown>);
    transferHandlers.set('stream', streaming as TransferHandler<unknown, unknown>);
}

/** Safari has streams that cannot be transferred. */
function streamsCross(): boolean {
    try {
        const stream = new ReadableStream();
        structuredClone(stream, { transfer: [stream as unknown as Transferable] });
        return true;
    } catch {
        return false;
    }
}

/** Gives a stream out through a port, a piece whenever the other side asks. */
function send(stream: ReadableStream<Uint8Array>): MessagePort {
    const { port1, port2 } = new MessageChannel();
    const reader = stream.getReader();
    port1.onmessage = async ({ data }: MessageEvent<'pull' | 'cancel'>) => {
        if (data === 'cancel') return reader.cancel();
        try {
            port1.postMessage(await reader.read());
        } catch (thrown) {
            port1.postMessage({ problem: asProblem(thrown) });
        }
    };
    return port2;
}

function receive(port: MessagePort): ReadableStream<Uint8Array> {
    return new ReadableStream<Uint8Array>(
        {
            pull: (controller) =>
                new Promise<void>((done) => {
                    port.onmessage = ({ data }: MessageEvent<{ done?: boolean; value?: Uint8Array; problem?: Problem }>) => {
                        if (data.problem) controller.error(new ApiError(data.problem));
                        else if (data.value) controller.enqueue(data.value);
                        if (data.done) controller.close();
                        done();
                    };
                    port.postMessage('pull');
                }),
            cancel: () => port.postMessage('cancel'),
        },
        { highWaterMark: 0 },
    );
}
