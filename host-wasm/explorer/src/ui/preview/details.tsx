/** All that is known of an object beside its content. */
import { useSignal } from '@preact/signals';
import type { Assurance, Details as Facts } from '../../api';
import { hex } from '../../engine/bytes';
import { Commands, pathCommands } from '../commands';
import { visible } from '../escape';
import { bytes, counted, kindNames, mode, short, time } from '../format';
import { usePromised } from '../promised';
import { link, route } from '../route';
import { engine, generation } from '../session';
import { Failed, Waiting } from '../states';
import { Chain } from '../trust';

/** Chunks that are listed at once. */
const MOST = 50;

export function Details({ path, assurance }: { path: string; assurance: Assurance | null }) {
    const { view } = route.value;
    const current = engine.value;
    const details = usePromised(current ? () => current.details(view, path) : null, [current, view, path, generation.value]);
    if (details.problem) return <Failed problem={details.problem} again={details.again} />;
    if (!details.value) return <Waiting what="Looking" />;
    const { row, xattrs, versions, hardLinks, packageOwner, packageCost } = details.value;
    return (
        <div class="details">
            <dl class="facts">
                <dt>Kind</dt>
                <dd>{kindNames[row.kind]}</dd>
                {row.kind === 'regular' && (
                    <>
                        <dt>Size</dt>
                        <dd>{counted(row.size ?? 0, 'byte')}</dd>
                    </>
                )}
                <dt>Mode</dt>
                <dd>
                    <code>{mode(row)}</code> {row.mode.toString(8).padStart(4, '0')}
                </dd>
                <dt>Owner</dt>
                <dd>
                    user {row.uid}, group {row.gid}
                </dd>
                <dt>Modified</dt>
                <dd>{time(row.modified)} UTC</dd>
                <dt>From</dt>
                <dd>
                    layer <a href={link({ view: row.layer })}>{row.layer + 1}</a>
                </dd>
                <Package path={row.path} owner={packageOwner} cost={packageCost} />
                {hardLinks.length > 0 && (
                    <>
                        <dt>Other names</dt>
                        <dd>
                            {hardLinks.slice(0, MOST).map((name) => (
                                <a key={name} href={link({ path: name })}>
                                    {visible(name)}
                                </a>
                            ))}
                        </dd>
                    </>
                )}
                {xattrs.map(({ name, value }) => (
                    <>
                        <dt key={name}>
                            <code>{visible(name)}</code>
                        </dt>
                        <dd>
                            <code>{attribute(value)}</code>
                        </dd>
                    </>
                ))}
            </dl>
            <Chain layer={row.layer} bytes={assurance} />
            {versions.length > 1 && (
                <>
                    <h3>In layers</h3>
                    <ul class="versions">
                        {versions.map((version) => (
                            <li key={version.layer}>
                                <a href={link({ view: version.layer })}>layer {version.layer + 1}</a>:{' '}
                                {version.removed ? 'removed' : `${kindNames[version.kind]}, ${bytes(version.size)}`}
                            </li>
                        ))}
                    </ul>
                </>
            )}
            <Commands commands={pathCommands(row)} />
            <Chunks chunks={details.value.chunks} />
        </div>
    );
}

/** The package that a file belongs to; where finding out fetches much, when it is asked for. */
function Package({ path, owner, cost }: { path: string; owner: string | null | undefined; cost: number | undefined }) {
    const isWanted = useSignal(false);
    const current = engine.value;
    const found = usePromised(isWanted.value && current ? () => current.packageOf(path) : null, [current, path, isWanted.value]);
    if (!owner && cost === undefined) return null;
    const answer = owner ?? found.value;
    return (
        <>
            <dt>Package</dt>
            <dd>
                {answer ? visible(answer) : found.problem ? visible(found.problem.message) : !isWanted.value ? (
                    <button type="button" onClick={() => (isWanted.value = true)}>
                        Find out (fetches up to {bytes(cost ?? 0)})
                    </button>
                ) : found.isWaiting ? 'Looking…' : 'none'}
            </dd>
        </>
    );
}

function Chunks({ chunks }: { chunks: Facts['chunks'] }) {
    const most = useSignal(MOST);
    if (chunks.length === 0) return null;
    return (
        <table class="chunks">
            <caption>{counted(chunks.length, 'chunk')}, each checked by itself</caption>
            <thead>
                <tr>
                    <th scope="col" class="number">
                        Offset
                    </th>
                    <th scope="col" class="number">
                        Length
                    </th>
                    <th scope="col">In the blob</th>
                    <th scope="col">SHA-256</th>
                </tr>
            </thead>
            <tbody>
                {chunks.slice(0, most.value).map((chunk) => (
                    <tr key={chunk.offset}>
                        <td class="number">{chunk.offset}</td>
                        <td class="number">{bytes(chunk.length)}</td>
                        <td>{chunk.blobOffset === null ? 'zeros, not stored' : `${chunk.blobOffset} + ${chunk.blobLength}`}</td>
                        <td>
                            <code title={chunk.digest ?? ''}>{chunk.digest ? short(chunk.digest) : 'none'}</code>
                        </td>
                    </tr>
                ))}
            </tbody>
            {chunks.length > most.value && (
                <tfoot>
                    <tr>
                        <td colSpan={4}>
                            <button type="button" onClick={() => (most.value += 10 * MOST)}>
                                {chunks.length - most.value} more
                            </button>
                        </td>
                    </tr>
                </tfoot>
            )}
        </table>
    );
}

/** A value as text where it is text, otherwise in hexadecimal. */
function attribute(value: Uint8Array): string {
    try {
        const text = new TextDecoder('utf-8', { fatal: true }).decode(value).replace(/\0$/, '');
        if (!/[\u0000-\u001f]/.test(text)) return visible(text);
    } catch {
        // Not text.
    }
    return `0x${hex(value.subarray(0, 256))}`;
}
