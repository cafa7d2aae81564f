/**
 * Reads files out of lazily readable container images, verified, fetching only what is read.
 *
 * @module
 */
export * from './errors.js';
export { Image } from './image.js';
export type { DirectoryEntry, OpenOptions, Part } from './image.js';
export { Registry, SourceError } from './sources.js';
export type { Source } from './sources.js';
export type { Difference, Efficiency, Found, Located, Waste } from './engine/interfaces/lazystar-engine-overlay.js';
export type { Assurance, Entry, ErrorCode } from './engine/interfaces/lazystar-engine-types.js';
