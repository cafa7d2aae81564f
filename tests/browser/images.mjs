// Images for the tests: layers written entry by entry, converted by `lazystar convert`.
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { binary, run, work } from './harness.mjs';

export const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const octal = (number, length) => `${number.toString(8).padStart(length - 1, '0')}\0`;
const TYPES = { file: '0', link: '1', symlink: '2', char: '3', block: '4', directory: '5', fifo: '6' };

/** A tar. An entry is `{ path, type, content, mode, uid, gid, mtime, target, major, minor, xattrs }`; all but the path may be missing. */
export function tar(entries) {
    const parts = [];
    const block = (header, body) => parts.push(header, body, Buffer.alloc((512 - (body.length % 512)) % 512));
    for (const entry of entries) {
        const { path, content = '', uid = 0, gid = 0, mtime = 1_700_000_000, target = '', major = 0, minor = 0, xattrs = {} } = entry;
        const type = entry.type ?? (path.endsWith('/') ? 'directory' : 'file');
        const body = type === 'file' ? Buffer.from(content) : Buffer.alloc(0);
        const records = Object.entries(xattrs).map(([name, value]) => record(`SCHILY.xattr.${name}`, Buffer.from(value)));
        if (Buffer.byteLength(path) > 100) records.push(record('path', Buffer.from(path)));
        if (Buffer.byteLength(target) > 100) records.push(record('linkpath', Buffer.from(target)));
        if (!Number.isInteger(mtime)) records.push(record('mtime', Buffer.from(String(mtime))));
        const mode = entry.mode ?? (type === 'directory' ? 0o755 : 0o644);
        if (records.length > 0) {
            const pax = Buffer.concat(records);
            block(header({ path: 'pax', mode: 0o644, uid: 0, gid: 0, size: pax.length, mtime: 0, type: 'x', target: '', major: 0, minor: 0 }), pax);
        }
        block(header({ path, mode, uid, gid, size: body.length, mtime: Math.floor(mtime), type: TYPES[type], target, major, minor }), body);
    }
    return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

function record(key, value) {
    const rest = key.length + value.length + 3;
    let length = rest + 1;
    while (String(length).length + rest !== length) length = String(length).length + rest;
    return Buffer.concat([Buffer.from(`${length} ${key}=`), value, Buffer.from('\n')]);
}

function header({ path, mode, uid, gid, size, mtime, type, target, major, minor }) {
    const head = Buffer.alloc(512);
    const put = (at, length, text) => Buffer.from(text).copy(head, at, 0, Math.min(length, Buffer.byteLength(text)));
    put(0, 100, path);
    put(100, 8, octal(mode, 8));
    put(108, 8, octal(uid, 8));
    put(116, 8, octal(gid, 8));
    put(124, 12, octal(size, 12));
    put(136, 12, octal(mtime, 12));
    put(148, 8, '        ');
    put(156, 1, type);
    put(157, 100, target);
    put(257, 8, 'ustar\x0000');
    put(329, 8, octal(major, 8));
    put(337, 8, octal(minor, 8));
    put(148, 8, `${octal(head.reduce((total, byte) => total + byte, 0), 7)} `);
    return head;
}

/** Bytes that do not compress, always the same ones. */
export function noise(length, seed = 1) {
    const bytes = Buffer.alloc(length);
    let state = seed;
    for (let at = 0; at + 4 <= length; at += 4) {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        bytes.writeInt32LE(state, at);
    }
    return bytes;
}

/** Writes an OCI layout with one image of these tars, and gives its path. */
export function layout(name, tars, { architectures = ['amd64'], history, compress = gzipSync, suffix = '+gzip' } = {}) {
    const dir = join(work, name);
    mkdirSync(join(dir, 'blobs/sha256'), { recursive: true });
    const blob = (bytes, mediaType, more = {}) => {
        const digest = sha256(bytes);
        writeFileSync(join(dir, 'blobs/sha256', digest.slice(7)), bytes);
        return { mediaType, digest, size: bytes.length, ...more };
    };
    const json = (value, kind, more) => blob(Buffer.from(JSON.stringify(value)), `application/vnd.oci.image.${kind}.v1+json`, more);
    const layers = tars.map((bytes) => blob(compress(bytes), `application/vnd.oci.image.layer.v1.tar${suffix}`));
    const manifests = architectures.map((architecture) => {
        const config = json({
            created: '2026-01-02T03:04:05Z',
            architecture,
            os: 'linux',
            config: { Env: ['PATH=/usr/bin', 'COLOUR=blue'], Entrypoint: ['/usr/bin/tool'], Cmd: ['--help'], WorkingDir: '/srv', User: '1000', Labels: { a: 'b' } },
            rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
            history: history ?? tars.map((_, index) => ({ created_by: `make layer ${index}` })),
        }, 'config');
        return json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config, layers }, 'manifest', { platform: { os: 'linux', architecture } });
    });
    const top = manifests.length === 1 ? manifests[0] : json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }, 'index');
    const { platform: _, ...descriptor } = top;
    const named = { ...descriptor, annotations: { 'org.opencontainers.image.ref.name': 'plain' } };
    writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [named] }));
    writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    return `oci:${dir}:plain`;
}

/** Makes an image lazy on its way to a registry. */
export async function convert(from, to, args = []) {
    const home = join(work, 'home');
    mkdirSync(home, { recursive: true });
    await run(binary, ['convert', from, to, ...args], { env: { ...process.env, HOME: home, XDG_CACHE_HOME: join(home, '.cache') } });
}

/** Copies an image as it is. */
export async function copy(from, to) {
    await run('skopeo', ['copy', '--insecure-policy', '--dest-tls-verify=false', from, `docker://${to}`]);
}
