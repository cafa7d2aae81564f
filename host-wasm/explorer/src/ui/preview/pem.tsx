import { useSignal } from '@preact/signals';
import type { Row } from '../../api';
import { visible } from '../escape';
import { bytes, counted, time } from '../format';
import { Failed, Waiting } from '../states';
import { MOST_TEXT, useContent } from './content';
import { pem } from './pem-file';
import { decode } from './sniff';

/** Blocks that are listed at once. */
const MOST = 200;

/** What a file of keys and certificates holds. */
export function Pem({ row }: { row: Row }) {
    const content = useContent(row, MOST_TEXT);
    const most = useSignal(MOST);
    if (content.problem) return <Failed problem={content.problem} again={content.again} />;
    if (!content.value) return <Waiting what="Fetching" />;
    const blocks = pem(decode(content.value.bytes, true).text);
    const now = new Date();
    const day = (date: Date): string => time(date.getTime() / 1000).slice(0, 10);
    return (
        <>
            {(row.size ?? 0) > MOST_TEXT && <p>Of the first {bytes(MOST_TEXT)}:</p>}
            <table class="pems">
                <caption>{counted(blocks.length, 'block')}; whether they are genuine is not checked</caption>
                <thead>
                    <tr>
                        <th scope="col">Type</th>
                        <th scope="col" class="number">
                            Size
                        </th>
                        <th scope="col">Of</th>
                        <th scope="col">Good until</th>
                    </tr>
                </thead>
                <tbody>
                    {blocks.slice(0, most.value).map(({ label, size, certificate }, index) => (
                        <tr key={index}>
                            <th scope="row">{label.toLowerCase()}</th>
                            <td class="number">{size === null ? 'damaged' : bytes(size)}</td>
                            <td>
                                {certificate && visible(certificate.subject)}
                                {certificate && certificate.issuer !== certificate.subject && <small> by {visible(certificate.issuer)}</small>}
                            </td>
                            <td>
                                {certificate && day(certificate.until)}
                                {certificate && certificate.until < now && <span class="mark removed">expired</span>}
                                {certificate && certificate.from > now && <span class="mark modified">from {day(certificate.from)}</span>}
                            </td>
                        </tr>
                    ))}
                </tbody>
            </table>
            {blocks.length > most.value && (
                <button type="button" onClick={() => (most.value += MOST)}>
                    {blocks.length - most.value} more
                </button>
            )}
        </>
    );
}
