/** Two layers' versions of a file, line by line. */
import { bytes } from '../format';
import { usePromised } from '../promised';
import { go, route } from '../route';
import { engine } from '../session';
import { Failed, Waiting } from '../states';
import { ContentDifference } from './hunks';

export function Compare({ path }: { path: string }) {
    const current = engine.value;
    const { view, compare } = route.value;
    const details = usePromised(current ? () => current.details(view, path) : null, [current, view, path]);
    const versions = (details.value?.versions ?? []).filter(({ kind, removed }) => kind === 'regular' && !removed);
    const [from, to] = compare ?? [versions.at(-2)?.layer, versions.at(-1)?.layer];
    const isReady = current !== null && from !== undefined && to !== undefined;
    if (details.problem) return <Failed problem={details.problem} again={details.again} />;
    if (!details.value) return <Waiting what="Looking" />;
    if (!isReady) return <p>Only one layer has this file: there is nothing to compare it with.</p>;
    const choose = (which: 0 | 1) => (event: Event) => {
        const layer = Number((event.currentTarget as HTMLSelectElement).value);
        go({ compare: which === 0 ? [layer, to] : [from, layer], tab: 'compare' }, true);
    };
    const select = (label: string, which: 0 | 1, value: number) => (
        <label>
            {label}{' '}
            <select value={value} onChange={choose(which)}>
                {versions.map(({ layer, size }) => (
                    <option key={layer} value={layer}>
                        layer {layer + 1}, {bytes(size)}
                    </option>
                ))}
            </select>
        </label>
    );
    return (
        <>
            <div class="tools">
                {select('From', 0, from)}
                {select('to', 1, to)}
            </div>
            <ContentDifference path={path} before={{ engine: current, view: from }} after={{ engine: current, view: to }} />
        </>
    );
}
