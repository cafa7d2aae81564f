/** Bytes in hexadecimal. Only what can be seen is read: a look into 4 GB costs one chunk. */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { Problem, Row } from '../../api';
import { bytes, hex } from '../format';
import { go, route } from '../route';
import { engine, problem } from '../session';
import { Failed } from '../states';

const WIDTH = 16;
const LINE = 20;
/** What is read at once. */
const PART = 4096;
/** Browsers lay out nothing higher than some 17 million pixels: beyond this, a pixel scrolled is more than a pixel. */
const HIGHEST = 8_000_000;

export function Hex({ row }: { row: Row }) {
    const size = row.size ?? 0;
    const { view, path, offset } = route.value;
    const body = useRef<HTMLDivElement>(null);
    const top = useSignal(Math.floor(Math.min(offset, Math.max(0, size - 1)) / WIDTH));
    const fits = useSignal(30);
    const parts = useRef(new Map<number, Uint8Array | 'asked'>());
    const drawn = useSignal(0);
    const settling = useRef(0);
    const failed = useSignal<Problem | null>(null);

    const lines = Math.ceil(size / WIDTH);
    const height = Math.min(HIGHEST, lines * LINE);
    const hidden = Math.max(1, height - fits.value * LINE);
    const last = Math.max(0, lines - fits.value);
    const isScaled = lines * LINE > HIGHEST;

    useEffect(() => {
        const element = body.current;
        if (!element) return;
        const observer = new ResizeObserver(() => (fits.value = Math.max(1, Math.floor(element.clientHeight / LINE))));
        observer.observe(element);
        element.scrollTop = isScaled ? (top.value / Math.max(1, last)) * hidden : top.value * LINE;
        return () => {
            observer.disconnect();
            clearTimeout(settling.current);
        };
    }, []);

    const onScroll = (): void => {
        const at = body.current?.scrollTop ?? 0;
        top.value = Math.min(last, isScaled ? Math.round((at / hidden) * last) : Math.floor(at / LINE));
        // The address follows once the scrolling has stopped.
        clearTimeout(settling.current);
        settling.current = window.setTimeout(() => go({ offset: top.peek() * WIDTH, tab: 'hex' }, true), 300);
    };
    const jump = (to: number): void => {
        const line = Math.max(0, Math.min(last, Math.floor(to / WIDTH)));
        if (body.current) body.current.scrollTop = isScaled ? (line / Math.max(1, last)) * hidden : line * LINE;
        top.value = line;
    };

    const from = top.value * WIDTH;
    const to = Math.min(size, from + (fits.value + 1) * WIDTH);
    useEffect(() => {
        const current = engine.peek();
        if (!current || failed.value) return;
        for (let part = Math.floor(from / PART); part * PART < to; part += 1) {
            if (parts.current.has(part)) continue;
            parts.current.set(part, 'asked');
            current.read(view, path, part * PART, PART).then(
                (piece) => {
                    parts.current.set(part, piece.bytes);
                    drawn.value += 1;
                },
                (thrown) => {
                    parts.current.delete(part);
                    failed.value = problem(thrown);
                },
            );
        }
    }, [from, to, view, path, failed.value]);
    if (failed.value) return <Failed problem={failed.value} again={() => (failed.value = null)} />;
    void drawn.value;

    const byte = (at: number): number | null => {
        const part = parts.current.get(Math.floor(at / PART));
        return part && part !== 'asked' ? (part[at % PART] ?? null) : null;
    };
    const rows = Array.from({ length: Math.ceil((to - from) / WIDTH) }, (_, index) => from + index * WIDTH);
    const digits = Math.max(8, (size - 1).toString(16).length);
    return (
        <>
            <form
                class="tools"
                onSubmit={(event) => {
                    event.preventDefault();
                    const text = String(new FormData(event.target as HTMLFormElement).get('offset')).trim();
                    const parsed = /^(0x)?[0-9a-f]+$/i.test(text) ? Number.parseInt(text, /^\d+$/.test(text) ? 10 : 16) : Number.NaN;
                    if (!Number.isNaN(parsed)) jump(parsed);
                }}
            >
                <label>
                    Go to <input name="offset" size={12} placeholder="0x1000" autocomplete="off" />
                </label>
                <button type="submit">Go</button>
                <span>{bytes(size)}</span>
            </form>
            <div class="hexes" ref={body} tabIndex={0} role="region" aria-label="Bytes" onScroll={onScroll}>
                <div style={{ height: `${height}px` }}>
                    <pre class="window">
                        {rows.map((start) => {
                            const all = Array.from({ length: Math.min(WIDTH, size - start) }, (_, index) => byte(start + index));
                            return (
                                <div class="line" key={start}>
                                    <span class="number">{hex(start, digits)}</span>
                                    <span class="codes">{all.map((value) => (value === null ? '··' : hex(value, 2))).join(' ')}</span>
                                    <span class="letters">
                                        {all.map((value) => (value === null ? ' ' : value >= 32 && value < 127 ? String.fromCharCode(value) : '.')).join('')}
                                    </span>
                                </div>
                            );
                        })}
                    </pre>
                </div>
            </div>
        </>
    );
}
