/**
 * Which package a file belongs to, by the databases of dpkg (also those of distroless images) and apk. They are read once,
 * when details are first asked for, and only if that fetches no more than {@link CHEAP} bytes: otherwise the answer stays
 * unknown. That of rpm is not read.
 */
import { normal } from './paths';

/** What a reader of the databases can do. */
export interface Files {
    /** Names in a directory, with the sizes of files; empty where there is none. */
    list: (directory: string) => string[];
    /** Bytes to fetch to read these files. */
    estimate: (paths: string[]) => Promise<number>;
    /** Contents as text, in any order. */
    read: (paths: string[]) => AsyncGenerator<{ path: string; text: string }, void, undefined>;
}

const CHEAP = 1 << 20;
const APK = '/lib/apk/db/installed';
const STATUS = '/var/lib/dpkg/status';
const INFO = '/var/lib/dpkg/info';
const DISTROLESS = '/var/lib/dpkg/status.d';

/** Owners by path; `null` where reading them would cost too much. */
export async function owners(files: Files, resolve: (path: string) => string | null): Promise<Map<string, string> | null> {
    const lists = files.list(INFO).filter((name) => name.endsWith('.list')).map((name) => `${INFO}/${name}`);
    const distroless = files.list(DISTROLESS).map((name) => `${DISTROLESS}/${name}`);
    const single = [APK, STATUS].filter((path) => resolve(path) === path);
    const all = [...single, ...lists, ...distroless];
    const found = new Map<string, string>();
    if (all.length === 0) return found;
    if ((await files.estimate(all)) > CHEAP) return null;
    const versions = new Map<string, string>();
    const owned: { name: string; text: string; md5: boolean }[] = [];
    for await (const { path, text } of files.read(all)) {
        if (path === APK) apk(text, found);
        else if (path === STATUS) dpkg(text, versions);
        else if (path.startsWith(`${INFO}/`)) owned.push({ name: path.slice(INFO.length + 1, -'.list'.length).replace(/:.*$/, ''), text, md5: false });
        else if (path.endsWith('.md5sums')) owned.push({ name: path.slice(DISTROLESS.length + 1, -'.md5sums'.length), text, md5: true });
        else dpkg(text, versions);
    }
    for (const { name, text, md5 } of owned) {
        const label = `${name} ${versions.get(name) ?? ''}`.trim();
        for (const line of text.split('\n')) {
            const path = md5 ? `/${line.replace(/^[0-9a-f]+\s+/, '')}` : line;
            if (path.length > 1 && path !== '/.') found.set(normal(path), label);
        }
    }
    return found;
}

/** Looks a path up, also by its name before directories were merged into `/usr`. */
export function ownerOf(path: string, owners: Map<string, string>): string | null {
    return owners.get(path) ?? (path.startsWith('/usr/') ? owners.get(path.slice(4)) : owners.get(`/usr${path}`)) ?? null;
}

function dpkg(text: string, versions: Map<string, string>): void {
    for (const paragraph of text.split(/\n\s*\n/)) {
        const name = /^Package: *(.+)$/m.exec(paragraph)?.[1];
        const version = /^Version: *(.+)$/m.exec(paragraph)?.[1];
        if (name && version) versions.set(name.trim(), version.trim());
    }
}

function apk(text: string, found: Map<string, string>): void {
    for (const paragraph of text.split('\n\n')) {
        let [name, version, directory] = ['', '', ''];
        for (const line of paragraph.split('\n')) {
            const value = line.slice(2);
            if (line.startsWith('P:')) name = value;
            else if (line.startsWith('V:')) version = value;
            else if (line.startsWith('F:')) directory = value;
            else if (line.startsWith('R:')) found.set(normal(`${directory}/${value}`), `${name} ${version}`);
        }
    }
}
