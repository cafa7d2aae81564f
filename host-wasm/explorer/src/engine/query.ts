/** What people type to search: words, globs and filters, all of which have to hold. */
import type { Kind } from '../api';
import { problem } from './problems';

/** What a search looks at of an object. */
export interface Subject {
    path: string;
    kind: Kind;
    size: number;
    mode: number;
    layer: number;
    /** Whether the merged tree shows it; asked last. */
    visible: () => boolean;
}

export interface Query {
    /** Whether a layer is named: its directories are then results even where others have them, too. */
    layer: number | null;
    matches: (subject: Subject) => boolean;
}

type Test = (subject: Subject) => boolean;

const KINDS: Record<string, Kind[]> = {
    file: ['regular'],
    f: ['regular'],
    regular: ['regular'],
    directory: ['directory'],
    dir: ['directory'],
    d: ['directory'],
    symlink: ['symlink'],
    link: ['symlink'],
    l: ['symlink'],
    device: ['character-device', 'block-device'],
    'character-device': ['character-device'],
    'block-device': ['block-device'],
    fifo: ['fifo'],
    whiteout: ['whiteout'],
};

const UNITS: Record<string, number> = { '': 1, k: 1 << 10, m: 1 << 20, g: 1 << 30, t: 2 ** 40 };

/**
 * Reads a query. Words are parts of paths, upper and lower case being the same; with `*` or `?` in them they are globs, of
 * the whole path if they begin with a slash, otherwise of a name or the names at the end. `"…"` keeps blanks. Filters are
 * `type:file`, `size>10M`, `size<1k`, `mode:4755` (exactly), `mode:/6000` (any of these bits), `mode:-022` (all of these),
 * `layer:2` (the second from the bottom, as the page numbers them), `is:setuid`, `is:setgid`, `is:executable`, `is:hidden`; `-` before one turns it round.
 */
export function parseQuery(text: string): Query {
    const tests: Test[] = [];
    const late: Test[] = [];
    let layer: number | null = null;
    for (const [, sign, quoted, plain] of text.matchAll(/(-?)(?:"([^"]*)"|(\S+))/g)) {
        const word = quoted ?? plain ?? '';
        const filter = quoted === undefined ? /^(type|size|mode|layer|is)([:<>])(.+)$/i.exec(word) : null;
        const negated = sign === '-' && (filter !== null || quoted !== undefined || word !== '');
        const [, name = '', operator = '', value = ''] = filter ?? [];
        const test = filter ? filtering(name.toLowerCase(), operator, value.toLowerCase()) : naming(word);
        if (name.toLowerCase() === 'layer' && !negated) layer = Number(value) - 1;
        const list = name.toLowerCase() === 'is' && value.toLowerCase() === 'hidden' ? late : tests;
        list.push(negated ? (subject) => !test(subject) : test);
    }
    const all = [...tests, ...late];
    return { layer, matches: (subject) => all.every((test) => test(subject)) };
}

function filtering(name: string, operator: string, value: string): Test {
    const wrong = problem('unsupported', `“${name}${operator}${value}” is no filter. There are type:file, size>10M, size<1k, mode:4755, layer:1, is:setuid and is:hidden.`);
    if (name === 'size') {
        const found = /^(\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?$/.exec(value);
        if (!found || operator === ':') throw wrong;
        const limit = Number(found[1]) * (UNITS[found[2] ?? ''] ?? 1);
        return ({ kind, size }) => kind === 'regular' && (operator === '>' ? size > limit : size < limit);
    }
    if (operator !== ':') throw wrong;
    switch (name) {
        case 'type': {
            const kinds = KINDS[value];
            if (!kinds) throw wrong;
            return ({ kind }) => kinds.includes(kind);
        }
        case 'mode': {
            const found = /^([/-]?)([0-7]{1,4})$/.exec(value);
            if (!found) throw wrong;
            const bits = Number.parseInt(found[2] ?? '', 8);
            if (found[1] === '/') return ({ mode, kind }) => kind !== 'symlink' && (mode & bits) !== 0;
            if (found[1] === '-') return ({ mode, kind }) => kind !== 'symlink' && (mode & bits) === bits;
            return ({ mode }) => mode === bits;
        }
        case 'layer': {
            if (!/^[1-9]\d{0,3}$/.test(value)) throw wrong;
            return ({ layer }) => layer === Number(value) - 1;
        }
        default:
            switch (value) {
                case 'setuid':
                    return ({ mode, kind }) => kind === 'regular' && (mode & 0o4000) !== 0;
                case 'setgid':
                    return ({ mode, kind }) => kind === 'regular' && (mode & 0o2000) !== 0;
                case 'executable':
                    return ({ mode, kind }) => kind === 'regular' && (mode & 0o111) !== 0;
                case 'hidden':
                    return (subject) => !subject.visible();
                default:
                    throw wrong;
            }
    }
}

function naming(word: string): Test {
    const lower = word.toLowerCase();
    if (!/[*?]/.test(lower)) return ({ path }) => path.toLowerCase().includes(lower);
    const glob = lower.replace(/[\\^$.|+()[\]{}]/g, '\\$&').replace(/\*\*|\*|\?/g, (found) => (found === '**' ? '.*' : found === '*' ? '[^/]*' : '[^/]'));
    const whole = new RegExp(`${lower.startsWith('/') ? '^' : '/'}${glob}$`, 's');
    return ({ path }) => whole.test(path.toLowerCase());
}
