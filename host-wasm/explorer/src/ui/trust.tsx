/** How far what is shown was checked: always a word and a sign, never a colour alone. */
import type { Assurance } from '../api';
import { short } from './format';
import { failures, image, layers } from './session';

const words: Record<Assurance, { sign: string; title: string }> = {
    verified: { sign: '✓', title: 'Every byte is checked against the digests that the manifest vouches for' },
    consistent: { sign: '~', title: 'Checked against the table of contents, but nothing vouches for that' },
    unverified: { sign: '!', title: 'Some of it has no digest to check against' },
};

export function Badge({ assurance, format }: { assurance: Assurance | null; format?: string | null }) {
    if (!assurance) return null;
    const { sign, title } = words[assurance];
    return (
        <span class={`badge ${assurance}`} title={title}>
            <span aria-hidden="true">{sign}</span> {assurance}
            {format && <span class="format"> {format}</span>}
        </span>
    );
}

/** From the digest in the address down to the chunks of a layer. */
export function Chain({ layer, bytes }: { layer: number; bytes: Assurance | null }) {
    const opened = image.value;
    const facts = layers.value[layer];
    if (!opened || !facts) return null;
    const failure = failures.value.find(({ problem }) => problem.layer === layer);
    const steps: { name: string; what: string; state: Assurance | 'failed' | 'not read' }[] = [
        ...(opened.indexDigest ? [{ name: 'Index', what: short(opened.indexDigest), state: 'verified' as const }] : []),
        { name: 'Manifest', what: short(opened.digest), state: 'verified' },
        { name: `Layer ${layer + 1}`, what: short(facts.digest), state: 'verified' },
        { name: 'Table of contents', what: short(facts.tocDigest ?? facts.digest), state: facts.assurance ?? 'not read' },
        { name: 'Chunks', what: 'as they are read', state: failure ? 'failed' : (bytes ?? 'not read') },
    ];
    return (
        <ol class="chain" aria-label="What vouches for these bytes">
            {steps.map(({ name, what, state }) => (
                <li key={name} class={state.replace(' ', '-')}>
                    <span aria-hidden="true">{state === 'failed' ? '✗' : state === 'not read' ? '·' : words[state].sign}</span> {name}{' '}
                    <code>{what}</code> {state}
                </li>
            ))}
        </ol>
    );
}
