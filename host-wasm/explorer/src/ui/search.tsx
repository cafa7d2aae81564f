/** Search over all layers, removed files included. */
import { proxy } from 'comlink';
import { useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import type { Found, Problem } from '../api';
import { visible } from './escape';
import { bytes, counted, mode } from './format';
import { Icon } from './icon';
import { say } from './live';
import { go, route } from './route';
import { engine, generation, problem } from './session';
import { Failed } from './states';
import { ROW, useWindow } from './window';

export function Search() {
    const { query } = route.value;
    const current = engine.value;
    const found = useSignal<Found[]>([]);
    const isDone = useSignal(true);
    const failed = useSignal<Problem | null>(null);
    useEffect(() => {
        found.value = [];
        failed.value = null;
        if (!current || !query.trim()) return;
        let isLate = false;
        isDone.value = false;
        const hear = proxy((page: Found[]) => void (isLate || (found.value = [...found.value, ...page])));
        current.search(query, hear).then(
            (number) => {
                if (isLate) return;
                isDone.value = true;
                say(`${counted(number, 'result')} for ${query}`);
            },
            (thrown: unknown) => isLate || (failed.value = problem(thrown)),
        );
        return () => {
            isLate = true;
            void current.cancelSearch();
        };
    }, [current, query, generation.value]);
    return (
        <div class="search">
            <p class="summary">
                {query.trim() ? `${counted(found.value.length, 'result')}${isDone.value ? '' : ', still looking…'}` : 'Type what to look for.'}
            </p>
            {failed.value ? <Failed problem={failed.value} /> : <Results found={found.value} />}
            <details class="hint" open={!query.trim()}>
                <summary>What can be asked</summary>
                <dl>
                    <dt>
                        <code>passwd</code>, <code>*.so.?</code>, <code>/usr/*/go</code>
                    </dt>
                    <dd>words and globs of the path; all of them have to match</dd>
                    <dt>
                        <code>type:</code>
                    </dt>
                    <dd>file, dir, link, device, fifo, whiteout</dd>
                    <dt>
                        <code>size&gt;10M</code> <code>size&lt;1k</code>
                    </dt>
                    <dd>of files</dd>
                    <dt>
                        <code>mode:4755</code>, <code>is:setuid</code>
                    </dt>
                    <dd>permissions</dd>
                    <dt>
                        <code>layer:3</code>, <code>is:hidden</code>
                    </dt>
                    <dd>where it is; what no container sees</dd>
                </dl>
            </details>
        </div>
    );
}

function Results({ found }: { found: Found[] }) {
    const body = useRef<HTMLDivElement>(null);
    const cursor = useSignal(0);
    const { first, last, slot, onScroll, show, page } = useWindow(body, found.length);
    const at = Math.min(cursor.value, Math.max(0, found.length - 1));
    useEffect(() => show(at), [at]);
    const choose = (result: Found | undefined): void => {
        if (result) go({ path: result.row.path, view: result.visible ? 'merged' : result.row.layer, tab: null, lines: null, offset: 0, compare: null });
    };
    const onKeyDown = (event: KeyboardEvent): void => {
        const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page(), PageUp: -page(), Home: -found.length, End: found.length };
        const step = steps[event.key];
        if (step !== undefined) cursor.value = Math.min(Math.max(at + step, 0), Math.max(0, found.length - 1));
        else if (event.key === 'Enter') choose(found[at]);
        else return;
        event.preventDefault();
    };
    if (found.length === 0) return null;
    return (
        <div
            class="results rows"
            ref={body}
            role="listbox"
            tabIndex={0}
            aria-label="Results"
            aria-activedescendant={`result-${at}`}
            onScroll={onScroll}
            onKeyDown={onKeyDown}
        >
            <div class="all" role="presentation" style={{ height: `${found.length * ROW}px` }}>
                {found.slice(first, last).map((result, index) => {
                    const { row } = result;
                    const number = first + index;
                    return (
                        <div
                            role="option"
                            id={`result-${number}`}
                            key={slot(number)}
                            class={`row ${row.kind}${number === at ? ' cursor' : ''}`}
                            style={{ top: `${number * ROW}px` }}
                            aria-selected={row.path === route.value.path}
                            aria-posinset={number + 1}
                            aria-setsize={found.length}
                            onClick={() => {
                                cursor.value = number;
                                choose(result);
                            }}
                        >
                            <span class="name">
                                <Icon of={row} />
                                <span class="text" title={visible(row.path)}>
                                    {visible(row.name)}
                                    <span class="directory"> {visible(row.path.slice(0, -row.name.length))}</span>
                                    {row.target !== null && <span class="target"> → {visible(row.target)}</span>}
                                </span>
                                {!result.visible && <span class="mark removed">hidden</span>}
                            </span>
                            <span class="size">{row.kind === 'regular' ? bytes(row.size ?? 0) : ''}</span>
                            <span class="mode">{mode(row)}</span>
                            <span class="of-layer">layer {row.layer + 1}</span>
                        </div>
                    );
                })}
            </div>
        </div>
    );
}
