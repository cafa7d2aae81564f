/** What is selected: a file in the way that fits its content, a directory, a link. */
import { useComputed } from '@preact/signals';
import type { Row } from '../../api';
import { isFile } from '../../reference';
import { copy } from '../clipboard';
import { download } from '../download';
import { visible } from '../escape';
import { bytes, kindNames } from '../format';
import { Icon } from '../icon';
import { usePromised } from '../promised';
import { go, link, route, type Tab } from '../route';
import { select, selected } from '../selection';
import { engine, generation, meter, settling, sizes } from '../session';
import { Failed, Waiting } from '../states';
import { Badge } from '../trust';
import { Both } from './both';
import { Compare } from './compare';
import { Details } from './details';
import { Elf } from './elf';
import { Hex } from './hex';
import { Json } from './json';
import { Pe } from './pe';
import { Pem } from './pem';
import { Picture } from './picture';
import { sniff } from './sniff';
import { Text } from './text';

/** Bytes that are read to see what a file is. */
const HEAD = 4096;

const names: Record<Tab, string> = {
    text: 'Text',
    json: 'JSON',
    picture: 'Picture',
    elf: 'ELF',
    pe: 'PE',
    pem: 'PEM',
    hex: 'Hex',
    details: 'Details',
    compare: 'Compare',
};

export function Preview() {
    const { panel, path, other } = route.value;
    if (panel !== 'against' || !other) return <One />;
    return (
        <section class="preview" aria-label="Preview">
            <Both path={path} />
        </section>
    );
}

function One() {
    const at = useComputed(() => `${route.value.view} ${route.value.path}`);
    const { path, view } = route.value;
    const current = engine.value;
    const isReady = current !== null && !(view === 'merged' && settling.value);
    const found = usePromised(isReady ? () => current.stat(view, path, false) : null, [isReady, at.value, generation.value], sizes.value.get(view));
    if (found.problem) {
        return (
            <section class="preview" aria-label="Preview">
                <Failed problem={found.problem.kind === 'not-found' ? { ...found.problem, message: `${visible(path)}: there is no such file in this tree` } : found.problem} again={found.again} />
            </section>
        );
    }
    if (!found.value) {
        return (
            <section class="preview" aria-label="Preview">
                <Waiting what="Looking" />
            </section>
        );
    }
    return (
        <section class="preview" aria-label="Preview">
            <Head row={found.value} />
            {found.value.kind === 'regular' ? <File row={found.value} key={at.value} /> : <Other row={found.value} key={at.value} />}
        </section>
    );
}

function Head({ row }: { row: Row }) {
    const isDirectory = row.kind === 'directory';
    return (
        <header class="head">
            <h2>
                <Icon of={row} />
                <span class="path">{visible(row.path)}</span>
            </h2>
            <div class="actions">
                {row.kind === 'regular' && (
                    <button type="button" onClick={() => void download(row, false)}>
                        Download ({bytes(row.size ?? 0)})
                    </button>
                )}
                {row.kind !== 'whiteout' && (
                    <button type="button" onClick={() => void download(row, true)}>
                        {isDirectory ? 'Download as tar' : 'As tar'}
                    </button>
                )}
                {route.value.panel === 'files' && row.path !== '/' && (
                    <button type="button" onClick={() => select(row)}>
                        {selected.value.has(row.path) ? '✓ Selected' : 'Select'}
                    </button>
                )}
                <CopyLink />
            </div>
        </header>
    );
}

function CopyLink() {
    return (
        <button type="button" onClick={copyLink}>
            Copy link
        </button>
    );
}

export function copyLink(): void {
    const { place } = route.value;
    copy(location.href, place && isFile(place) ? 'Link copied: it works in this page only, for it cannot bring the file' : 'Link copied');
}

/** What is no file. */
function Other({ row }: { row: Row }) {
    return (
        <div class="pane">
            {row.kind === 'symlink' && (
                <p class="link">
                    Points to <code>{visible(row.target ?? '')}</code>,{' '}
                    {row.resolved === null ? (
                        'where there is nothing.'
                    ) : (
                        <>
                            which is <a href={link({ path: row.resolved, tab: null })}>{visible(row.resolved)}</a>.
                        </>
                    )}
                </p>
            )}
            {row.kind === 'whiteout' && (
                <p>
                    This layer deletes the name: {row.hides ? `${row.hides} paths of the layers below are hidden by it.` : 'nothing below it is hidden by it.'}
                </p>
            )}
            {row.kind === 'directory' && <p>{row.size === null ? 'Sizes are being added up.' : `${bytes(row.size)} in all that is below it.`}</p>}
            {!['symlink', 'whiteout', 'directory'].includes(row.kind) && <p>A {kindNames[row.kind]}, which has no content.</p>}
            <Details path={row.path} assurance={null} />
        </div>
    );
}

function File({ row }: { row: Row }) {
    const { view, path, tab: chosen } = route.value;
    const current = engine.value;
    const size = row.size ?? 0;
    const head = usePromised(current ? () => current.read(view, path, 0, HEAD) : null, [current, view, path]);
    const rest = usePromised(current ? () => current.estimate(view, path, 0, size) : null, [current, view, path], meter.value?.fetched);
    if (head.problem) return <Failed problem={head.problem} again={head.again} />;
    if (!head.value) return <Waiting what="Fetching the first bytes" />;
    const sniffed = sniff(head.value.bytes, row.name, size);
    const tabs: Tab[] = [...sniffed.tabs, 'compare'];
    const tab = chosen && tabs.includes(chosen) ? chosen : (tabs[0] ?? 'hex');
    return (
        <>
            <div class="about">
                <span>
                    {sniffed.type}, {bytes(size)}
                    {rest.value ? `; all of it takes ${bytes(rest.value)} more` : ''}
                </span>
                <Badge assurance={head.value.assurance} />
            </div>
            <Tabs tabs={tabs} tab={tab} />
            <div class={`pane ${tab}`} role="tabpanel" id="panel" aria-labelledby={`tab-${tab}`} tabIndex={0}>
                {tab === 'text' && <Text row={row} />}
                {tab === 'json' && <Json row={row} />}
                {tab === 'picture' && <Picture row={row} media={sniffed.picture ?? ''} />}
                {tab === 'elf' && <Elf row={row} />}
                {tab === 'pe' && <Pe row={row} />}
                {tab === 'pem' && <Pem row={row} />}
                {tab === 'hex' && <Hex row={row} />}
                {tab === 'details' && <Details path={path} assurance={head.value.assurance} />}
                {tab === 'compare' && <Compare path={path} />}
            </div>
        </>
    );
}

function Tabs({ tabs, tab }: { tabs: Tab[]; tab: Tab }) {
    const move = (event: KeyboardEvent): void => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
        if (next) go({ tab: next }, true);
        event.preventDefault();
        requestAnimationFrame(() => document.getElementById(`tab-${next}`)?.focus());
    };
    return (
        <div class="tabs" role="tablist" aria-label="Ways to show the file" onKeyDown={move}>
            {tabs.map((name) => (
                <button
                    type="button"
                    role="tab"
                    id={`tab-${name}`}
                    key={name}
                    aria-selected={name === tab}
                    aria-controls="panel"
                    tabIndex={name === tab ? 0 : -1}
                    onClick={() => go({ tab: name }, true)}
                >
                    {names[name]}
                </button>
            ))}
        </div>
    );
}

/** Shows the file in the next way. */
export function nextTab(): void {
    const buttons = [...document.querySelectorAll<HTMLButtonElement>('.tabs [role=tab]')];
    const at = buttons.findIndex((button) => button.getAttribute('aria-selected') === 'true');
    buttons[(at + 1) % buttons.length]?.click();
}
