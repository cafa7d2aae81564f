/** PEM (RFC 7468), and of certificates what names them and how long they are good (X.509, RFC 5280). Nothing of it is verified. */

export interface PemBlock {
    /** Such as `CERTIFICATE`. */
    label: string;
    /** Bytes of what is encoded; `null` when that is no base64. */
    size: number | null;
    certificate: { subject: string; issuer: string; from: Date; until: Date } | null;
}

/** All blocks of a text; text around them is skipped. */
export function pem(text: string): PemBlock[] {
    // Headers have dashes; five of them end a block. It takes no longer than the text is long.
    return [...text.matchAll(/-----BEGIN ([A-Z0-9 ]{1,64})-----([^-]*(?:-(?!----)[^-]*)*)-----END \1-----/g)].map(([, label = '', body = '']) => {
        const bytes = decode(body);
        return { label, size: bytes?.length ?? null, certificate: bytes && /^(X509 |TRUSTED )?CERTIFICATE$/.test(label) ? certificate(bytes) : null };
    });
}

function decode(body: string): Uint8Array | null {
    // Old keys have headers before an empty line.
    const base64 = body.slice(body.includes(':') ? body.search(/\n\r?\n/) : 0);
    try {
        return Uint8Array.from(atob(base64.replace(/\s/g, '')), (sign) => sign.charCodeAt(0));
    } catch {
        return null;
    }
}

interface Value {
    tag: number;
    content: Uint8Array;
}

const SEQUENCE = 0x30;
/** Attributes of names by what their identifiers (2.5.4.*) end with. */
const names: Record<number, string> = { 3: 'CN', 6: 'C', 10: 'O', 11: 'OU' };

function certificate(der: Uint8Array): PemBlock['certificate'] {
    try {
        const signed = parts(inner(parts(der)[0], SEQUENCE));
        const fields = parts(inner(signed[0], SEQUENCE));
        // The version is there unless it is the first one.
        const start = fields[0]?.tag === 0xa0 ? 1 : 0;
        const [from, until] = parts(inner(fields[start + 3], SEQUENCE));
        return { issuer: name(inner(fields[start + 2], SEQUENCE)), subject: name(inner(fields[start + 4], SEQUENCE)), from: time(from), until: time(until) };
    } catch {
        return null;
    }
}

function inner(value: Value | undefined, tag: number): Uint8Array {
    if (value?.tag !== tag) throw new Error('not what a certificate has here');
    return value.content;
}

function parts(bytes: Uint8Array): Value[] {
    return [...values(bytes)];
}

/** Values of DER, one after the other. */
function* values(bytes: Uint8Array): Generator<Value> {
    for (let at = 0; at < bytes.length; ) {
        const tag = bytes[at] ?? 0;
        let length = bytes[at + 1] ?? 0;
        at += 2;
        if (length > 0x7f) {
            const octets = length & 0x7f;
            if (octets === 0 || octets > 4) throw new Error('a length of an unknown form');
            length = bytes.subarray(at, at + octets).reduce((sum, byte) => sum * 256 + byte, 0);
            at += octets;
        }
        if (at + length > bytes.length) throw new Error('a value goes beyond its end');
        yield { tag, content: bytes.subarray(at, at + length) };
        at += length;
    }
}

/** The parts of a name that people know it by. */
function name(bytes: Uint8Array): string {
    const found: string[] = [];
    for (const { content } of values(bytes)) {
        for (const pair of values(content)) {
            const [type, value] = parts(pair.content);
            const short = type && attribute(type.content);
            if (short && value) found.push(`${short}=${text(value)}`);
        }
    }
    return found.join(', ');
}

function attribute([first, second, third, ...more]: Uint8Array): string | undefined {
    return first === 0x55 && second === 4 && third !== undefined && more.length === 0 ? names[third] : undefined;
}

function text({ tag, content }: Value): string {
    return new TextDecoder(tag === 0x1e ? 'utf-16be' : tag === 0x0c ? 'utf-8' : 'latin1').decode(content);
}

/** `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`. */
function time(value: Value | undefined): Date {
    const digits = value ? text(value) : '';
    const [, year = '', rest = ''] = /^(\d\d|\d{4})(\d{10})Z$/.exec(digits) ?? [];
    if (!year || (value?.tag !== 0x17 && value?.tag !== 0x18)) throw new Error('a time of another form');
    const full = year.length === 4 ? Number(year) : Number(year) + (Number(year) < 50 ? 2000 : 1900);
    const [month = 0, day = 0, hour = 0, minute = 0, second = 0] = (rest.match(/../g) ?? []).map(Number);
    const date = new Date(Date.UTC(full, month - 1, day, hour, minute, second));
    if (Number.isNaN(date.getTime())) throw new Error('no time');
    return date;
}
