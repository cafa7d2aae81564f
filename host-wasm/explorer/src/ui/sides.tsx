/** What the two images of a comparison are called. */
import type { ComponentChildren } from 'preact';
import type { OpenImage } from '../api';
import { isFile, named } from '../reference';
import { visible } from './escape';
import { short } from './format';
import { platformName } from './image-facts';
import { go, route } from './route';

/** What is the same of their names is left out. */
export function Sides({ before, after }: { before: OpenImage; after: OpenImage }) {
    const { other: wanted, tag } = route.value;
    const isNear = before.place.registry === after.place.registry;
    const name = ({ place, digest }: OpenImage, tag: string | null): ComponentChildren => (
        <>
            <b>{visible(named(place, tag, '').slice(isNear && !isFile(place) ? place.registry.length + 1 : 0))}</b> <code>{short(digest)}</code>
        </>
    );
    const choose = ({ currentTarget: { value } }: { currentTarget: HTMLSelectElement }): void => {
        if (wanted) go({ other: { ...wanted, platform: value } });
    };
    return (
        <dl class="sides">
            <dt>From</dt>
            <dd>
                {name(before, wanted?.tag ?? null)}{' '}
                {before.platforms.length > 1 && (
                    <select aria-label="Platform of the other image" value={before.digest} onChange={choose}>
                        {before.platforms.map((platform) => (
                            <option key={platform.digest} value={platform.digest}>
                                {visible(platformName(platform))}
                            </option>
                        ))}
                    </select>
                )}
            </dd>
            <dt>To</dt>
            <dd>
                {name(after, tag)} {after.platforms.length > 1 && visible(platformName(after.platform))}
            </dd>
        </dl>
    );
}
