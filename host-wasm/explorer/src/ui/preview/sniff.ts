/** What a file is, by its first bytes and never by its name alone: names lie. */
import type { Tab } from '../route';

export interface Sniffed {
    /** For people. */
    type: string;
    /** How it is shown unless the person chooses; all of them are possible. */
    tabs: Tab[];
    /** Media type of a picture that browsers show. */
    picture: string | null;
}

const magics: [number[] | string, string, string | null][] = [
    ['\x7fELF', 'ELF', null],
    ['\x89PNG\r\n\x1a\n', 'PNG picture', 'image/png'],
    [[0xff, 0xd8, 0xff], 'JPEG picture', 'image/jpeg'],
    ['GIF8', 'GIF picture', 'image/gif'],
    ['BM', 'BMP picture', 'image/bmp'],
    [[0, 0, 1, 0], 'icon', 'image/x-icon'],
    [[0x1f, 0x8b], 'gzip', null],
    [[0x28, 0xb5, 0x2f, 0xfd], 'zstd', null],
    [[0xfd, 0x37, 0x7a, 0x58, 0x5a], 'xz', null],
    ['BZh', 'bzip2', null],
    ['PK\x03\x04', 'zip', null],
    ['%PDF', 'PDF', null],
    ['SQLite format 3', 'SQLite database', null],
    ['\0asm', 'WebAssembly', null],
    ['MZ', 'PE', null],
    ['!<arch>', 'ar archive', null],
    [[0xca, 0xfe, 0xba, 0xbe], 'Java class', null],
    ['wOF2', 'WOFF2 font', null],
];

export function sniff(head: Uint8Array, name: string, size: number): Sniffed {
    if (size === 0) return { type: 'empty file', tabs: ['details'], picture: null };
    if (begins(head, 'RIFF') && begins(head.subarray(8), 'WEBP')) return picture('WebP picture', 'image/webp');
    if (begins(head.subarray(4), 'ftypavif')) return picture('AVIF picture', 'image/avif');
    for (const [magic, type, media] of magics) {
        if (!begins(head, magic)) continue;
        if (media) return picture(type, media);
        if (type === 'ELF') return { type: 'ELF', tabs: ['elf', 'hex', 'details'], picture: null };
        // BMP and PE have short marks: what is text all the same is text.
        if (typeof magic === 'string' && magic.length < 4 && isText(head)) break;
        if (type === 'PE') return { type, tabs: ['pe', 'hex', 'details'], picture: null };
        return { type, tabs: ['hex', 'details'], picture: null };
    }
    if (!isText(head)) return { type: 'binary', tabs: ['hex', 'details'], picture: null };
    const start = new TextDecoder().decode(head.subarray(0, 512)).trimStart();
    if (/^(<\?xml[^>]*>\s*)?(<!--[^]*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]/i.test(start)) {
        return { type: 'SVG picture', tabs: ['picture', 'text', 'hex', 'details'], picture: 'image/svg+xml' };
    }
    if (/^[[{]/.test(start) && /\.(json|map|webmanifest|lock)$/i.test(name)) {
        return { type: 'JSON', tabs: ['text', 'json', 'hex', 'details'], picture: null };
    }
    const pem = /^-----BEGIN ([A-Z0-9 ]+)-----$/m.exec(start)?.[1];
    if (pem) return { type: `PEM (${pem.toLowerCase()})`, tabs: ['pem', 'text', 'hex', 'details'], picture: null };
    return { type: 'text', tabs: ['text', 'hex', 'details'], picture: null };
}

function picture(type: string, media: string): Sniffed {
    return { type, tabs: ['picture', 'hex', 'details'], picture: media };
}

function begins(head: Uint8Array, magic: number[] | string): boolean {
    return [...magic].every((byte, at) => head[at] === (typeof byte === 'string' ? byte.charCodeAt(0) : byte));
}

/** Without NUL, with few controls; UTF-16 with a mark counts as text, too. */
function isText(head: Uint8Array): boolean {
    if (utf16(head)) return true;
    let odd = 0;
    for (const byte of head) {
        if (byte === 0) return false;
        if (byte < 32 && byte !== 9 && byte !== 10 && byte !== 13 && byte !== 27 && byte !== 12) odd += 1;
    }
    return odd * 50 < head.length + 50;
}

function utf16(head: Uint8Array): 'utf-16le' | 'utf-16be' | null {
    if (head[0] === 0xff && head[1] === 0xfe) return 'utf-16le';
    return head[0] === 0xfe && head[1] === 0xff ? 'utf-16be' : null;
}

/** Text in the encoding that it is in: UTF-8, UTF-16 with a mark, or else Latin-1. */
export function decode(bytes: Uint8Array, isCut: boolean): { text: string; encoding: string } {
    const wide = utf16(bytes);
    if (wide) return { text: new TextDecoder(wide).decode(bytes), encoding: wide.toUpperCase() };
    try {
        return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes, { stream: isCut }), encoding: 'UTF-8' };
    } catch {
        return { text: new TextDecoder('windows-1252').decode(bytes), encoding: 'Windows-1252' };
    }
}
