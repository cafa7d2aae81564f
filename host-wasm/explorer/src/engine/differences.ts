/** What layers change. */
import type { Difference } from '../api';
import { dispose } from './instance';
import { Slices } from './slices';
import type { Trees } from './trees';

/** Of the layer with this position in the merged tree. */
export async function* differences(trees: Trees, position: number): AsyncGenerator<Difference, void, undefined> {
    const handle = trees.merged.differences(position);
    const slices = new Slices();
    try {
        for (let some; (some = handle.next(500)).length > 0; await slices.breathe()) {
            for (const { path, change, before, after } of some) {
                yield { path, change, before: before ? Number(before.entry.size) : null, after: after ? Number(after.entry.size) : null };
            }
        }
    } finally {
        dispose(handle);
    }
}
