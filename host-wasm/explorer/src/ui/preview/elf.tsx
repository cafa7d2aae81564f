import type { Row } from '../../api';
import { visible } from '../escape';
import { elf } from './elf-file';
import { Headers, Sections } from './sections';

/** What an ELF file is, needs and consists of. */
export function Elf({ row }: { row: Row }) {
    return (
        <Headers path={row.path} parse={elf}>
            {(value) => (
                <>
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
                </>
            )}
        </Headers>
    );
}
