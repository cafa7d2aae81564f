/** Writes headers of tars, in the PAX format where the old one does not suffice. */
import { concat } from './bytes';

const BLOCK = 512;
const utf8 = new TextEncoder();

export interface TarEntry {
    /** Relative, without a slash at the end. */
    name: string;
    type: '0' | '1' | '2' | '3' | '4' | '5' | '6';
    mode: number;
    uid: number;
    gid: number;
    size: number;
    modified: { seconds: bigint; nanoseconds: number };
    target?: string;
    device?: { major: number; minor: number };
    xattrs?: { name: string; value: Uint8Array }[];
}

/** Header blocks of an entry, those of PAX first. */
export function header(entry: TarEntry): Uint8Array {
    const name = entry.type === '5' ? `${entry.name}/` : entry.name;
    const { target = '', device = { major: 0, minor: 0 }, xattrs = [] } = entry;
    const { seconds, nanoseconds } = entry.modified;
    const records: Uint8Array[] = [];
    const say = (key: string, value: string | Uint8Array): void => void records.push(record(key, typeof value === 'string' ? utf8.encode(value) : value));
    if (!fits(name)) say('path', name);
    if (!fits(target)) say('linkpath', target);
    if (entry.uid > 0o7777777) say('uid', String(entry.uid));
    if (entry.gid > 0o7777777) say('gid', String(entry.gid));
    if (entry.size > 0o77777777777) say('size', String(entry.size));
    if (nanoseconds !== 0 || seconds < 0n || seconds > 0o77777777777n) say('mtime', time(seconds, nanoseconds));
    if (device.major > 0o7777777) say('SCHILY.devmajor', String(device.major));
    if (device.minor > 0o7777777) say('SCHILY.devminor', String(device.minor));
    for (const { name: key, value } of xattrs) say(`SCHILY.xattr.${key.replace(/%/g, '%25').replace(/=/g, '%3D')}`, value);
    const own = block({ ...entry, name, target, device });
    if (records.length === 0) return own;
    const pax = concat(records);
    const head = block({ name: './PaxHeaders/entry', type: 'x', mode: 0o644, uid: 0, gid: 0, size: pax.length, seconds: 0n, target: '', device: { major: 0, minor: 0 } });
    return concat([head, pax, padding(pax.length), own]);
}

/** What fills the last block of so many bytes. */
export function padding(size: number): Uint8Array {
    return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

/** The end of a tar. */
export const END = new Uint8Array(2 * BLOCK);

interface Block extends Omit<TarEntry, 'type' | 'modified' | 'xattrs'> {
    type: TarEntry['type'] | 'x';
    modified?: TarEntry['modified'];
    seconds?: bigint;
    target: string;
    device: { major: number; minor: number };
}

function block(entry: Block): Uint8Array {
    const bytes = new Uint8Array(BLOCK);
    const text = (at: number, length: number, value: string): void => void bytes.set(utf8.encode(value).subarray(0, length), at);
    const octal = (at: number, length: number, value: number): void => {
        const most = 8 ** (length - 1) - 1;
        text(at, length, (value >= 0 && value <= most ? value : 0).toString(8).padStart(length - 1, '0'));
    };
    text(0, 100, entry.name);
    octal(100, 8, entry.mode);
    octal(108, 8, entry.uid);
    octal(116, 8, entry.gid);
    octal(124, 12, entry.size);
    octal(136, 12, Number(entry.modified?.seconds ?? 0n));
    text(148, 8, '        ');
    text(156, 1, entry.type);
    text(157, 100, entry.target);
    text(257, 8, 'ustar\x0000');
    octal(329, 8, entry.device.major);
    octal(337, 8, entry.device.minor);
    const sum = bytes.reduce((total, byte) => total + byte, 0);
    text(148, 8, `${sum.toString(8).padStart(6, '0')}\0 `);
    return bytes;
}

/** Whether the old header can hold a name for every reader. */
function fits(name: string): boolean {
    return name.length <= 100 && /^[\x20-\x7e]*$/.test(name);
}

function record(key: string, value: Uint8Array): Uint8Array {
    const start = utf8.encode(` ${key}=`);
    const rest = start.length + value.length + 1;
    let length = rest + 1;
    while (String(length).length + rest !== length) length = String(length).length + rest;
    return concat([utf8.encode(String(length)), start, value, Uint8Array.of(10)]);
}

/** Seconds with their fraction; nanoseconds count up from the second below. */
function time(seconds: bigint, nanoseconds: number): string {
    if (nanoseconds === 0) return String(seconds);
    const negative = seconds < 0n;
    const whole = negative ? -(seconds + 1n) : seconds;
    const fraction = negative ? 1_000_000_000 - nanoseconds : nanoseconds;
    return `${negative ? '-' : ''}${whole}.${String(fraction).padStart(9, '0').replace(/0+$/, '')}`;
}
