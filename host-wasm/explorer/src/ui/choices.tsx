/** A long list to choose from, by keys too: its rows exist only where they can be seen. */
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { ROW, useWindow } from './window';

interface ChoicesProps<T> {
    items: T[];
    label: string;
    /** Beside that of all lists. */
    className: string;
    /** What a row is beside being one. */
    rowClass(item: T): string;
    isSelected(item: T): boolean;
    choose(item: T): void;
    children(item: T): ComponentChildren;
}

export function Choices<T>({ items, label, className, rowClass, isSelected, choose, children }: ChoicesProps<T>) {
    const body = useRef<HTMLDivElement>(null);
    const cursor = useSignal(0);
    const { first, last, slot, onScroll, show, page } = useWindow(body, items.length);
    const at = Math.min(cursor.value, Math.max(0, items.length - 1));
    useEffect(() => show(at), [at]);
    const onKeyDown = (event: KeyboardEvent): void => {
        const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page(), PageUp: -page(), Home: -items.length, End: items.length };
        const step = steps[event.key];
        const item = items[at];
        if (step !== undefined) cursor.value = Math.min(Math.max(at + step, 0), Math.max(0, items.length - 1));
        else if (event.key === 'Enter' && item) choose(item);
        else return;
        event.preventDefault();
    };
    const rows = items.slice(first, last).map((item, index) => ({ item, number: first + index }));
    const chosen = items[at];
    // The row that has the cursor exists even when it is scrolled away: the list refers to it.
    if (chosen && (at < first || at >= last)) rows.push({ item: chosen, number: at });
    return (
        <div
            class={`${className} rows`}
            ref={body}
            role="listbox"
            tabIndex={0}
            aria-label={label}
            aria-activedescendant={chosen ? `choice-${at}` : undefined}
            onScroll={onScroll}
            onKeyDown={onKeyDown}
        >
            <div class="all" role="presentation" style={{ height: `${items.length * ROW}px` }}>
                {rows.map(({ item, number }) => (
                    <div
                        role="option"
                        id={`choice-${number}`}
                        key={number < first || number >= last ? 'away' : slot(number)}
                        class={`row ${rowClass(item)}${number === at ? ' cursor' : ''}`}
                        style={{ top: `${number * ROW}px` }}
                        aria-selected={isSelected(item)}
                        aria-posinset={number + 1}
                        aria-setsize={items.length}
                        onClick={() => {
                            cursor.value = number;
                            choose(item);
                        }}
                    >
                        {children(item)}
                    </div>
                ))}
            </div>
        </div>
    );
}
