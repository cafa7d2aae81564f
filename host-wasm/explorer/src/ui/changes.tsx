/** What a layer does to those below it. */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { Change, Difference, Problem } from '../api';
import { visible } from './escape';
import { bytes, counted } from './format';
import { pathLink } from './files';
import { route } from './route';
import { engine, problem } from './session';
import { Failed } from './states';
import { toggled } from './toggled';
import { ROW, useWindow } from './window';

const all: Change[] = ['added', 'modified', 'metadata-only', 'duplicated', 'removed'];

export function Changes() {
    const { view } = route.value;
    const current = engine.value;
    const lines = useSignal<Difference[]>([]);
    const hidden = useSignal<ReadonlySet<Change>>(new Set());
    const failed = useSignal<Problem | null>(null);
    const body = useRef<HTMLDivElement>(null);
    useEffect(() => {
        let isLate = false;
        lines.value = [];
        failed.value = null;
        const read = async (): Promise<void> => {
            if (!current || view === 'merged') return;
            for (let start: number | null = 0; start !== null && !isLate; ) {
                const page: { items: Difference[]; next: number | null } = await current.differences(view, start);
                if (!isLate) lines.value = [...lines.value, ...page.items];
                start = page.next;
            }
        };
        read().catch((thrown: unknown) => isLate || (failed.value = problem(thrown)));
        return () => void (isLate = true);
    }, [current, view]);
    const shown = lines.value.filter(({ change }) => !hidden.value.has(change));
    const { first, last, slot, onScroll } = useWindow(body, shown.length);
    if (view === 'merged') return <p class="empty">Choose a layer to see what it changes in the layers below it.</p>;
    if (failed.value) return <Failed problem={failed.value} />;
    return (
        <div class="list">
            <div class="tools" role="group" aria-label="Kinds of change">
                {all.map((change) => (
                    <label key={change} class={`mark ${change}`}>
                        <input type="checkbox" checked={!hidden.value.has(change)} onChange={() => (hidden.value = toggled(hidden.value, change))} /> {change}
                    </label>
                ))}
                <span>{counted(shown.length, 'path')}</span>
            </div>
            <div class="rows" ref={body} tabIndex={0} role="list" aria-label={`Changes of layer ${view + 1}`} onScroll={onScroll}>
                <div class="all" role="presentation" style={{ height: `${shown.length * ROW}px` }}>
                    {shown.slice(first, last).map((line, index) => (
                        <div
                            class="row"
                            role="listitem"
                            key={slot(first + index)}
                            style={{ top: `${(first + index) * ROW}px` }}
                            aria-posinset={first + index + 1}
                            aria-setsize={shown.length}
                        >
                            <span class={`mark ${line.change}`}>{line.change}</span>
                            <a class="text" href={pathLink(line.path)} title={visible(line.path)}>
                                {visible(line.path)}
                            </a>
                            <span class="size">{sizes(line)}</span>
                        </div>
                    ))}
                </div>
            </div>
        </div>
    );
}

function sizes({ before, after }: Difference): string {
    if (before === null || after === null || before === after) return bytes(after ?? before ?? 0);
    return `${bytes(before)} → ${bytes(after)}`;
}
