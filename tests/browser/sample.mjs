// The image that most tests look at. What its layers hold is stated here once, entry by entry.
import { noise, tar } from './images.mjs';

const many = Array.from({ length: 400 }, (_, index) => ({ path: `many/file-${String(index).padStart(3, '0')}.txt`, content: `number ${index}\n`.repeat(20) }));
const long = `long/${'a-rather-long-name-'.repeat(6)}/${'b'.repeat(120)}.txt`;

export const big = noise(20 << 20);
export const capability = Buffer.from([1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 10, 61, 0, 255, 0, 0, 0]);

const base = [
    { path: './' },
    { path: 'etc/' },
    { path: 'etc/os-release', content: 'NAME="Sample"\nID=sample\n' },
    { path: 'etc/passwd', content: 'root:x:0:0::/:/bin/sh\n' },
    { path: 'etc/shadow', content: 'secret\n', mode: 0o600 },
    { path: 'usr/' },
    { path: 'usr/bin/' },
    { path: 'usr/bin/tool', content: noise(300_000, 7), mode: 0o4755, mtime: 1_650_000_000.25 },
    { path: 'usr/bin/alias', type: 'link', target: 'usr/bin/tool' },
    { path: 'usr/bin/cap', content: '#!/bin/sh\n', mode: 0o755, xattrs: { 'security.capability': capability, 'user.note': 'a=b' } },
    { path: 'bin', type: 'symlink', target: 'usr/bin', mode: 0o777 },
    { path: 'usr/lib/' },
    { path: 'usr/lib/deep/' },
    { path: 'usr/lib/deep/er/', uid: 1000, gid: 1001, mode: 0o2775 },
    { path: 'usr/lib/deep/er/needle.txt', content: 'found it\n', uid: 1000, gid: 1001, mtime: -86_400.5 },
    { path: 'usr/lib/up', type: 'symlink', target: '../../../../etc/passwd' },
    { path: 'usr/lib/nowhere', type: 'symlink', target: '/not/there' },
    { path: 'usr/lib/round', type: 'symlink', target: 'round' },
    { path: 'dev/' },
    { path: 'dev/null', type: 'char', major: 1, minor: 3, mode: 0o666 },
    { path: 'dev/disk', type: 'block', major: 8, minor: 1, mode: 0o660, gid: 6 },
    { path: 'run/' },
    { path: 'run/pipe', type: 'fifo', mode: 0o620 },
    { path: 'long/' },
    { path: `${long.split('/').slice(0, 2).join('/')}/` },
    { path: long, content: 'long\n' },
    { path: 'names/' },
    { path: 'names/größe 測試.txt', content: 'unicode\n' },
    { path: 'names/<img src=x onerror=alert(1)>.html', content: '<script>alert(document.domain)</script>\n' },
    { path: 'names/turn\u202egpj.exe', content: 'bidi\n' },
    { path: 'cache/' },
    { path: 'cache/old-1', content: 'old one\n'.repeat(1000) },
    { path: 'cache/old-2', content: 'old two\n'.repeat(1000) },
    { path: 'cache/sub/' },
    { path: 'cache/sub/old-3', content: 'old three\n' },
    { path: 'gone/' },
    { path: 'gone/file', content: 'this is going\n' },
    { path: 'gone/below/' },
    { path: 'gone/below/file', content: 'this too\n' },
    { path: 'many/' },
    ...many,
    { path: 'big.bin', content: big },
    { path: 'empty', content: '' },
];

const change = [
    { path: 'etc/' },
    { path: 'etc/os-release', content: 'NAME="Sample"\nID=sample\nVERSION=2\n' },
    { path: 'etc/.wh.shadow' },
    { path: 'usr/' },
    { path: 'usr/bin/' },
    { path: 'usr/bin/cap', content: '#!/bin/sh\n', mode: 0o700 },
    { path: 'cache/', mode: 0o700 },
    { path: 'cache/.wh..wh..opq' },
    { path: 'cache/new', content: 'new\n' },
    { path: '.wh.gone' },
    { path: 'many/' },
    { ...many[0] },
];

const top = [
    { path: 'srv/' },
    { path: 'srv/app.txt', content: 'application\n' },
    { path: 'lib/' },
    { path: 'lib/apk/' },
    { path: 'lib/apk/db/' },
    { path: 'lib/apk/db/installed', content: 'P:tool\nV:1.2-r3\nF:usr/bin\nR:tool\nR:cap\n\nP:other\nV:9\nF:srv\nR:app.txt\n\n' },
    ...['var/', 'var/lib/', 'var/lib/dpkg/', 'var/lib/dpkg/info/'].map((path) => ({ path })),
    { path: 'var/lib/dpkg/status', content: 'Package: sewing\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.3-4\nDescription: sharp\n more\n\n' },
    { path: 'var/lib/dpkg/info/sewing:amd64.list', content: '/.\n/usr\n/usr/lib\n/usr/lib/deep/er/needle.txt\n' },
];

export const layers = [base, change, top];
export const tars = () => layers.map(tar);

/** The tree that a container sees: entries by their paths. */
export function merged() {
    const tree = new Map();
    for (const layer of layers) {
        const clean = ({ path }) => `/${path.replace(/^\.\//, '').replace(/\/$/, '')}`;
        for (const entry of layer) {
            const path = clean(entry);
            const name = path.slice(path.lastIndexOf('/') + 1);
            const directory = path.slice(0, path.lastIndexOf('/'));
            const remove = (top) => [...tree.keys()].filter((key) => key.startsWith(`${top}/`)).forEach((key) => tree.delete(key));
            if (name === '.wh..wh..opq') remove(directory);
            else if (name.startsWith('.wh.')) {
                tree.delete(`${directory}/${name.slice(4)}`);
                remove(`${directory}/${name.slice(4)}`);
            }
        }
        for (const entry of layer) {
            if (!/(^|\/)\.wh\./.test(entry.path)) tree.set(clean(entry), { type: entry.path.endsWith('/') ? 'directory' : 'file', uid: 0, gid: 0, mtime: 1_700_000_000, ...entry });
        }
    }
    return tree;
}

/** The bytes of a file of that tree. */
export function content(tree, path) {
    const entry = tree.get(path);
    return entry.type === 'link' ? content(tree, `/${entry.target}`) : Buffer.from(entry.content);
}
