/** Which of the paths that differ are on the list, in which order: found out in slices, so that the page stays smooth. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Deviation, Pair } from '../comparison';
import { parseQuery, type Query } from '../engine/query';
import { Slices } from '../engine/slices';
import { problem } from './session';

interface Wishes {
    hidden: ReadonlySet<Deviation>;
    /** As for a search. */
    filter: string;
    isBySize: boolean;
}

/** The list, and what is wrong with the filter. The old list stays until the new one is there. */
export function useShown(pairs: Pair[], { hidden, filter, isBySize }: Wishes): { shown: Pair[]; wrong: string | null } {
    const state = useSignal<{ shown: Pair[]; wrong: string | null }>({ shown: [], wrong: null });
    useEffect(() => {
        let isLate = false;
        const find = async (): Promise<void> => {
            const query = filter.trim() ? parseQuery(filter) : null;
            const slices = new Slices();
            const shown: Pair[] = [];
            for (const [index, pair] of pairs.entries()) {
                if (!hidden.has(pair.deviation) && (!query || matches(query, pair))) shown.push(pair);
                if (index % 100 === 99) await slices.breathe();
                if (isLate) return;
            }
            state.value = { shown: isBySize ? bySize(shown) : shown, wrong: null };
        };
        find().catch((thrown: unknown) => isLate || (state.value = { shown: [], wrong: problem(thrown).message }));
        return () => void (isLate = true);
    }, [pairs, hidden, filter, isBySize]);
    return state.value;
}

function matches(query: Query, { path, before, after }: Pair): boolean {
    const matches = (object: Pair['before']): boolean => object !== null && query.matches({ ...object, path, visible: () => true });
    return matches(after) || matches(before);
}

const PLACES = 2 ** 17;
const LARGEST = 2 ** 35;

/** The largest change first. A number for each, of the change and the place: those are sorted fast, and stay in order. */
function bySize(pairs: Pair[]): Pair[] {
    const growth = ({ before, after }: Pair): number => Math.min(Math.abs((after?.size ?? 0) - (before?.size ?? 0)), LARGEST);
    const keys = Float64Array.from(pairs, (pair, place) => place - growth(pair) * PLACES).sort();
    return Array.from(keys, (key) => pairs[((key % PLACES) + PLACES) % PLACES] as Pair);
}
