/** Rows of the tree that are to be downloaded together, as one tar. */
import { signal } from '@preact/signals';
import type { Row } from '../api';
import { ancestors, parent } from '../engine/paths';
import { download } from './download';
import { counted } from './format';
import { say } from './live';
import { route } from './route';
import { engine, problem } from './session';

/** All of them are in the address of the download. */
const MOST = 500;

/** By path. */
export const selected = signal<ReadonlyMap<string, Row>>(new Map());

/** Selects a row, or no longer. */
export function select(row: Row): void {
    const next = new Map(selected.peek());
    if (!next.delete(row.path)) next.set(row.path, row);
    if (next.size > MOST) return say(`A selection has ${MOST} paths at most`);
    selected.value = next;
    say(`${counted(next.size, 'path')} selected`);
}

export function clear(): void {
    if (selected.peek().size > 0) selected.value = new Map();
}

export function Selection() {
    const number = selected.value.size;
    if (number === 0) return null;
    return (
        <div class="tools" role="group" aria-label="Selection">
            <span>{counted(number, 'path')} selected</span>
            <button type="button" onClick={() => void save()}>
                Download selection as tar
            </button>
            <button type="button" onClick={clear}>
                Clear
            </button>
        </div>
    );
}

async function save(): Promise<void> {
    const current = engine.peek();
    if (!current) return;
    const { directory, only, size } = together(selected.peek());
    try {
        await download({ ...(await current.stat(route.peek().view, directory, false)), size }, true, only);
    } catch (thrown) {
        say(problem(thrown).message);
    }
}

/**
 * The nearest directory that all are in, and their paths from there. What is in one that is selected comes with that. Their
 * size is `null` while that of one is not known.
 */
function together(rows: ReadonlyMap<string, Row>): { directory: string; only: string[]; size: number | null } {
    const tops = [...rows.values()].filter(({ path }) => ![...ancestors(path)].some((above) => rows.has(above)));
    const isAbove = (directory: string): boolean => tops.every(({ path }) => [...ancestors(path)].includes(directory));
    let directory = parent(tops[0]?.path ?? '/');
    while (!isAbove(directory)) directory = parent(directory);
    return {
        directory,
        only: tops.map(({ path }) => path.slice(directory === '/' ? 1 : directory.length + 1)),
        size: tops.reduce<number | null>((sum, { size }) => (sum === null || size === null ? null : sum + size), 0),
    };
}
