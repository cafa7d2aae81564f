/** Text with line numbers that can be linked to. Lines exist only near what can be seen. */
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { Row } from '../../api';
import { visibleContent } from '../escape';
import { bytes, counted } from '../format';
import { usePromised } from '../promised';
import { go, route } from '../route';
import { Failed, Waiting } from '../states';
import { MOST_TEXT, useContent } from './content';
import { highlight, type Line } from './highlight';
import { decode } from './sniff';

/** Lines that are drawn together. */
const BLOCK = 100;
const LINE = 20;
const STEP = MOST_TEXT;

export function Text({ row }: { row: Row }) {
    const size = row.size ?? 0;
    const most = useSignal(MOST_TEXT);
    const wraps = useSignal(false);
    const content = useContent(row, most.value);
    const decoded = content.value && decode(content.value.bytes, content.value.bytes.length < size);
    const text = decoded && visibleContent(decoded.text.replace(/\r\n?/g, '\n'));
    const coloured = usePromised(text !== null ? () => highlight(row.name, text) : null, [text, row.name]);
    if (content.problem) return <Failed problem={content.problem} again={content.again} />;
    if (text === null || !decoded) return <Waiting what={`Fetching ${bytes(Math.min(size, most.value))}`} />;
    const plain = (): Line[] => (text.endsWith('\n') ? text.slice(0, -1) : text).split('\n').map((line) => [{ text: line }]);
    const lines = coloured.value ?? plain();
    const shown = content.value?.bytes.length ?? 0;
    return (
        <>
            <div class="tools">
                <span>
                    {decoded.encoding}, {counted(lines.length, 'line')}
                </span>
                <label>
                    <input type="checkbox" checked={wraps.value} onChange={() => (wraps.value = !wraps.value)} /> Wrap lines
                </label>
            </div>
            <Lines lines={lines} wraps={wraps.value} />
            {shown < size && (
                <p class="more">
                    The first {bytes(shown)} of {bytes(size)}.{' '}
                    <button type="button" onClick={() => (most.value += STEP)}>
                        Fetch {bytes(Math.min(STEP, size - shown))} more
                    </button>
                </p>
            )}
        </>
    );
}

function Lines({ lines, wraps }: { lines: Line[]; wraps: boolean }) {
    const body = useRef<HTMLDivElement>(null);
    const marked = route.value.lines;
    const starts = Array.from({ length: Math.ceil(lines.length / BLOCK) }, (_, block) => block * BLOCK);
    useEffect(() => {
        const from = route.peek().lines?.[0];
        if (from && body.current) body.current.scrollTop = Math.max(0, (from - 6) * LINE);
    }, [lines.length]);
    const mark = (line: number, isEnd: boolean): void => {
        const from = isEnd ? (marked?.[0] ?? line) : line;
        go({ lines: [Math.min(from, line), Math.max(from, line)], tab: 'text' }, true);
    };
    return (
        <div class={`content${wraps ? ' wraps' : ''}`} ref={body} tabIndex={0} role="region" aria-label="Content">
            {starts.map((start) => (
                <Block key={start} start={start} lines={lines.slice(start, start + BLOCK)} marked={marked} mark={mark} body={body} />
            ))}
        </div>
    );
}

interface BlockProps {
    start: number;
    lines: Line[];
    marked: [number, number] | null;
    mark(line: number, isEnd: boolean): void;
    body: { current: HTMLElement | null };
}

function Block({ start, lines, marked, mark, body }: BlockProps) {
    const element = useRef<HTMLDivElement>(null);
    const isNear = useSignal(start === 0);
    const height = useSignal(lines.length * LINE);
    useEffect(() => {
        if (!element.current) return;
        const observer = new IntersectionObserver(
            ([entry]) => {
                // Wrapped lines are higher: their place stays as high as it was.
                if (entry && !entry.isIntersecting && isNear.value) height.value = entry.boundingClientRect.height;
                isNear.value = entry?.isIntersecting ?? false;
            },
            { root: body.current, rootMargin: '600px' },
        );
        observer.observe(element.current);
        return () => observer.disconnect();
    }, []);
    if (!isNear.value) return <div ref={element} style={{ height: `${height.value}px` }} />;
    return (
        <div ref={element}>
            {lines.map((line, index) => {
                const number = start + index + 1;
                const isMarked = marked !== null && number >= marked[0] && number <= marked[1];
                return (
                    <div class={`line${isMarked ? ' marked' : ''}`} key={number}>
                        <button
                            type="button"
                            class="number"
                            tabIndex={-1}
                            aria-label={`Link to line ${number}`}
                            onClick={(event) => mark(number, event.shiftKey)}
                        >
                            {number}
                        </button>
                        <code>
                            {line.map(({ text, kind }, part) =>
                                kind ? (
                                    <span class={kind} key={part}>
                                        {text}
                                    </span>
                                ) : (
                                    text
                                ),
                            )}
                        </code>
                    </div>
                );
            })}
        </div>
    );
}
