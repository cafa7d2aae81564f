/** Search over all layers, removed files included. */
import { proxy } from 'comlink';
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import type { Found, Problem } from '../api';
import { Choices } from './choices';
import { visible } from './escape';
import { bytes, counted, mode } from './format';
import { Icon } from './icon';
import { say } from './live';
import { afresh, go, route } from './route';
import { engine, generation, problem } from './session';
import { Failed } from './states';

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
    if (found.length === 0) return null;
    return (
        <Choices
            items={found}
            label="Results"
            className="results"
            rowClass={({ row }) => row.kind}
            isSelected={({ row }) => row.path === route.value.path}
            choose={({ row, visible }) => go({ path: row.path, view: visible ? 'merged' : row.layer, ...afresh })}
        >
            {({ row, visible: isVisible }) => (
                <>
                    <span class="name">
                        <Icon of={row} />
                        <span class="text" title={visible(row.path)}>
                            {visible(row.name)}
                            <span class="directory"> {visible(row.path.slice(0, -row.name.length))}</span>
                            {row.target !== null && <span class="target"> → {visible(row.target)}</span>}
                        </span>
                        {!isVisible && <span class="mark removed">hidden</span>}
                    </span>
                    <span class="size">{row.kind === 'regular' ? bytes(row.size ?? 0) : ''}</span>
                    <span class="mode">{mode(row)}</span>
                    <span class="of-layer">layer {row.layer + 1}</span>
                </>
            )}
        </Choices>
    );
}
