/** Which rows of a long list can be seen. */
import { useSignal, type Signal } from '@preact/signals';
import { useLayoutEffect } from 'preact/hooks';

/** Height of a row in pixels, as in style.css. */
export const ROW = 26;
const AROUND = 6;

export interface Window {
    /** The first row to draw, and the one after the last. */
    first: number;
    last: number;
    /** The key of a row: elements of rows that were scrolled away become those of new ones, which is cheaper than to make them. */
    slot(row: number): number;
    onScroll(): void;
    /** Scrolls as far as needed for a row to be seen. */
    show(row: number): void;
    /** How many rows fit. */
    page(): number;
}

export function useWindow(body: { current: HTMLElement | null }, rows: number): Window {
    const top = useSignal(0);
    const size = useSignal(600);
    const onScroll = (): void => set(top, Math.floor((body.current?.scrollTop ?? 0) / ROW));
    useLayoutEffect(() => {
        const element = body.current;
        if (!element) return;
        const observer = new ResizeObserver(() => set(size, element.clientHeight));
        observer.observe(element);
        onScroll();
        return () => observer.disconnect();
    }, [body.current]);
    const fits = Math.ceil(size.value / ROW);
    const most = fits + 2 * AROUND + 8;
    // By steps, so that not every row scrolled means another rendering.
    const first = Math.max(0, Math.floor((top.value - AROUND) / 8) * 8);
    return {
        first,
        last: Math.min(rows, first + most),
        slot: (row) => row % most,
        onScroll,
        page: () => Math.max(1, fits - 2),
        show: (row) => {
            const element = body.current;
            if (!element) return;
            const from = row * ROW;
            if (from < element.scrollTop) element.scrollTop = from;
            else if (from + ROW > element.scrollTop + element.clientHeight) element.scrollTop = from + ROW - element.clientHeight;
        },
    };
}

function set(signal: Signal<number>, value: number): void {
    if (signal.value !== value) signal.value = value;
}
