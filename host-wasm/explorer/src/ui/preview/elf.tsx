import type { Row } from '../../api';
import { visible } from '../escape';
import { bytes, counted } from '../format';
import { usePromised } from '../promised';
import { route } from '../route';
import { engine } from '../session';
import { Failed, Waiting } from '../states';
import { elf } from './elf-file';

/** What an ELF file is, needs and consists of. */
export function Elf({ row }: { row: Row }) {
    const { view } = route.value;
    const current = engine.value;
    const read = async (offset: number, length: number): Promise<Uint8Array> =>
        length > 0 && current ? (await current.read(view, row.path, offset, length)).bytes : new Uint8Array();
    const facts = usePromised(() => elf(read), [current, view, row.path]);
    if (facts.problem) return <Failed problem={{ ...facts.problem, kind: facts.problem.kind === 'internal' ? 'malformed' : facts.problem.kind }} again={facts.again} />;
    if (!facts.value) return <Waiting what="Reading headers and tables" />;
    const { value } = facts;
    return (
        <div class="elf">
            <dl class="facts">
                <dt>Kind</dt>
                <dd>
                    {value.type}, {value.machine}, {value.class}
                    {value.isStripped ? ', stripped' : ''}
                </dd>
                <dt>Entry point</dt>
                <dd>
                    <code>0x{value.entry.toString(16)}</code>
                </dd>
                <dt>Interpreter</dt>
                <dd>{value.interpreter ? <code>{visible(value.interpreter)}</code> : 'none: statically linked, or a library'}</dd>
                {value.soname && (
                    <>
                        <dt>Soname</dt>
                        <dd>
                            <code>{visible(value.soname)}</code>
                        </dd>
                    </>
                )}
                <dt>Needs</dt>
                <dd>{value.needed.length ? value.needed.map((name) => <code key={name}>{visible(name)} </code>) : 'no other libraries'}</dd>
                {value.runpath && (
                    <>
                        <dt>Search path</dt>
                        <dd>
                            <code>{visible(value.runpath)}</code>
                        </dd>
                    </>
                )}
                {value.buildId && (
                    <>
                        <dt>Build ID</dt>
                        <dd>
                            <code>{value.buildId}</code>
                        </dd>
                    </>
                )}
            </dl>
            <table>
                <caption>{counted(value.sections.length, 'section')}</caption>
                <thead>
                    <tr>
                        <th scope="col">Section</th>
                        <th scope="col">Type</th>
                        <th scope="col" class="number">
                            Offset
                        </th>
                        <th scope="col" class="number">
                            Size
                        </th>
                    </tr>
                </thead>
                <tbody>
                    {value.sections.map((section, index) => (
                        <tr key={index}>
                            <th scope="row">
                                <code>{visible(section.name)}</code>
                            </th>
                            <td>{section.type}</td>
                            <td class="number">0x{section.offset.toString(16)}</td>
                            <td class="number">{bytes(section.size)}</td>
                        </tr>
                    ))}
                </tbody>
            </table>
        </div>
    );
}
