/** What the service worker and the page with the image say to each other, through a port for each request. */
import type { View } from './api';

/** Who has this? */
export interface Ask {
    /** `REGISTRY/REPOSITORY@DIGEST`. */
    image: string;
    path: string;
    view: View;
    tar: boolean;
    /** Of a tar: the paths below that it is to have; none means all. */
    only: string[];
}

/** A page first says that it has the image (`{ wait: true }`), then what is there. `text` is whether it looks like text, `name` what it is called as a download. */
export type Answer = { absent: true } | { size: number; text: boolean; name: string } | { status: number; message: string };

/** Gives a part of the file, or the next piece of the tar. */
export type Pull = { offset: number; length: number } | { next: true } | { stop: true };

export type Piece = { bytes: Uint8Array } | { end: true } | { failed: string };
