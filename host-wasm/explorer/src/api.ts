/**
 * What the page and the engine's worker say to each other. There is one worker for each open image; the page calls
 * {@link ImageEngine} through comlink. Everything here can be cloned; sizes and offsets are bytes, times are seconds
 * since 1970.
 */

/** Where an image is: in a registry, in an OCI layout on a web server, or in a file of this computer. */
export interface Place {
    /**
     * The host as references name it, such as `docker.io` or `127.0.0.1:5000`. Of a layout the URL of the directory that it
     * is in; of a file `file:`.
     */
    registry: string;
    /** Of a layout the name of its directory, `.` at the top of a server; of a file its name. */
    repository: string;
    /** A tag or a digest; of layouts and files empty for the first image. */
    reference: string;
}

/** How registries are reached. */
export interface Access {
    /** The path in front of `HOST/v2/…` where this page's server is a proxy; `null` asks registries directly. */
    proxy: string | null;
    /** `Basic` credentials for the registry, in direct mode only. */
    authorization?: string | undefined;
    /** The file, of a place that is one. */
    file?: File | undefined;
}

/** How far bytes can be trusted, as the engine says it. */
export type Assurance = 'verified' | 'consistent' | 'unverified';

/** What an image of an index runs on. */
export interface Platform {
    os: string;
    architecture: string;
    variant: string;
    /** The digest of its manifest. */
    digest: string;
    size: number;
}

/** How a layer changes a path. */
export type Change = 'added' | 'modified' | 'metadata-only' | 'duplicated' | 'removed';

/** How many paths a layer changes. */
export type Changes = Record<Change, number>;

/** What is known of a layer. It grows: the layer is opened, then what it changes is counted. */
export interface LayerFacts {
    /** Counted from the bottom. */
    index: number;
    digest: string;
    mediaType: string;
    /** Bytes of the blob. */
    size: number;
    /** The command of the history that made it; empty when the configuration does not say. */
    command: string;
    state: 'opening' | 'open' | 'ordinary' | 'downloading' | 'failed';
    /** Why it is not open, for people. */
    problem: Problem | null;
    /** `estargz`, `estargz-external-toc`, `stargz`, `zstd-chunked`; `tar` for an ordinary layer that was downloaded. */
    format: string | null;
    entries: number;
    /** Plain bytes of its regular files. */
    content: number;
    tocDigest: string | null;
    assurance: Assurance | null;
    changes: Changes | null;
    /** Bytes downloaded so far, in state `downloading`. */
    progress: number;
}

/** An image whose documents were read. Its layers open in the background, see {@link Events}. */
export interface OpenImage {
    place: Place;
    /** Digest of the manifest that is shown: what links pin. */
    digest: string;
    /** Digest of the index that led to it. */
    indexDigest: string | null;
    /** Whether the registry could not be asked, and what was kept of an earlier time is shown. */
    offline: boolean;
    /** Those of the index; only one when there is none. */
    platforms: Platform[];
    platform: Platform;
    created: string | null;
    env: string[];
    entrypoint: string[];
    cmd: string[];
    workingDir: string;
    user: string;
    labels: [string, string][];
    history: { command: string; emptyLayer: boolean }[];
    layers: LayerFacts[];
}

/** Which tree: the merged one, or a layer alone, counted from the bottom. */
export type View = 'merged' | number;

export type Kind = 'directory' | 'regular' | 'symlink' | 'character-device' | 'block-device' | 'fifo' | 'whiteout';

/** A name in a tree. */
export interface Row {
    name: string;
    /** Starts with a slash; the root is `/`. */
    path: string;
    kind: Kind;
    /** Of a regular file; of a directory the sum of all below it, or `null` while that is not known. */
    size: number | null;
    /** Permission, set-id and sticky bits. */
    mode: number;
    uid: number;
    gid: number;
    modified: number;
    /** Number of names of a file. */
    links: number;
    /** Where a symbolic link points. */
    target: string | null;
    /** What a symbolic link leads to in the end, inside the image; `null` when to nothing. */
    resolved: string | null;
    /** `MAJOR:MINOR` of a device. */
    device: string | null;
    /** The layer that it is in. */
    layer: number;
    /** In the view of a layer: how that layer changes it. */
    change: Change | null;
    opaque: boolean;
    /** Paths of lower layers that a whiteout or an opaque directory hides, in the view of a layer. */
    hides: number;
}

export interface Page {
    rows: Row[];
    /** What to give as `start` for the next page; `null` after the last. */
    next: number | null;
}

/** What is shown of one object beside its row. */
export interface Details {
    row: Row;
    /** Values are bytes; `security.capability` for example is not text. */
    xattrs: { name: string; value: Uint8Array }[];
    chunks: { offset: number; length: number; blobOffset: number | null; blobLength: number | null; digest: string | null }[];
    /** Layers that have something at this path, from the bottom; `removed` is where a whiteout or an opaque directory hides it. */
    versions: { layer: number; kind: Kind; size: number; removed: boolean }[];
    /** Other names of the same file in its layer. */
    hardLinks: string[];
    /** `NAME VERSION` of the dpkg, apk or rpm package that it belongs to; `null` when none, `undefined` while not known. */
    packageOwner?: string | null;
    /** What would be fetched to know it, where that is much. */
    packageCost?: number;
}

/** A part of a file. */
export interface Piece {
    bytes: Uint8Array;
    assurance: Assurance;
}

/** A path that a search came to. */
export interface Found {
    row: Row;
    /** Whether the merged tree shows it. */
    visible: boolean;
}

/** What a layer does to a path. */
export interface Difference {
    path: string;
    change: Change;
    /** Sizes; `null` where there is nothing. */
    before: number | null;
    after: number | null;
}

/** An object of the merged tree, with all that tells it from those of other images. */
export interface Listed {
    path: string;
    kind: Kind;
    /** Of a regular file; otherwise 0. */
    size: number;
    mode: number;
    uid: number;
    gid: number;
    modified: number;
    /** Where a symbolic link points, or `MAJOR:MINOR` of a device. */
    leads: string | null;
    /** A digest of all extended attributes; empty when there are none. */
    xattrs: string;
    /**
     * Of a regular file: the digest of its content, as the table of contents promises it. Of several chunks it is that of
     * their digests, and tells contents apart only where `cut` is the same, which is how they are cut. `null` where there
     * are no digests.
     */
    content: { cut: string; digest: string } | null;
    layer: number;
    /** The layer's digest and a number in it: where this is the same in two images, everything is. */
    object: string;
    links: number;
}

/** Space that no container sees. */
export interface Efficiency {
    stored: number;
    visible: number;
    worst: { path: string; bytes: number; layers: number }[];
    /** Where the waste comes from: stored bytes of copies that an upper layer… */
    tallies: { overwritten: number; removed: number; duplicated: number; metadataOnly: number };
}

/** What was transferred. */
export interface Meter {
    /** Bytes of bodies that came from the registry since the image was opened. */
    fetched: number;
    /** Bytes that were taken from the cache of the browser instead. */
    cached: number;
    /** Bytes of all layers of the image. */
    total: number;
    requests: number;
    /** For each layer the ranges of its blob that were touched: offset and length, sorted, joined. */
    touched: [number, number][][];
}

/** A failure, as people see it. */
export interface Problem {
    kind:
        | 'offline'
        | 'unreachable'
        | 'cors'
        | 'unauthorized'
        | 'forbidden'
        | 'not-found'
        | 'too-many-requests'
        | 'registry'
        | 'not-lazy'
        | 'malformed'
        | 'digest-mismatch'
        | 'unverifiable'
        | 'unsupported'
        | 'limit-exceeded'
        | 'wrong-kind'
        | 'file'
        | 'internal';
    /** What happened, whose fault it is, what to do. */
    message: string;
    /** HTTP status, where there was one. */
    status?: number;
    /** Seconds to wait, after `too-many-requests`. */
    retryAfter?: number;
    /** What was promised and what came, after `digest-mismatch`. */
    expected?: string;
    actual?: string;
    /** Where in which blob. */
    layer?: number;
    blobRange?: { offset: number; length: number };
}

/** What the worker tells without being asked. */
export type Events =
    | { type: 'layer'; layer: LayerFacts }
    | { type: 'meter'; meter: Meter }
    /** Sizes of directories of this view are known now. */
    | { type: 'sizes'; view: View }
    /** A chunk or table failed its check. The bytes were thrown away. */
    | { type: 'failure'; problem: Problem; path: string | null };

/** What a read takes. */
export interface Cost {
    /** Bytes to fetch, with what lies between what is wanted. */
    bytes: number;
    /** Bytes of the blobs that are kept already. */
    kept: number;
    /** Requests, about. */
    requests: number;
}

export interface Progress {
    done: number;
    total: number;
}

/**
 * A function of the page that the engine calls, and waits for: it has a port of its own, and what is sent there may come later
 * than the answer of the call that it was given to.
 */
export type Hears<T> = (told: T) => void | Promise<void>;

/** One image. Every call may fail with an `ApiError`, whose `problem` is a {@link Problem}. */
export interface ImageEngine {
    /** Reads the documents of an image and begins to open its layers. `onEvent` hears the rest. */
    open(place: Place, access: Access, platform: string | null, onEvent: (event: Events) => void): Promise<OpenImage>;
    /** The names in a directory, sorted by their bytes, in pages of at most 1000. */
    children(view: View, path: string, start: number): Promise<Page>;
    /** The object at a path. `follow` follows a symbolic link at its end. */
    stat(view: View, path: string, follow: boolean): Promise<Row>;
    details(view: View, path: string): Promise<Details>;
    /** The package of a path, as in {@link Details}, whatever has to be fetched for it. */
    packageOf(path: string): Promise<string | null>;
    /** A part of a file, verified; cut at its end, and at 8 MiB. */
    read(view: View, path: string, offset: number, length: number): Promise<Piece>;
    /** Bytes that reading this part would fetch from the registry now. */
    estimate(view: View, path: string, offset: number, length: number): Promise<number>;
    /** What reading a file, or all of a directory, would fetch now; with `only` no more of it than these paths below it. */
    cost(view: View, path: string, only?: string[]): Promise<Cost>;
    /** A whole file, as it is fetched and verified. */
    stream(view: View, path: string): Promise<ReadableStream<Uint8Array>>;
    /** A directory or file as a tar, with owners, times, links and extended attributes; `only` as for `cost`. */
    tar(view: View, path: string, only?: string[]): Promise<ReadableStream<Uint8Array>>;
    /**
     * Looks through all layers, removed files included. Words and globs (`*`, `?`) of the path, `type:`, `size>`, `size<`,
     * `mode:`, `layer:` (from 1 at the bottom), `is:setuid`, `is:hidden`. `onPage` gets results as they are found; the answer is their number.
     * Another search, or `cancelSearch`, ends it.
     */
    search(query: string, onPage: Hears<Found[]>): Promise<number>;
    cancelSearch(): Promise<void>;
    efficiency(): Promise<Efficiency>;
    /** What a layer changes in those below it, from the `start`th on, at most 1000. */
    differences(layer: number, start: number): Promise<{ items: Difference[]; next: number | null }>;
    /** The merged tree, names by their bytes and a directory before what is in it, from the `start`th object on, at most 1000. Fetches nothing. */
    listing(start: number): Promise<{ items: Listed[]; next: number | null }>;
    /** One object of it; `null` where there is none. */
    listed(path: string): Promise<Listed | null>;
    /** Opens a layer once more that could not be opened. */
    reopen(layer: number): Promise<LayerFacts>;
    /** Downloads an ordinary layer and indexes it. */
    download(layer: number): Promise<LayerFacts>;
    /** Reads and checks all of a layer. */
    verify(layer: number, onProgress: Hears<Progress>): Promise<void>;
    /** The tags of the repository. */
    tags(): Promise<string[]>;
    meter(): Promise<Meter>;
}

/** What the browser keeps for all images. */
export interface CacheFacts {
    /** Bytes of verified chunks, tables and documents. */
    used: number;
    /** How many at most. */
    limit: number;
}

/** A failure of a call of {@link ImageEngine}. */
export class ApiError extends Error {
    override readonly name = 'ApiError';
    constructor(readonly problem: Problem) {
        super(problem.message);
    }
}
