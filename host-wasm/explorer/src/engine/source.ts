/** Where the documents and blobs of an image come from: a registry, an OCI layout by its URL, or a file of this computer. */
import type { Access, Place } from '../api';
import { isFile, isLayout } from '../reference';
import { LocalFile } from './file';
import { LayoutByUrl } from './layout';
import type { Meters } from './meter';
import { problem } from './problems';
import { Registry } from './registry';

export const LARGEST_DOCUMENT = 8 << 20;

/** Nothing of what it gives was checked. */
export interface Source {
    /** The index or manifest with this tag or digest. */
    document(reference: string): Promise<Uint8Array>;
    /** A whole blob of at most so many bytes, {@link LARGEST_DOCUMENT} unless said. */
    blob(digest: string, most?: number): Promise<Uint8Array>;
    /** Exactly these bytes of a blob. */
    range(digest: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
    /** A whole blob, a piece at a time. */
    download(digest: string, take: (piece: Uint8Array) => Promise<void> | void): Promise<void>;
    /** The tags that there are. */
    tags(): Promise<string[]>;
}

/** The source of an image. */
export async function source(place: Place, access: Access, meter: Meters): Promise<Source> {
    if (isLayout(place)) return new LayoutByUrl(place, meter);
    if (!isFile(place)) return new Registry(place, access, meter);
    if (access.file) return LocalFile.open(access.file);
    throw problem('file', `${place.repository} is a file of a computer, which no link can bring: pages see only files that they are given. Choose it again, or drop it here.`);
}
