import type { ComponentChildren } from 'preact';
import { visible } from '../escape';
import { bytes, counted } from '../format';
import { usePromised } from '../promised';
import { route } from '../route';
import { engine } from '../session';
import { Failed, Waiting } from '../states';

/** Gives bytes of a file; fewer when it ends before. */
export type Read = (offset: number, length: number) => Promise<Uint8Array>;

/** Reads the headers of a program, and shows what they say; what is wrong with them is the image's fault. */
export function Headers<T>({ path, parse, children }: { path: string; parse(read: Read): Promise<T>; children(facts: T): ComponentChildren }) {
    const { view } = route.value;
    const current = engine.value;
    const read: Read = async (offset, length) => (length > 0 && current ? (await current.read(view, path, offset, length)).bytes : new Uint8Array());
    const facts = usePromised(() => parse(read), [current, view, path]);
    const { problem } = facts;
    if (problem) return <Failed problem={problem.kind === 'internal' ? { ...problem, kind: 'malformed' } : problem} again={facts.again} />;
    return facts.value ? children(facts.value) : <Waiting what="Reading headers and tables" />;
}

/** The sections of a program. */
export function Sections({ sections, about }: { sections: { name: string; about: string; offset: number; size: number }[]; about: string }) {
    return (
        <table>
            <caption>{counted(sections.length, 'section')}</caption>
            <thead>
                <tr>
                    <th scope="col">Section</th>
                    <th scope="col">{about}</th>
                    <th scope="col" class="number">
                        Offset
                    </th>
                    <th scope="col" class="number">
                        Size
                    </th>
                </tr>
            </thead>
            <tbody>
                {sections.map((section, index) => (
                    <tr key={index}>
                        <th scope="row">
                            <code>{visible(section.name)}</code>
                        </th>
                        <td>{section.about}</td>
                        <td class="number">0x{section.offset.toString(16)}</td>
                        <td class="number">{bytes(section.size)}</td>
                    </tr>
                ))}
            </tbody>
        </table>
    );
}
