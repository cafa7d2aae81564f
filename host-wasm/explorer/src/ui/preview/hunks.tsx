/** Two versions of a file, line by line. */
import { structuredPatch } from 'diff';
import type { Remote } from 'comlink';
import type { ImageEngine, Piece, View } from '../../api';
import { visible, visibleContent } from '../escape';
import { bytes } from '../format';
import { usePromised } from '../promised';
import { Failed, Waiting } from '../states';
import { MOST_TEXT } from './content';
import { decode, sniff } from './sniff';

/** What a comparison may take: long files that have nothing in common take very long. */
const TIMEOUT = 1500;

/** Where a version of a file is. */
export interface Version {
    engine: Remote<ImageEngine>;
    view: View;
}

export function ContentDifference({ path, before, after }: { path: string; before: Version; after: Version }) {
    const difference = usePromised(() => compared(path, before, after), [path, before.engine, before.view, after.engine, after.view]);
    if (difference.problem) return <Failed problem={difference.problem} again={difference.again} />;
    if (!difference.value) return <Waiting what="Fetching both" />;
    return typeof difference.value === 'string' ? <p>{difference.value}</p> : <Hunks hunks={difference.value} name={path} />;
}

interface Hunk {
    oldStart: number;
    newStart: number;
    lines: string[];
}

async function compared(path: string, before: Version, after: Version): Promise<Hunk[] | string> {
    const read = ({ engine, view }: Version): Promise<Piece> => engine.read(view, path, 0, MOST_TEXT + 1);
    const [one, other] = await Promise.all([read(before), read(after)]);
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
