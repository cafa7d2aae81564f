/** A path in two images: what is the same of it, what is not, and the lines that differ. */
import type { Listed } from '../../api';
import { sameContent } from '../../comparison';
import { visible } from '../escape';
import { counted, kindNames, mode, short, time } from '../format';
import { usePromised } from '../promised';
import { afresh, format, link, route, start } from '../route';
import { engine, generation, other } from '../session';
import { Failed, Waiting } from '../states';
import { ContentDifference, type Version } from './hunks';

export function Both({ path }: { path: string }) {
    const [before, after] = [other.engine.value, engine.value];
    const isReady = before !== null && after !== null && path !== '/';
    const found = usePromised(isReady ? () => Promise.all([before.listed(path), after.listed(path)]) : null, [before, after, path, other.generation.value, generation.value]);
    if (path === '/') return <p class="empty">Choose a path to see how it differs.</p>;
    if (found.problem) return <Failed problem={found.problem} again={found.again} />;
    if (!found.value || !isReady) return <Waiting what="Looking" />;
    const [one, next] = found.value;
    if (!one && !next) return <p class="empty">Neither image has {visible(path)}.</p>;
    return (
        <>
            <header class="head">
                <h2>
                    <span class="path">{visible(path)}</span>
                </h2>
                <Where before={one} after={next} path={path} />
            </header>
            <div class="pane compare">
                <Facts before={one} after={next} />
                {one?.kind === 'regular' && next?.kind === 'regular' && <Content path={path} before={{ engine: before, view: 'merged' }} after={{ engine: after, view: 'merged' }} isSame={sameContent(one, next)} />}
            </div>
        </>
    );
}

function Content({ isSame, ...versions }: { path: string; before: Version; after: Version; isSame: boolean }) {
    if (isSame) return <p>The content is the same, by its digest; nothing was fetched to see that.</p>;
    return <ContentDifference {...versions} />;
}

/** Links to the path in each image alone. */
function Where({ before, after, path }: { before: Listed | null; after: Listed | null; path: string }) {
    const { other: wanted } = route.value;
    return (
        <div class="actions">
            {before && wanted && <a href={format({ ...start, ...wanted, path })}>In the other image</a>}
            {after && <a href={link({ panel: 'files', ...afresh })}>In this image</a>}
        </div>
    );
}

function Facts({ before, after }: { before: Listed | null; after: Listed | null }) {
    const rows: [string, (object: Listed) => string][] = [
        ['Kind', ({ kind }) => kindNames[kind]],
        ['Size', ({ kind, size }) => (kind === 'regular' ? counted(size, 'byte') : '')],
        ['Content', ({ content }) => (content?.digest ? `${short(content.digest)}${content.cut ? ' (several chunks)' : ''}` : '')],
        ['Leads to', ({ leads }) => visible(leads ?? '')],
        ['Mode', (object) => mode(object)],
        ['Owner', ({ uid, gid }) => `user ${uid}, group ${gid}`],
        ['Modified', ({ modified }) => `${time(modified)} UTC`],
        ['Attributes', ({ xattrs }) => (xattrs ? short(xattrs) : '')],
        ['Layer', ({ layer }) => String(layer + 1)],
    ];
    const written = rows
        .map(([name, write]) => ({ name, before: before ? write(before) : '–', after: after ? write(after) : '–' }))
        .filter(({ before, after }) => ![before, after].every((text) => text === '' || text === '–'));
    return (
        <table class="both">
            <thead>
                <tr>
                    <td />
                    <th scope="col">{before ? 'Other image' : 'Not in the other image'}</th>
                    <th scope="col">{after ? 'This image' : 'Not in this image'}</th>
                </tr>
            </thead>
            <tbody>
                {written.map(({ name, before: was, after: is }) => {
                    const differs = before !== null && after !== null && was !== is && name !== 'Layer';
                    return (
                        <tr key={name} class={differs ? 'differs' : ''}>
                            <th scope="row">
                                {name}
                                {differs && <span class="sign"> ≠</span>}
                            </th>
                            <td>{was}</td>
                            <td>{is}</td>
                        </tr>
                    );
                })}
            </tbody>
        </table>
    );
}
