/** The page: image bar, layers, tree, preview, meter. */
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';
import { Against } from './against';
import { Asking } from './asking';
import { Changes } from './changes';
import { EfficiencyPanel } from './efficiency';
import { visible } from './escape';
import { Files } from './files';
import { Help, helping } from './help';
import { ImageFacts } from './image-facts';
import { Layers } from './layers';
import { announcement } from './live';
import { MeterBar } from './meter';
import { Landing, OpenForm, Platforms, Tags } from './open';
import { DropHint } from './open-file';
import { Preview } from './preview/preview';
import { go, link, route, type Panel } from './route';
import { Search } from './search';
import { failures, opening, refused, retry } from './session';
import { Failed, Waiting } from './states';
import { change, theme } from './theme';
import { isFile, title } from '../reference';

const panels: [Panel, string][] = [
    ['files', 'Files'],
    ['search', 'Search'],
    ['changes', 'Changes'],
    ['efficiency', 'Efficiency'],
    ['against', 'Compare'],
    ['image', 'Image'],
];

export function App() {
    const { place } = route.value;
    useEffect(() => {
        document.title = place ? `${visible(place.repository)} – Lazystar` : 'Lazystar';
    }, [place?.repository]);
    return (
        <>
            <header class="bar">
                {place && (
                    <a class="skip" href="#main" onClick={skip}>
                        Skip to the files
                    </a>
                )}
                <a class="logo" href="#/" aria-label="Lazystar, first page">
                    <svg viewBox="0 0 32 32" aria-hidden="true">
                        <path d="M16 2l3.6 9.8L30 12l-8.2 6.4L24.6 29 16 22.8 7.4 29l2.8-10.6L2 12l10.4-.2z" />
                    </svg>
                    <span>Lazystar</span>
                </a>
                {place && <OpenForm />}
                {place && <Tags />}
                {place && <Platforms />}
                <span class="gap" />
                <button type="button" onClick={change} aria-label={`Colours: ${theme.value}`} title={`Colours: ${theme.value}`}>
                    {{ system: '◐', light: '☀', dark: '☾' }[theme.value]}
                </button>
                <button type="button" onClick={() => (helping.value = true)} aria-label="Keys and help" title="Keys and help">
                    ?
                </button>
            </header>
            {place ? <Opened title={title(place)} isLocal={isFile(place)} /> : <Landing />}
            <div class="heard" aria-live="polite">
                {visible(announcement.value)}
            </div>
            <Help />
            <Asking />
            <DropHint />
        </>
    );
}

function Opened({ title, isLocal }: { title: string; isLocal: boolean }) {
    const heading = <h1 class="heard">{visible(title)}</h1>;
    if (refused.value) {
        return (
            <main id="main" class="refused">
                {heading}
                <Failed problem={refused.value} {...(['unauthorized', 'file'].includes(refused.value.kind) ? {} : { again: retry })} />
            </main>
        );
    }
    if (opening.value) {
        return (
            <main id="main" class="refused">
                {heading}
                <Waiting what={isLocal ? 'Reading the file' : 'Asking for the image'} />
            </main>
        );
    }
    return <Workspace heading={heading} />;
}

/** On narrow screens one of three parts is shown at a time. */
type Part = 'layers' | 'tree' | 'preview';

function Workspace({ heading }: { heading: ComponentChildren }) {
    const part = useSignal<Part>(route.peek().path === '/' ? 'tree' : 'preview');
    const { panel, path } = route.value;
    useEffect(() => {
        if (path !== '/') part.value = 'preview';
    }, [path]);
    const parts: [Part, string][] = [
        ['layers', 'Layers'],
        ['tree', 'Tree'],
        ['preview', 'Preview'],
    ];
    return (
        <>
            <nav class="parts" aria-label="Parts of the page">
                {parts.map(([name, label]) => (
                    <button type="button" key={name} aria-pressed={part.value === name} onClick={() => (part.value = name)}>
                        {label}
                    </button>
                ))}
            </nav>
            <main id="main" class={`workspace show-${part.value}`}>
                {heading}
                <Layers />
                <div class="middle">
                    <Panels panel={panel} />
                    {failures.value.length > 0 && <Alarm />}
                    <div class="panel">
                        {panel === 'files' && <Files />}
                        {panel === 'search' && <Search />}
                        {panel === 'changes' && <Changes />}
                        {panel === 'efficiency' && <EfficiencyPanel />}
                        {panel === 'against' && <Against />}
                        {panel === 'image' && <ImageFacts />}
                    </div>
                </div>
                <Preview />
            </main>
            <MeterBar />
        </>
    );
}

function Panels({ panel }: { panel: Panel }) {
    return (
        <nav class="panels" aria-label="Views of the image">
            {panels.map(([name, label]) => (
                <a key={name} href={link({ panel: name })} aria-current={panel === name ? 'page' : undefined}>
                    {label}
                </a>
            ))}
            <input
                id="query"
                type="search"
                aria-label="Search files"
                placeholder="Search  ( / )"
                value={route.value.query}
                spellcheck={false}
                onInput={({ currentTarget: { value } }) => go({ query: value, panel: value ? 'search' : 'files' }, true)}
            />
        </nav>
    );
}

/** Something did not pass its check: it is not shown, and this is not hidden. */
function Alarm() {
    const last = failures.value.at(-1);
    return (
        <div class="alarm" role="alert">
            <span aria-hidden="true">✗</span> {failures.value.length === 1 ? 'A part of this image' : `${failures.value.length} parts of this image`} did not
            match what it promises{last?.path && <> ({visible(last.path)})</>}: what came was thrown away.
        </div>
    );
}

/** The fragment is the address of what is shown, so a plain link within the page would lose it. */
function skip(event: MouseEvent): void {
    event.preventDefault();
    document.querySelector<HTMLElement>('.middle [tabindex="0"]')?.focus();
}
