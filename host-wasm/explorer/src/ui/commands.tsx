/** What other tools are told to show the same. */
import type { Row } from '../api';
import { isFile, isLayout } from '../reference';
import { copy } from './clipboard';
import { visible } from './escape';
import { route } from './route';
import { image, layers } from './session';

/** Commands for the image; none for what is in no registry. */
export function imageCommands(): string[] {
    const name = pinned();
    if (!name) return [];
    return [
        `lazystar mount ${name} /mnt`,
        `lazystar pull ${name}`,
        `ctr images pull --snapshotter stargz ${name}`,
        `crane export ${name} - | tar -tv`,
        `docker pull ${name}`,
    ];
}

/** Commands for a path of it, as the tree that is shown has it. */
export function pathCommands({ path, kind }: Pick<Row, 'path' | 'kind'>): string[] {
    const name = pinned();
    const { view } = route.value;
    const layer = view === 'merged' ? null : layers.value[view];
    if (!name || kind === 'whiteout') return [];
    const inside = path.slice(1);
    const member = inside && ` ${inside.startsWith('-') ? '-- ' : ''}${quoted(inside)}`;
    if (layer) {
        const blob = `crane blob ${name.replace(/@.*$/, '')}@${layer.digest}`;
        return [`${blob} | tar -${kind === 'regular' ? 'xzO' : 'tzv'}${member}`];
    }
    const whole = `crane export ${name} - | tar -${kind === 'regular' ? 'xO' : 'tv'}${member}`;
    const command = kind === 'regular' ? 'cat' : kind === 'directory' ? 'ls' : 'stat';
    return [`lazystar ${command} ${name} ${quoted(path)}`, whole];
}

/** `HOST/REPOSITORY@DIGEST` of the manifest that is shown. */
function pinned(): string | null {
    const opened = image.value;
    if (!opened || isFile(opened.place) || isLayout(opened.place)) return null;
    return `${opened.place.registry}/${opened.place.repository}@${opened.digest}`;
}

/** One word for a shell, whatever it is: what controls terminals comes as an escape. */
function quoted(word: string): string {
    if (/^[\w@%+=:,./-]+$/.test(word)) return word;
    if (!/\p{C}/u.test(word)) return `'${word.replaceAll("'", `'\\''`)}'`;
    const escaped = word.replace(/[\\']/g, '\\$&').replace(/\p{C}/gu, (sign) => [...new TextEncoder().encode(sign)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join(''));
    return `$'${escaped}'`;
}

export function Commands({ commands }: { commands: string[] }) {
    if (commands.length === 0) return null;
    return (
        <>
            <h3>The same with other tools</h3>
            <ul class="commands">
                {commands.map((command) => (
                    <li key={command}>
                        <code>{visible(command)}</code>
                        <Copy text={command} label={`Copy ${command.split(' ', 2).join(' ')}`} />
                    </li>
                ))}
            </ul>
        </>
    );
}

export function Copy({ text, label }: { text: string; label: string }) {
    return (
        <button type="button" onClick={() => copy(text)} aria-label={label}>
            Copy
        </button>
    );
}
