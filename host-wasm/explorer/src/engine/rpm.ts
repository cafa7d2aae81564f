/** Which rpm package a path belongs to: by the index of names in the database, so that little of it is read. */
import { base } from './paths';
import { RpmHeader } from './rpm-header';
import { Sqlite, type ReadAt } from './sqlite';

/** Where distributions have the database. Those of Berkeley DB and of ndb are not read. */
export const DATABASES = ['/usr/lib/sysimage/rpm/rpmdb.sqlite', '/var/lib/rpm/rpmdb.sqlite'];

export class RpmDatabase {
    readonly #read: ReadAt;
    readonly #size: number;
    #opening: Promise<{ database: Sqlite; names: number; index: number; packages: number } | null> | null = null;

    constructor(read: ReadAt, size: number) {
        this.#read = read;
        this.#size = size;
    }

    /** `NAME VERSION-RELEASE`, several with commas between them; `null` when no package has one of these paths. */
    async owner(paths: string[]): Promise<string | null> {
        const opened = await (this.#opening ??= this.#open());
        if (!opened) return null;
        const { database, names, index, packages } = opened;
        database.renew();
        const headers = new Map<number, RpmHeader>();
        const owners = new Set<string>();
        for (const name of new Set(paths.map(base))) {
            for await (const [, row] of database.entries(index, name)) {
                if (typeof row !== 'number') continue;
                const [, number, place] = (await database.row(names, row)) ?? [];
                if (typeof number !== 'number' || typeof place !== 'number') continue;
                let header = headers.get(number);
                if (!header) {
                    const [, blob] = (await database.row(packages, number)) ?? [];
                    if (!(blob instanceof Uint8Array)) continue;
                    header = new RpmHeader(blob);
                    headers.set(number, header);
                }
                if (paths.includes(header.file(place) ?? '')) owners.add(header.label);
            }
        }
        return owners.size > 0 ? [...owners].join(', ') : null;
    }

    async #open(): Promise<{ database: Sqlite; names: number; index: number; packages: number } | null> {
        const database = await Sqlite.open(this.#read, this.#size);
        const names = await database.root('table', 'Basenames');
        const index = await database.root('index', 'Basenames_key_idx');
        const packages = await database.root('table', 'Packages');
        return names !== null && index !== null && packages !== null ? { database, names, index, packages } : null;
    }
}
