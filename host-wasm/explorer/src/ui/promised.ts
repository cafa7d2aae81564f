/** What is on its way, for components. */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { Problem } from '../api';
import { problem } from './session';

export interface Promised<T> {
    value: T | null;
    problem: Problem | null;
    isWaiting: boolean;
}

/**
 * Asks whenever `inputs` change; an answer that comes too late is dropped. When only `again` changes, the same is asked once
 * more, and the old answer stays until then. `null` asks nothing.
 */
export function usePromised<T>(ask: (() => Promise<T>) | null, inputs: unknown[], again?: unknown): Promised<T> {
    const state = useSignal<Promised<T>>({ value: null, problem: null, isWaiting: true });
    const asked = useRef<unknown[] | null>(null);
    useEffect(() => {
        let isLate = false;
        if (asked.current?.some((input, at) => input !== inputs[at]) ?? true) {
            state.value = { value: null, problem: null, isWaiting: ask !== null };
        }
        asked.current = inputs;
        ask?.().then(
            (value) => isLate || (state.value = { value, problem: null, isWaiting: false }),
            (thrown) => isLate || (state.value = { value: null, problem: problem(thrown), isWaiting: false }),
        );
        return () => void (isLate = true);
    }, [...inputs, again]);
    return state.value;
}
