/** Compares the open image with the other one while they are shown, and writes a report of it. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { OpenImage, Problem } from '../api';
import { compare, type Pair, type Totals } from '../comparison';
import { saveContent } from './download';
import { count, counted } from './format';
import { platformName } from './image-facts';
import { say } from './live';
import { engine, generation, other, problem } from './session';

/** Pairs that are on the list; the totals and the report have all. */
export const MOST_LISTED = 100_000;
const SHOWN_AFTER_MS = 100;

export interface Found {
    pairs: Pair[];
    totals: Totals | null;
    isDone: boolean;
    problem: Problem | null;
}

/** Compares once more when another layer of one of them is open. */
export function useComparison(): Found {
    const found = useSignal<Found>({ pairs: [], totals: null, isDone: false, problem: null });
    const [before, after] = [other.engine.value, engine.value];
    useEffect(() => {
        let isLate = false;
        found.value = { pairs: [], totals: null, isDone: false, problem: null };
        const run = async (): Promise<void> => {
            if (!before || !after) return;
            const pairs: Pair[] = [];
            let shown = performance.now();
            let last: Totals | null = null;
            for await (const { pairs: more, totals } of compare(before, after)) {
                if (isLate) return;
                if (pairs.length < MOST_LISTED) pairs.push(...more);
                last = totals;
                if (performance.now() - shown < SHOWN_AFTER_MS) continue;
                shown = performance.now();
                found.value = { pairs: pairs.slice(), totals, isDone: false, problem: null };
            }
            if (isLate) return;
            found.value = { pairs, totals: last, isDone: true, problem: null };
            say(`${counted(last?.paths ?? 0, 'path')} compared, ${count((last?.paths ?? 0) - (last?.same ?? 0))} differ`);
        };
        run().catch((thrown: unknown) => isLate || (found.value = { ...found.value, problem: problem(thrown) }));
        return () => void (isLate = true);
    }, [before, after, other.generation.value, generation.value]);
    return found.value;
}

/** Writes a report of all that differs; goes through both trees again, since not all need be on the list. */
export async function saveReport(before: OpenImage, after: OpenImage): Promise<void> {
    const [one, next] = [other.engine.peek(), engine.peek()];
    if (!one || !next) return;
    const about = ({ place, digest, platform }: OpenImage): object => ({ registry: place.registry, repository: place.repository, digest, platform: platformName(platform) });
    const parts = [`{"from":${JSON.stringify(about(before))},\n"to":${JSON.stringify(about(after))},\n"differences":[`];
    try {
        let comma = '\n';
        let all: Totals | null = null;
        for await (const { pairs, totals } of compare(one, next)) {
            for (const pair of pairs) {
                parts.push(comma, JSON.stringify(pair));
                comma = ',\n';
            }
            all = totals;
        }
        parts.push(`],\n"totals":${JSON.stringify(all)}}\n`);
        saveContent(new Blob(parts, { type: 'application/json' }), 'comparison.json');
    } catch (thrown) {
        say(problem(thrown).message);
    }
}
