import type { ErrorCode } from './engine/interfaces/lazystar-engine-types.js';

/** Why the engine refused something. */
export class EngineError extends Error {
    /** The case of `error-code` and what it holds, such as the digests that differ. */
    readonly code: ErrorCode;

    constructor(code: ErrorCode) {
        const detail = 'val' in code ? code.val : undefined;
        super(describe(code.tag, detail));
        this.name = new.target.name;
        this.code = code;
    }
}

/** An ordinary layer, which cannot be read lazily. */
export class NotLazy extends EngineError {}
/** The blob or its table of contents is damaged or impossible. */
export class Malformed extends EngineError {}
/** Bytes do not have the digest that they should have; `code.val` says which, and where they came from. */
export class DigestMismatch extends EngineError {}
/** The image asks for more than a limit allows. */
export class LimitExceeded extends EngineError {}
/** The image cannot be checked as far as asked for. */
export class Unverifiable extends EngineError {}
/** There is nothing at this path. */
export class NotFound extends EngineError {}
/** A file where a directory is needed, or the reverse. */
export class WrongKind extends EngineError {}
/** More symbolic links on the way than Linux follows. */
export class TooManyLinks extends EngineError {}
/** The engine was called wrongly. */
export class ProtocolError extends EngineError {}
/** Well formed, but of a kind that the engine does not know. */
export class Unsupported extends EngineError {}

const classes: Partial<Record<ErrorCode['tag'], typeof EngineError>> = {
    'not-lazy': NotLazy,
    malformed: Malformed,
    'digest-mismatch': DigestMismatch,
    'limit-exceeded': LimitExceeded,
    unverifiable: Unverifiable,
    'not-found': NotFound,
    'wrong-kind': WrongKind,
    'too-many-links': TooManyLinks,
    protocol: ProtocolError,
    unsupported: Unsupported,
};

function describe(tag: string, detail: unknown): string {
    if (typeof detail === 'string') return detail;
    if (typeof detail !== 'object' || detail === null) return tag;
    if ('message' in detail) return String(detail.message);
    if ('expected' in detail && 'actual' in detail) {
        return `digest ${String(detail.actual)} instead of ${String(detail.expected)}: corrupt or altered data`;
    }
    if ('subject' in detail && 'maximum' in detail) {
        return `${String(detail.subject)}: more than the limit of ${String(detail.maximum)}`;
    }
    return tag;
}

/** Calls into the engine; an `error-code` that it throws comes out as an {@link EngineError}. */
export function engine<T>(call: () => T): T {
    try {
        return call();
    } catch (thrown) {
        const code = (thrown as { payload?: unknown }).payload ?? thrown;
        const tag = (code as { tag?: unknown }).tag;
        if (typeof tag !== 'string' || thrown instanceof WebAssembly.RuntimeError) throw thrown;
        throw new (classes[tag as ErrorCode['tag']] ?? EngineError)(code as ErrorCode);
    }
}
