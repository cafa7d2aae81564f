/** Two layers' versions of a file, line by line. */
import { structuredPatch } from 'diff';
import type { Piece } from '../../api';
import { visible, visibleContent } from '../escape';
import { bytes } from '../format';
import { usePromised } from '../promised';
import { go, route } from '../route';
import { engine } from '../session';
import { Failed, Waiting } from '../states';
import { MOST_TEXT } from './content';
import { decode, sniff } from './sniff';

/** What a comparison may take: long files that have nothing in common take very long. */
const TIMEOUT = 1500;

export function Compare({ path }: { path: string }) {
    const current = engine.value;
    const { view, compare } = route.value;
    const details = usePromised(current ? () => current.details(view, path) : null, [current, view, path]);
    const versions = (details.value?.versions ?? []).filter(({ kind, removed }) => kind === 'regular' && !removed);
    const [from, to] = compare ?? [versions.at(-2)?.layer, versions.at(-1)?.layer];
    const isReady = current !== null && from !== undefined && to !== undefined;
    const difference = usePromised(isReady ? () => compared(path, from, to) : null, [current, path, from, to]);
    if (details.problem) return <Failed problem={details.problem} />;
    if (!details.value) return <Waiting what="Looking" />;
    if (!isReady) return <p>Only one layer has this file: there is nothing to compare it with.</p>;
    const choose = (which: 0 | 1) => (event: Event) => {
        const layer = Number((event.currentTarget as HTMLSelectElement).value);
        go({ compare: which === 0 ? [layer, to] : [from, layer], tab: 'compare' }, true);
    };
    const select = (label: string, which: 0 | 1, value: number) => (
        <label>
            {label}{' '}
            <select value={value} onChange={choose(which)}>
                {versions.map(({ layer, size }) => (
                    <option key={layer} value={layer}>
                        layer {layer + 1}, {bytes(size)}
                    </option>
                ))}
            </select>
        </label>
    );
    return (
        <>
            <div class="tools">
                {select('From', 0, from)}
                {select('to', 1, to)}
            </div>
            {difference.problem && <Failed problem={difference.problem} />}
            {difference.isWaiting && <Waiting what="Fetching both" />}
            {typeof difference.value === 'string' && <p>{difference.value}</p>}
            {difference.value && typeof difference.value !== 'string' && <Hunks hunks={difference.value} name={path} />}
        </>
    );
}

interface Hunk {
    oldStart: number;
    newStart: number;
    lines: string[];
}

async function compared(path: string, from: number, to: number): Promise<Hunk[] | string> {
    const current = engine.peek();
    if (!current) throw new Error('the image was closed');
    const read = (layer: number) => current.read(layer, path, 0, MOST_TEXT + 1);
    const [one, other] = await Promise.all([read(from), read(to)]);
    if (one.bytes.length > MOST_TEXT || other.bytes.length > MOST_TEXT) return `Files of more than ${bytes(MOST_TEXT)} are not compared line by line.`;
    const isText = [one, other].every(({ bytes }) => sniff(bytes, path, bytes.length).tabs.includes('text') || bytes.length === 0);
    const isSame = one.bytes.length === other.bytes.length && one.bytes.every((byte, at) => byte === other.bytes[at]);
    if (isSame) return 'Both have the same content: what differs is mode, owner, time or attributes.';
    if (!isText) return `The content differs (${bytes(one.bytes.length)}, ${bytes(other.bytes.length)}); it is not text.`;
    const text = ({ bytes }: Piece): string => decode(bytes, false).text;
    const patch = structuredPatch(path, path, text(one), text(other), '', '', { context: 3, timeout: TIMEOUT });
    return patch?.hunks ?? 'The files have so little in common that a comparison takes too long.';
}

function Hunks({ hunks, name }: { hunks: Hunk[]; name: string }) {
    const kinds: Record<string, string> = { '+': 'plus', '-': 'minus' };
    return (
        <div class="hunks" role="region" tabIndex={0} aria-label={`Differences of ${visible(name)}`}>
            {hunks.map((hunk) => (
                <pre key={`${hunk.oldStart} ${hunk.newStart}`}>
                    <div class="where">
                        from line {hunk.oldStart} to line {hunk.newStart}
                    </div>
                    {hunk.lines.map((line, index) => (
                        <div key={index} class={kinds[line[0] ?? '']}>
                            {visibleContent(line)}
                        </div>
                    ))}
                </pre>
            ))}
        </div>
    );
}
