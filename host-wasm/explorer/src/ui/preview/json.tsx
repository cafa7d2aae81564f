/** JSON as a tree that is unfolded part by part. */
import { useSignal } from '@preact/signals';
import type { Row } from '../../api';
import { visible } from '../escape';
import { bytes, counted } from '../format';
import { Failed, Waiting } from '../states';
import { MOST_TEXT, useContent } from './content';
import { decode } from './sniff';

/** Members that are shown at once. */
const MOST = 200;

export function Json({ row }: { row: Row }) {
    const content = useContent(row, MOST_TEXT);
    if ((row.size ?? 0) > MOST_TEXT) return <p>More than {bytes(MOST_TEXT)} are shown as text only.</p>;
    if (content.problem) return <Failed problem={content.problem} again={content.again} />;
    if (!content.value) return <Waiting what="Fetching" />;
    try {
        return (
            <div class="json">
                <Value name={null} value={JSON.parse(decode(content.value.bytes, false).text)} isOpen />
            </div>
        );
    } catch (error) {
        return <p>This is not JSON: {visible((error as Error).message)}</p>;
    }
}

function Value({ name, value, isOpen = false }: { name: string | null; value: unknown; isOpen?: boolean }) {
    const open = useSignal(isOpen);
    const most = useSignal(MOST);
    const label = name === null ? null : <span class="hljs-attr">{visible(name)}: </span>;
    if (typeof value !== 'object' || value === null) {
        const kind = typeof value === 'string' ? 'hljs-string' : typeof value === 'number' ? 'hljs-number' : 'hljs-literal';
        return (
            <div class="leaf">
                {label}
                <span class={kind}>{visible(JSON.stringify(value))}</span>
            </div>
        );
    }
    const members = Object.entries(value);
    const what = Array.isArray(value) ? `[${counted(members.length, 'element')}]` : `{${counted(members.length, 'member')}}`;
    return (
        <details open={open.value} onToggle={(event) => (open.value = event.currentTarget.open)}>
            <summary>
                {label}
                <span class="what">{what}</span>
            </summary>
            {open.value && members.slice(0, most.value).map(([key, member]) => <Value key={key} name={key} value={member} />)}
            {open.value && members.length > most.value && (
                <button type="button" onClick={() => (most.value += MOST)}>
                    {members.length - most.value} more
                </button>
            )}
        </details>
    );
}
