/** What is on its way, for components. */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { Problem } from '../api';
import { problem } from './session';

export interface Promised<T> {
    value: T | null;
    problem: Problem | null;
    isWaiting: boolean;
    /** Asks once more, after a failure. */
    again(): void;
}

/**
 * Asks whenever `inputs` change; an answer that comes too late is dropped. When only `renewed` changes, the same is asked once
 * more, and the old answer stays until then. `null` asks nothing.
 */
export function usePromised<T>(ask: (() => Promise<T>) | null, inputs: unknown[], renewed?: unknown): Promised<T> {
    const attempt = useSignal(0);
    const again = (): void => void (attempt.value += 1);
    const state = useSignal<Omit<Promised<T>, 'again'>>({ value: null, problem: null, isWaiting: true });
    const all = [...inputs, attempt.value];
    const asked = useRef<unknown[] | null>(null);
    useEffect(() => {
        let isLate = false;
        if (asked.current?.some((input, at) => input !== all[at]) ?? true) {
            state.value = { value: null, problem: null, isWaiting: ask !== null };
        }
        asked.current = all;
        ask?.().then(
            (value) => isLate || (state.value = { value, problem: null, isWaiting: false }),
            (thrown) => isLate || (state.value = { value: null, problem: problem(thrown), isWaiting: false }),
        );
        return () => void (isLate = true);
    }, [...all, renewed]);
    return { ...state.value, again };
}
