/** What is on its way, for components. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Problem } from '../api';
import { problem } from './session';

export interface Promised<T> {
    value: T | null;
    problem: Problem | null;
    isWaiting: boolean;
}

/** Asks again whenever `inputs` change; an answer that comes too late is dropped. `null` asks nothing. */
export function usePromised<T>(ask: (() => Promise<T>) | null, inputs: unknown[]): Promised<T> {
    const state = useSignal<Promised<T>>({ value: null, problem: null, isWaiting: true });
    useEffect(() => {
        let isLate = false;
        state.value = { value: null, problem: null, isWaiting: ask !== null };
        ask?.().then(
            (value) => isLate || (state.value = { value, problem: null, isWaiting: false }),
            (thrown) => isLate || (state.value = { value: null, problem: problem(thrown), isWaiting: false }),
        );
        return () => void (isLate = true);
    }, inputs);
    return state.value;
}
