import type { Row } from '../../api';
import { visible } from '../escape';
import { pe } from './pe-file';
import { Headers, Sections } from './sections';

/** What a PE file is, needs and consists of. */
export function Pe({ row }: { row: Row }) {
    return (
        <Headers path={row.path} parse={pe}>
            {(value) => (
                <>
                    <dl class="facts">
                        <dt>Kind</dt>
                        <dd>
                            {value.type}, {value.machine}, {value.width}
                            {value.isManaged && ', for .NET'}
                        </dd>
                        <dt>Runs in</dt>
                        <dd>{value.subsystem}</dd>
                        <dt>Entry point</dt>
                        <dd>
                            <code>0x{value.entry.toString(16)}</code>
                        </dd>
                        <dt>Signature</dt>
                        <dd>{value.isSigned ? 'has one, which is not checked here' : 'none'}</dd>
                        <dt>Needs</dt>
                        <dd>{value.imports.length ? value.imports.map((name) => <code key={name}>{visible(name)} </code>) : 'no libraries'}</dd>
                    </dl>
                    <Sections about="May be" sections={value.sections.map(({ flags, ...section }) => ({ ...section, about: flags }))} />
                </>
            )}
        </Headers>
    );
}
