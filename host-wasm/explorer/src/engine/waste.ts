/** Space that no container sees, and where it comes from. */
import type { Efficiency } from '../api';
import { walk } from './findings';
import { dispose } from './instance';
import { Slices } from './slices';
import type { Trees } from './trees';

const WORST = 200;

/**
 * Adds up hidden copies: plain bytes of regular files, hard links once. A copy is hidden when no name of it is in the merged
 * tree, and counts for the change that hid it first; so the tallies add up to what is stored and not visible.
 */
export async function efficiency(trees: Trees): Promise<Efficiency> {
    const { stored, visible, worst } = trees.merged.efficiency(WORST);
    const { open, merged } = trees;
    const shown = new Set<string>();
    for await (const { layer, entry } of walk('merged', trees)) {
        if (entry.kind.tag === 'regular') shown.add(`${open.indexOf(layer)} ${entry.id}`);
    }
    const tallies: Efficiency['tallies'] = { overwritten: 0, removed: 0, duplicated: 0, metadataOnly: 0 };
    const slices = new Slices();
    for (let position = 1; position < open.length; position += 1) {
        const differences = merged.differences(position);
        try {
            for (let some; (some = differences.next(500)).length > 0; await slices.breathe()) {
                for (const { change, before } of some) {
                    if (!before || before.entry.kind.tag !== 'regular' || change === 'added') continue;
                    const key = `${before.layer} ${before.entry.id}`;
                    if (shown.has(key)) continue;
                    shown.add(key);
                    const size = Number(before.entry.size);
                    if (change === 'removed') tallies.removed += size;
                    else if (change === 'duplicated') tallies.duplicated += size;
                    else if (change === 'metadata-only') tallies.metadataOnly += size;
                    else tallies.overwritten += size;
                }
            }
        } finally {
            dispose(differences);
        }
    }
    return {
        stored: Number(stored),
        visible: Number(visible),
        worst: worst.map(({ path, bytes, layers }) => ({ path, bytes: Number(bytes), layers })),
        tallies,
    };
}
