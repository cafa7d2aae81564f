/** Looks through all layers. */
import type { Found, Hears } from '../api';
import { walk } from './findings';
import { parseQuery } from './query';
import type { Node, Trees } from './trees';

const PAGE = 200;
const SHOWN_AFTER_MS = 100;

/**
 * Gives what matches to `onPage`, the topmost layer first, and answers how many there were. A path is found in every layer
 * that has it; a directory only where the merged tree takes it from, unless it is in that no more.
 */
export async function search(trees: Trees, text: string, onPage: Hears<Found[]>, cancelled: () => boolean): Promise<number> {
    const query = parseQuery(text);
    let count = 0;
    for (const { facts } of [...trees.open].reverse()) {
        const { index } = facts;
        if (query.layer !== null && query.layer !== index) continue;
        let page: { path: string; node: Node; visible: boolean }[] = [];
        let shown = performance.now();
        const show = async (): Promise<void> => {
            if (page.length === 0) return;
            const rows = trees.rows('merged', page);
            await onPage(rows.map((row, at) => ({ row, visible: page[at]?.visible ?? false })));
            page = [];
            shown = performance.now();
        };
        for await (const { path, layer, entry } of walk(index, trees)) {
            if (cancelled()) return count;
            let seen: boolean | null = null;
            const visible = (): boolean => (seen ??= isVisible(trees, path, index, entry.id));
            const { kind, mode } = entry;
            if (!query.matches({ path, kind: kind.tag, size: Number(entry.size), mode, layer: index, visible })) continue;
            if (kind.tag === 'directory' && query.layer === null && !visible() && isVisibleElsewhere(trees, path)) continue;
            page.push({ path, node: { layer, entry }, visible: visible() });
            count += 1;
            if (page.length >= PAGE || performance.now() - shown > SHOWN_AFTER_MS) await show();
        }
        await show();
    }
    return count;
}

function isVisible(trees: Trees, path: string, layer: number, id: number): boolean {
    try {
        const node = trees.find('merged', path, false);
        return node.layer.facts.index === layer && node.entry.id === id;
    } catch {
        return false;
    }
}

function isVisibleElsewhere(trees: Trees, path: string): boolean {
    try {
        return trees.find('merged', path, false).entry.kind.tag === 'directory';
    } catch {
        return false;
    }
}
