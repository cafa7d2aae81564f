/** The open image against another one: which paths were added, removed and changed. */
import { useSignal } from '@preact/signals';
import type { OpenImage } from '../api';
import { deviations, type Deviation, type Pair, type Totals } from '../comparison';
import { base, parent } from '../engine/paths';
import { isFile } from '../reference';
import { Choices } from './choices';
import { ChooseOther } from './choose-other';
import { MOST_LISTED, saveReport, useComparison } from './comparing';
import { visible } from './escape';
import { bytes, count, counted, short } from './format';
import { State } from './layers';
import { afresh, go, route, start } from './route';
import { engine, image, layers, other, retryOther, settling } from './session';
import { useShown } from './shown-pairs';
import { Sides } from './sides';
import { Failed, Waiting } from './states';
import { toggled } from './toggled';

export function Against() {
    const { other: wanted } = route.value;
    const [before, after] = [other.image.value, image.value];
    if (!wanted) return <ChooseOther />;
    const refused = other.refused.value;
    if (refused?.kind === 'file') {
        return (
            <>
                <p class="alarm" role="alert">
                    {visible(refused.message)}
                </p>
                <ChooseOther />
            </>
        );
    }
    if (refused) {
        return (
            <Failed problem={refused} again={retryOther}>
                {wanted.platform && (
                    <button type="button" onClick={() => go({ other: { ...wanted, platform: null } })}>
                        Take the platform that it has first
                    </button>
                )}
                <Another />
            </Failed>
        );
    }
    if (other.opening.value || other.settling.value || settling.value || !before || !after) return <Waiting what="Reading the tables of contents of both" />;
    return <Compared before={before} after={after} key={`${before.digest} ${after.digest}`} />;
}

function Another() {
    return (
        <button type="button" onClick={() => go({ other: null })}>
            Choose another
        </button>
    );
}

function Compared({ before, after }: { before: OpenImage; after: OpenImage }) {
    const { pairs, totals, isDone, problem: why } = useComparison();
    const hidden = useSignal<ReadonlySet<Deviation>>(new Set(['time-only']));
    const filter = useSignal('');
    const isBySize = useSignal(false);
    const toggle = (deviation: Deviation): void => void (hidden.value = toggled(hidden.value, deviation));
    const { shown, wrong } = useShown(pairs, { hidden: hidden.value, filter: filter.value, isBySize: isBySize.value });
    const swap = (): void => {
        const { place, tag, platform, other: from, path } = route.value;
        if (place && from) go({ ...start, ...from, path, panel: 'against', other: { place, tag, platform } });
    };
    return (
        <div class="list against">
            <div class="tools">
                <Sides before={before} after={after} />
                <span class="actions">
                    <button type="button" onClick={swap}>
                        Swap
                    </button>
                    <Another />
                    <button type="button" disabled={!isDone} onClick={() => void saveReport(before, after)}>
                        Save as JSON
                    </button>
                </span>
            </div>
            <Closed />
            {totals && <Sums totals={totals} hidden={hidden.value} toggle={toggle} isDone={isDone} />}
            <div class="tools">
                <input
                    type="search"
                    aria-label="Filter paths"
                    aria-invalid={wrong !== null}
                    placeholder="Filter: words, *.so, size>1M, type:link"
                    value={filter.value}
                    spellcheck={false}
                    onInput={({ currentTarget: { value } }) => (filter.value = value)}
                />
                <label>
                    <input type="checkbox" checked={isBySize.value} onChange={() => (isBySize.value = !isBySize.value)} /> Largest change first
                </label>
                <span>{wrong ? visible(wrong) : counted(shown.length, 'path')}</span>
                {totals && pairs.length >= MOST_LISTED && <span>of the first {count(pairs.length)}; the report has all</span>}
            </div>
            {why ? why.kind !== 'not-lazy' && <Failed problem={why} /> : !totals ? <Waiting what="Comparing" /> : isDone && pairs.length === 0 ? <p class="empty">Both have the same files.</p> : <Pairs pairs={shown} />}
        </div>
    );
}

function Pairs({ pairs }: { pairs: Pair[] }) {
    return (
        <Choices
            items={pairs}
            label="Paths that differ"
            className="pairs"
            rowClass={({ deviation }) => deviation}
            isSelected={({ path }) => path === route.value.path}
            choose={({ path }) => go({ path, view: 'merged', ...afresh })}
        >
            {(pair) => (
                <>
                    <span class={`mark ${pair.deviation}`}>{pair.deviation}</span>
                    <span class="text" title={visible(pair.path)}>
                        <span class="directory">{visible(parent(pair.path).replace(/\/?$/, '/'))}</span>
                        <span>
                            {visible(base(pair.path))}
                            {(pair.after ?? pair.before)?.kind === 'directory' && '/'}
                        </span>
                    </span>
                    <span class="size">{sizesOf(pair)}</span>
                </>
            )}
        </Choices>
    );
}

function Sums({ totals, hidden, toggle, isDone }: { totals: Totals; hidden: ReadonlySet<Deviation>; toggle(deviation: Deviation): void; isDone: boolean }) {
    const grown = totals.after - totals.before;
    return (
        <div class="tools" role="group" aria-label="Kinds of difference">
            {deviations
                .filter((deviation) => totals.counts[deviation] > 0)
                .map((deviation) => {
                    const { before, after } = totals.sizes[deviation];
                    const sizes = deviation === 'added' ? bytes(after) : before === after || deviation === 'removed' ? bytes(before) : `${bytes(before)} → ${bytes(after)}`;
                    return (
                        <label key={deviation} class={`mark ${deviation}`}>
                            <input type="checkbox" checked={!hidden.has(deviation)} onChange={() => toggle(deviation)} /> {count(totals.counts[deviation])} {deviation}, {sizes}
                        </label>
                    );
                })}
            <span>
                {count(totals.same)} the same; {bytes(totals.before)} → {bytes(totals.after)}
                {grown !== 0 && ` (${grown < 0 ? '−' : '+'}${bytes(Math.abs(grown))})`}
                {!isDone && ', still comparing…'}
            </span>
        </div>
    );
}

/** Layers whose files are not compared, since they are not lazy, or failed. */
function Closed() {
    const sides = [
        { name: 'The other image', opened: other.image.value, closed: other.layers.value, of: other.engine.value },
        { name: 'This image', opened: image.value, closed: layers.value, of: engine.value },
    ].map(({ closed, ...side }) => ({ ...side, closed: closed.filter(({ state }) => state !== 'open') }));
    if (sides.every(({ closed }) => closed.length === 0)) return null;
    return (
        <ul class="closed-layers">
            {sides.flatMap(({ name, opened, closed, of }) =>
                closed.map((layer) => (
                    <li key={`${name} ${layer.index}`}>
                        <span>
                            {name} is compared without its layer {layer.index + 1} <code>{short(layer.digest)}</code>.
                        </span>{' '}
                        <State layer={layer} of={of} isLocal={opened !== null && isFile(opened.place)} />
                    </li>
                )),
            )}
        </ul>
    );
}

function sizesOf({ before, after }: Pair): string {
    const files = [before, after].filter((object) => object?.kind === 'regular');
    if (files.length === 0) return '';
    if (files.length === 2 && before?.size !== after?.size) return `${bytes(before?.size ?? 0)} → ${bytes(after?.size ?? 0)}`;
    return bytes(files[0]?.size ?? 0);
}
