/**
 * Which package a file belongs to, by the databases of dpkg (also those of distroless images), apk and rpm. They are read
 * when details are first asked for, and only if that fetches no more than is allowed: otherwise it is said what it would.
 */
import { normal } from './paths';
import { DATABASES, RpmDatabase } from './rpm';

/** What a reader of the databases can do. Paths are those of files, symbolic links not followed. */
export interface Files {
    /** Names in a directory; empty where there is none. */
    list: (directory: string) => string[];
    /** Bytes of a file; `null` where there is none. */
    size: (path: string) => number | null;
    /** Bytes to fetch to read these files. */
    estimate: (paths: string[]) => Promise<number>;
    /** Contents as text, in any order. */
    read: (paths: string[]) => AsyncGenerator<{ path: string; text: string }, void, undefined>;
    /** Exactly these bytes of a file. */
    part: (path: string, offset: number, length: number) => Promise<Uint8Array>;
}

/** The package, or how many bytes it takes to know. */
export type Owner = { package: string | null } | { cost: number };

const APK = '/lib/apk/db/installed';
const STATUS = '/var/lib/dpkg/status';
const INFO = '/var/lib/dpkg/info';
const DISTROLESS = '/var/lib/dpkg/status.d';

export class Packages {
    readonly #files: Files;
    readonly #texts: string[];
    readonly #rpm: { path: string; database: RpmDatabase }[];
    #owners: Promise<Map<string, string>> | null = null;

    constructor(files: Files) {
        this.#files = files;
        const lists = files.list(INFO).filter((name) => name.endsWith('.list')).map((name) => `${INFO}/${name}`);
        const distroless = files.list(DISTROLESS).map((name) => `${DISTROLESS}/${name}`);
        this.#texts = [APK, STATUS, ...lists, ...distroless].filter((path) => files.size(path) !== null);
        // What stands in a log beside a database is not in it yet: then it says nothing.
        this.#rpm = DATABASES.filter((path) => !files.size(`${path}-wal`)).flatMap((path) => {
            const size = files.size(path);
            return size === null ? [] : [{ path, database: new RpmDatabase((offset, length) => files.part(path, offset, length), size) }];
        });
    }

    /** The package of a path, if finding it out fetches at most so many bytes. */
    async owner(path: string, most: number): Promise<Owner> {
        const cost = await this.#files.estimate([...(this.#owners ? [] : this.#texts), ...this.#rpm.map(({ path }) => path)]);
        if (cost > most) return { cost };
        // Also by the name before directories were merged into `/usr`.
        const paths = [path, path.startsWith('/usr/') ? path.slice(4) : `/usr${path}`];
        const owners = await (this.#owners ??= this.#read());
        for (const name of paths) {
            const found = owners.get(name);
            if (found) return { package: found };
        }
        for (const { database } of this.#rpm) {
            const found = await database.owner(paths);
            if (found) return { package: found };
        }
        return { package: null };
    }

    async #read(): Promise<Map<string, string>> {
        const found = new Map<string, string>();
        const versions = new Map<string, string>();
        const owned: { name: string; text: string; md5: boolean }[] = [];
        for await (const { path, text } of this.#files.read(this.#texts)) {
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
