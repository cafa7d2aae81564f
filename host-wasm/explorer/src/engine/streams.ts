/** Streams that are filled only as far as they are read. */

/** A stream of what `make` yields. Cancelling it aborts the signal, and with it what is being fetched. */
export function streamed(make: (signal: AbortSignal) => AsyncGenerator<Uint8Array, void, undefined>): ReadableStream<Uint8Array> {
    const abort = new AbortController();
    const pieces = make(abort.signal);
    return new ReadableStream<Uint8Array>(
        {
            async pull(controller) {
                const { done, value } = await pieces.next();
                if (done) controller.close();
                else controller.enqueue(value);
            },
            cancel() {
                abort.abort();
                // Not awaited: it ends when what was aborted has.
                pieces.return().catch(() => undefined);
            },
        },
        { highWaterMark: 0 },
    );
}
