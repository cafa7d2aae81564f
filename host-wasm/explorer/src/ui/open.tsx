/** Which image: the bar at the top, and the first page. */
import { useSignal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { visible } from './escape';
import { platformName } from './image-facts';
import { Kept } from './kept';
import { OpenFile } from './open-file';
import { usePromised } from './promised';
import { forget, recent } from './recent';
import { format, go, NO_IMAGE, route, start, typed } from './route';
import { named } from '../reference';
import { server } from '../server';
import { engine, image } from './session';

/** What is written for an image by hand. */
function name(): string {
    const { place, tag } = route.value;
    if (!place) return '';
    return named(place, tag);
}

export function OpenForm({ isBig = false }: { isBig?: boolean }) {
    const text = useSignal(name());
    const error = useSignal('');
    const now = name();
    useEffect(() => void (text.value = now), [now]);
    const submit = (event: SubmitEvent): void => {
        event.preventDefault();
        const found = typed(text.value);
        error.value = found ? '' : NO_IMAGE;
        if (found) go({ ...start, ...found });
    };
    return (
        <form class={`open${isBig ? ' big' : ''}`} role="search" aria-label="Open an image" onSubmit={submit}>
            <input
                aria-label="Image"
                aria-invalid={error.value !== ''}
                aria-describedby={error.value ? 'open-error' : undefined}
                value={text.value}
                onInput={(event) => (text.value = event.currentTarget.value)}
                placeholder="ghcr.io/owner/name:tag"
                spellcheck={false}
                autocapitalize="off"
                autocomplete="off"
            />
            <button type="submit">Open</button>
            <OpenFile />
            {error.value && (
                <p class="error" id="open-error" role="alert">
                    {error.value}
                </p>
            )}
        </form>
    );
}

export function Tags() {
    const current = engine.value;
    const { place, tag } = route.value;
    const tags = usePromised(current ? () => current.tags() : null, [current]);
    const all = tags.value ?? [];
    if (!place || all.length === 0) return null;
    const shown = tag && !all.includes(tag) ? [tag, ...all] : all;
    return (
        <label class="pick">
            <span>Tag</span>
            <select value={tag ?? ''} onChange={({ currentTarget: { value } }) => go({ ...start, place: { ...place, reference: value }, tag: value })}>
                {!tag && <option value="">pinned</option>}
                {shown.map((name) => (
                    <option key={name} value={name}>
                        {visible(name)}
                    </option>
                ))}
            </select>
        </label>
    );
}

export function Platforms() {
    const opened = image.value;
    if (!opened || opened.platforms.length < 2) return null;
    return (
        <label class="pick">
            <span>Platform</span>
            <select value={opened.digest} onChange={({ currentTarget: { value } }) => go({ platform: value, view: 'merged' })}>
                {opened.platforms.map((platform) => (
                    <option key={platform.digest} value={platform.digest}>
                        {visible(platformName(platform))}
                    </option>
                ))}
            </select>
        </label>
    );
}

/** Before an image is open. */
export function Landing() {
    const facts = usePromised(() => server, []);
    const given = facts.value?.image;
    return (
        <main class="landing">
            <h1>Look inside a container image</h1>
            <p>
                Files, layers and what they changed, straight from the registry. Only what you look at is fetched, and every
                byte is checked against the image's digest before it is shown. Or out of a file, with no network at all: drop an
                archive (an OCI layout or <code>docker save</code>) or a layer here.
            </p>
            <OpenForm isBig />
            {given && (
                <p>
                    <a href={format({ ...start, place: given, tag: given.reference.includes(':') ? null : given.reference })}>{visible(given.name)}</a>
                </p>
            )}
            {recent.value.length > 0 && (
                <section aria-label="Recent images">
                    <h2>Recent</h2>
                    <ul>
                        {recent.value.map((place) => {
                            const tag = place.reference.includes(':') ? null : place.reference;
                            return (
                                <li key={JSON.stringify(place)}>
                                    <a href={format({ ...start, place, tag })}>
                                        {visible(named(place, tag, place.reference && `${place.reference.slice(0, 19)}…`))}
                                    </a>
                                </li>
                            );
                        })}
                    </ul>
                    <button type="button" onClick={forget}>
                        Forget these
                    </button>
                </section>
            )}
            <Kept />
            {facts.value && !facts.value.proxy && (
                <p class="note">
                    This page asks registries directly, and most do not let web pages read them. Run <code>lazystar explore</code> for
                    one that can read all of them.
                </p>
            )}
        </main>
    );
}
