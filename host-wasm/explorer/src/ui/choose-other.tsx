/** Which image to compare the open one with: another tag, another platform, or any other. */
import { useSignal } from '@preact/signals';
import { visible } from './escape';
import { give } from './given';
import { platformName } from './image-facts';
import { OpenFile } from './open-file';
import { usePromised } from './promised';
import { go, NO_IMAGE, route, typed } from './route';
import { engine, image } from './session';

export function ChooseOther() {
    const current = engine.value;
    const opened = image.value;
    const { place, tag } = route.value;
    const tags = usePromised(current ? () => current.tags() : null, [current]);
    const error = useSignal('');
    if (!opened || !place) return null;
    // What this one runs on, by its name: the other one has it by another digest.
    const platform = opened.platforms.length > 1 && opened.platform.os ? platformName(opened.platform) : null;
    const others = (tags.value ?? []).filter((name) => name !== tag);
    const platforms = opened.platforms.filter(({ digest }) => digest !== opened.digest);
    const submit = (event: SubmitEvent): void => {
        event.preventDefault();
        const found = typed(String(new FormData(event.target as HTMLFormElement).get('image')));
        error.value = found ? '' : NO_IMAGE;
        if (found) go({ other: { ...found, platform } });
    };
    return (
        <div class="report choose">
            <h2>Compare with another image</h2>
            <p>
                Shows which files this image adds, removes and changes. Only tables of contents are fetched; a file is when you look at
                what changed in it.
            </p>
            {others.length > 0 && (
                <label>
                    Another tag
                    <select value="" onChange={({ currentTarget: { value } }) => go({ other: { place: { ...place, reference: value }, tag: value, platform } })}>
                        <option value="">Choose…</option>
                        {others.map((name) => (
                            <option key={name} value={name}>
                                {visible(name)}
                            </option>
                        ))}
                    </select>
                </label>
            )}
            {platforms.length > 0 && (
                <label>
                    Another platform
                    <select value="" onChange={({ currentTarget: { value } }) => go({ other: { place, tag, platform: value } })}>
                        <option value="">Choose…</option>
                        {platforms.map((found) => (
                            <option key={found.digest} value={found.digest}>
                                {visible(platformName(found))}
                            </option>
                        ))}
                    </select>
                </label>
            )}
            <form onSubmit={submit}>
                <label>
                    Another image
                    <input
                        name="image"
                        placeholder="ghcr.io/owner/name:tag"
                        aria-describedby={error.value ? 'other-error' : undefined}
                        aria-invalid={error.value !== ''}
                        spellcheck={false}
                        autocapitalize="off"
                        autocomplete="off"
                        required
                    />
                </label>
                <button type="submit">Compare</button>
                {error.value && (
                    <p class="error" id="other-error" role="alert">
                        {error.value}
                    </p>
                )}
            </form>
            <OpenFile use={(file) => go({ other: { place: give(file), tag: null, platform: null } })} />
        </div>
    );
}
