import type { Kind, Row } from '../api';

const units = ['B', 'kB', 'MB', 'GB', 'TB'];

/** A number of bytes for people: three digits, decimal units as container tools use them. */
export function bytes(count: number): string {
    let unit = 0;
    let value = count;
    while (value >= 999.5 && unit < units.length - 1) {
        value /= 1000;
        unit += 1;
    }
    const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    return `${value.toFixed(digits)} ${units[unit]}`;
}

/** A count with separators. */
export function count(number: number): string {
    return number.toLocaleString('en-US');
}

export function counted(number: number, one: string, many = `${one}s`): string {
    return `${count(number)} ${number === 1 ? one : many}`;
}

/** A share, never shown as 0 % or 100 % when it is not. */
export function percent(part: number, whole: number): string {
    if (whole <= 0) return '0 %';
    const share = (part / whole) * 100;
    if (share > 0 && share < 0.1) return '< 0.1 %';
    if (share < 100 && share > 99.9) return '> 99.9 %';
    return `${share.toFixed(share < 10 && share > 0 ? 1 : 0)} %`;
}

const kinds: Record<Kind, string> = {
    directory: 'd',
    regular: '-',
    symlink: 'l',
    'character-device': 'c',
    'block-device': 'b',
    fifo: 'p',
    whiteout: '×',
};

export const kindNames: Record<Kind, string> = {
    directory: 'directory',
    regular: 'file',
    symlink: 'symbolic link',
    'character-device': 'character device',
    'block-device': 'block device',
    fifo: 'named pipe',
    whiteout: 'deleted here',
};

/** Mode as `ls` writes it. */
export function mode({ kind, mode }: Pick<Row, 'kind' | 'mode'>): string {
    const triple = (shift: number, special: boolean, letter: string): string => {
        const bits = mode >> shift;
        const execute = bits & 1 ? (special ? letter : 'x') : special ? letter.toUpperCase() : '-';
        return (bits & 4 ? 'r' : '-') + (bits & 2 ? 'w' : '-') + execute;
    };
    return (
        kinds[kind] +
        triple(6, (mode & 0o4000) !== 0, 's') +
        triple(3, (mode & 0o2000) !== 0, 's') +
        triple(0, (mode & 0o1000) !== 0, 't')
    );
}

/** A time in UTC, to the minute. */
export function time(seconds: number): string {
    const date = new Date(seconds * 1000);
    return Number.isNaN(date.getTime()) ? `${seconds} s` : date.toISOString().slice(0, 16).replace('T', ' ');
}

/** The start of a digest, as `docker images` shows it. */
export function short(digest: string): string {
    return digest.replace(/^sha256:/, '').slice(0, 12);
}

export function hex(number: number, digits: number): string {
    return number.toString(16).padStart(digits, '0');
}
