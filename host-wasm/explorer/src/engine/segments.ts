/** Parts of the blob that were brought to open a layer: what opening it again needs. */
import { concat } from './bytes';

export type Segment = [offset: number, bytes: Uint8Array];

/** Segments as one value: the number of them, then for each offset and length, then their bytes. */
export function pack(segments: Segment[]): Uint8Array {
    const head = new Float64Array(1 + 2 * segments.length);
    head[0] = segments.length;
    segments.forEach(([offset, bytes], index) => head.set([offset, bytes.length], 1 + 2 * index));
    return concat([new Uint8Array(head.buffer), ...segments.map(([, bytes]) => bytes)]);
}

/** The segments of such a value; `null` when it is none. */
export function unpack(packed: Uint8Array | null): Segment[] | null {
    if (!packed || packed.length < 8) return null;
    const copy = packed.slice();
    const count = new Float64Array(copy.buffer, 0, 1)[0] ?? 0;
    if (!(count >= 1 && 8 * (1 + 2 * count) <= copy.length)) return null;
    const head = new Float64Array(copy.buffer, 8, 2 * count);
    const segments: Segment[] = [];
    let at = 8 * (1 + 2 * count);
    for (let index = 0; index < count; index += 1) {
        const [offset = 0, length = 0] = [head[2 * index], head[2 * index + 1]];
        segments.push([offset, copy.subarray(at, at + length)]);
        at += length;
    }
    return segments;
}
