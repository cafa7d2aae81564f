import type { Row } from '../../api';
import { visible } from '../escape';
import { Failed, Waiting } from '../states';
import { elf } from './elf-file';
import { Sections, useHeaders } from './sections';

/** What an ELF file is, needs and consists of. */
export function Elf({ row }: { row: Row }) {
    const facts = useHeaders(row.path, elf);
    if (facts.problem) return <Failed problem={facts.problem} again={facts.again} />;
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
            <Sections about="Type" sections={value.sections.map(({ type, ...section }) => ({ ...section, about: type }))} />
        </div>
    );
}
