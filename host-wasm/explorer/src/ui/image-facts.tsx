/** What manifest and configuration say, and how other tools are told about this image. */
import type { ComponentChildren } from 'preact';
import { title } from '../reference';
import { Commands, imageCommands } from './commands';
import { visible } from './escape';
import { Kept } from './kept';
import { route } from './route';
import { image } from './session';

export function ImageFacts() {
    const opened = image.value;
    if (!opened) return null;
    const { place } = opened;
    const list = (words: string[]): string => words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word))).join(' ');
    const facts: [string, ComponentChildren][] = [
        ['Image', <code>{`${title(place)}${route.value.tag ? `:${route.value.tag}` : ''}`}</code>],
        ['Manifest', <code>{opened.digest}</code>],
        ...(opened.indexDigest ? [['Index', <code>{opened.indexDigest}</code>] as [string, ComponentChildren]] : []),
        ['Platform', platformName(opened.platform)],
        ['Created', opened.created ? visible(opened.created) : 'not said'],
        ['Entrypoint', <code>{visible(list(opened.entrypoint)) || 'none'}</code>],
        ['Command', <code>{visible(list(opened.cmd)) || 'none'}</code>],
        ['Directory', <code>{visible(opened.workingDir || '/')}</code>],
        ['User', visible(opened.user || 'root')],
    ];
    return (
        <div class="report">
            <dl class="facts">
                {facts.map(([name, value]) => (
                    <>
                        <dt key={name}>{name}</dt>
                        <dd>{value}</dd>
                    </>
                ))}
            </dl>
            <Pairs title="Environment" pairs={opened.env.map((pair) => [pair.split('=', 1)[0] ?? '', pair.slice(pair.indexOf('=') + 1)])} />
            <Pairs title="Labels" pairs={opened.labels} />
            {opened.history.length > 0 && (
                <>
                    <h2>History</h2>
                    <ol class="history">
                        {opened.history.map(({ command, emptyLayer }, index) => (
                            <li key={index} class={emptyLayer ? 'no-layer' : ''}>
                                <code>{visible(command)}</code>
                            </li>
                        ))}
                    </ol>
                </>
            )}
            <Commands commands={imageCommands()} />
            <Kept />
        </div>
    );
}

function Pairs({ title, pairs }: { title: string; pairs: [string, string][] }) {
    if (pairs.length === 0) return null;
    return (
        <table>
            <caption>{title}</caption>
            <tbody>
                {pairs.map(([name, value]) => (
                    <tr key={name}>
                        <th scope="row">
                            <code>{visible(name)}</code>
                        </th>
                        <td>
                            <code>{visible(value)}</code>
                        </td>
                    </tr>
                ))}
            </tbody>
        </table>
    );
}

export function platformName({ os, architecture, variant }: { os: string; architecture: string; variant: string }): string {
    return [os, architecture, variant].filter(Boolean).join('/') || 'not said';
}
