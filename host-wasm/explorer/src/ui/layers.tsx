/** The layers of the image, the top one first as people think of them, and the merged tree above. */
import { proxy } from 'comlink';
import { useSignal } from '@preact/signals';
import type { LayerFacts, Meter, Progress } from '../api';
import { bytes, count, counted, percent, short } from './format';
import { visible } from './escape';
import { say } from './live';
import { go, link, route } from './route';
import { isFile } from '../reference';
import { engine, image, layers, meter, problem } from './session';
import { Badge } from './trust';

export function Layers() {
    const { view } = route.value;
    const all = layers.value;
    const rows = [...all].reverse();
    return (
        <nav class="layers" aria-label="Layers">
            <ul>
                <li class={view === 'merged' ? 'current' : ''}>
                    <a href={link({ view: 'merged' })} aria-current={view === 'merged' ? 'true' : undefined} onClick={pick('merged')}>
                        <strong>All layers</strong>
                        <span class="facts">
                            {counted(all.length, 'layer')}, {bytes(all.reduce((sum, { size }) => sum + size, 0))}: what a container sees
                        </span>
                    </a>
                </li>
                {rows.map((layer) => (
                    <Layer key={layer.index} layer={layer} isCurrent={view === layer.index} meter={meter.value} />
                ))}
            </ul>
        </nav>
    );
}

const pick = (view: 'merged' | number) => (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go({ view });
};

function Layer({ layer, isCurrent, meter }: { layer: LayerFacts; isCurrent: boolean; meter: Meter | null }) {
    const { index, state, changes } = layer;
    const canShow = state === 'open';
    const head = (
        <>
            <strong>
                {index + 1} <span class="command">{visible(command(layer.command)) || <i>no command</i>}</span>
            </strong>
            <span class="facts">
                <code>{short(layer.digest)}</code> {bytes(layer.size)}
                {canShow && `, ${counted(layer.entries, 'entry', 'entries')}`}
            </span>
            {changes && (
                <span class="changes">
                    {(['added', 'modified', 'metadata-only', 'duplicated', 'removed'] as const)
                        .filter((change) => changes[change] > 0)
                        .map((change) => (
                            <span class={`mark ${change}`} key={change}>
                                {count(changes[change])} {change}
                            </span>
                        ))}
                </span>
            )}
        </>
    );
    return (
        <li class={`${isCurrent ? 'current ' : ''}${state}`} title={visible(layer.command)}>
            {canShow ? (
                <a href={link({ view: index })} aria-current={isCurrent ? 'true' : undefined} onClick={pick(index)}>
                    {head}
                </a>
            ) : (
                <div class="closed">{head}</div>
            )}
            <State layer={layer} isLocal={image.value !== null && isFile(image.value.place)} />
            {canShow && isCurrent && layer.format !== 'tar' && <Check layer={layer} key={layer.index} />}
            <Heat layer={layer} touched={meter?.touched[index] ?? []} />
        </li>
    );
}

/** How far a layer is, and what can be done about it. */
export function State({ layer, of = engine.value, isLocal }: { layer: LayerFacts; of?: typeof engine.value; isLocal: boolean }) {
    const start = (): void => {
        of?.download(layer.index).catch((thrown: unknown) => say(problem(thrown).message));
    };
    switch (layer.state) {
        case 'open':
            return <Badge assurance={layer.assurance} format={layer.format} />;
        case 'opening':
            return <span class="state">opening…</span>;
        case 'downloading':
            return (
                <span class="state">
                    <progress value={layer.progress} max={layer.size} aria-label={`Download of layer ${layer.index + 1}`} />{' '}
                    {percent(layer.progress, layer.size)}
                </span>
            );
        case 'ordinary':
            return (
                <span class="state">
                    <span class="why">Not lazy: it has no table of contents.</span>
                    <button type="button" onClick={start}>
                        {isLocal ? 'Read' : 'Download'} and index ({bytes(layer.size)})
                    </button>
                </span>
            );
        case 'failed':
            return (
                <span class="state problem" role="alert">
                    {visible(layer.problem?.message ?? 'failed')}{' '}
                    <button type="button" onClick={() => void of?.reopen(layer.index)}>
                        Try again
                    </button>
                </span>
            );
    }
}

/** Reads all of a layer, to see whether it is what it should be. */
function Check({ layer: { index, size } }: { layer: LayerFacts }) {
    const progress = useSignal<Progress | null>(null);
    const answer = useSignal<string | null>(null);
    const check = async (): Promise<void> => {
        progress.value = { done: 0, total: size };
        try {
            await engine.value?.verify(index, proxy((now: Progress) => void (progress.value = now)));
            answer.value = 'Every byte was checked.';
        } catch (thrown) {
            answer.value = problem(thrown).message;
        }
        progress.value = null;
        say(answer.value);
    };
    if (answer.value) return <span class="state">{visible(answer.value)}</span>;
    const { value } = progress;
    return (
        <span class="state">
            {value ? (
                <>
                    <progress value={value.done} max={value.total} aria-label={`Check of layer ${index + 1}`} /> {percent(value.done, value.total)}
                </>
            ) : (
                <button type="button" onClick={() => void check()}>
                    Check all of it ({bytes(size)})
                </button>
            )}
        </span>
    );
}

/** Which parts of the blob were fetched. */
function Heat({ layer, touched }: { layer: LayerFacts; touched: [number, number][] }) {
    const sum = touched.reduce((sum, [, length]) => sum + length, 0);
    const share = percent(sum, layer.size);
    return (
        <svg class="heat" viewBox="0 0 1000 1" preserveAspectRatio="none" role="img" aria-label={`${share} of this layer was fetched`}>
            <title>
                {bytes(sum)} of {bytes(layer.size)} fetched ({share})
            </title>
            {touched.map(([offset, length]) => (
                <rect
                    key={offset}
                    x={(offset / layer.size) * 1000}
                    width={Math.max(3, (length / layer.size) * 1000)}
                    height="1"
                />
            ))}
        </svg>
    );
}

/** Without what every command of a builder has around it. */
function command(text: string): string {
    return text
        .replace(/^\/bin\/sh -c #\(nop\)\s*/, '')
        .replace(/^\/bin\/sh -c /, 'RUN ')
        .replace(/\s*# buildkit$/, '')
        .replace(/\s+/g, ' ')
        .trim();
}
