/** Joins pieces. */
export function concat(pieces: Uint8Array[], length = pieces.reduce((sum, piece) => sum + piece.length, 0)): Uint8Array {
    const all = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
        all.set(piece, at);
        at += piece.length;
    }
    return all;
}

export function viewOf(bytes: Uint8Array): DataView {
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** What stands from `start` on before the next NUL, or before the end. */
export function upToNul(bytes: Uint8Array, start = 0): Uint8Array {
    const end = bytes.indexOf(0, start);
    return bytes.subarray(start, end < 0 ? undefined : end);
}

export function hex(bytes: Uint8Array): string {
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** A SHA-256 as digests are written. */
export function asDigest(sum: Uint8Array): string {
    return `sha256:${hex(sum)}`;
}
