/** Failures, as people see them. */
import { ApiError, type Problem } from '../api';
import type { ErrorCode } from './instance';

/** Makes an error to throw. */
export function problem(kind: Problem['kind'], message: string, more: Partial<Problem> = {}): ApiError {
    return new ApiError({ kind, message, ...more });
}

/** What went wrong, whatever was thrown. */
export function asProblem(thrown: unknown): Problem {
    if (thrown instanceof ApiError) return thrown.problem;
    const message = thrown instanceof Error ? thrown.message : String(thrown);
    return { kind: 'internal', message: `A mistake in this page: ${message}` };
}

/** Whether trying again later can help. */
export function isTransient({ kind }: Problem): boolean {
    return kind === 'offline' || kind === 'unreachable' || kind === 'too-many-requests' || kind === 'registry';
}

/** What an error of the engine is about. */
export interface About {
    path?: string;
    layer?: number;
}

/** Calls into the engine; an `error-code` that it throws comes out as an {@link ApiError}. */
export function engine<T>(call: () => T, about: About = {}): T {
    try {
        return call();
    } catch (thrown) {
        const code = errorCode(thrown);
        if (!code) throw thrown;
        throw translate(code, about);
    }
}

/** The `error-code` in what the glue threw, if it is one. */
function errorCode(thrown: unknown): ErrorCode | null {
    if (thrown instanceof WebAssembly.RuntimeError || typeof thrown !== 'object' || thrown === null) return null;
    const code = (thrown as { payload?: unknown }).payload ?? thrown;
    return typeof (code as { tag?: unknown }).tag === 'string' ? (code as ErrorCode) : null;
}

function translate(code: ErrorCode, { path, layer }: About): ApiError {
    const what = path ?? (layer === undefined ? 'the image' : `layer ${layer + 1}`);
    const more: Partial<Problem> = layer === undefined ? {} : { layer };
    switch (code.tag) {
        case 'not-found':
            return problem('not-found', `There is nothing at ${what}.`, more);
        case 'wrong-kind':
            return problem('wrong-kind', `${what} is not of the kind that this needs, such as a directory or a file.`, more);
        case 'too-many-links':
            return problem('wrong-kind', `${what} leads through more symbolic links than Linux follows.`, more);
        case 'not-lazy':
            return problem('not-lazy', 'This is an ordinary layer: it has to be downloaded whole to be read.', more);
        case 'malformed': {
            const blobRange = plain(code.val.blobRange);
            return problem('malformed', `${what} is damaged: ${code.val.message}. Whoever built or stored the image has to mend it.`, {
                ...more,
                ...(blobRange ? { blobRange } : {}),
            });
        }
        case 'digest-mismatch': {
            const { expected, actual } = code.val;
            const blobRange = plain(code.val.blobRange);
            return problem('digest-mismatch', `${what} is not what the image promises: ${actual} came instead of ${expected}. The bytes were thrown away.`, {
                ...more,
                expected,
                actual,
                ...(blobRange ? { blobRange } : {}),
            });
        }
        case 'limit-exceeded':
            return problem('limit-exceeded', `${what} asks for too much: ${code.val.subject}, at most ${code.val.maximum} are allowed.`, more);
        case 'unverifiable':
            return problem('unverifiable', `${what} cannot be checked: ${code.val}.`, more);
        case 'unsupported':
            return problem('unsupported', `${what} is of a kind that is not known here: ${code.val}.`, more);
        default:
            return problem('internal', `A mistake in this page: ${code.val}`, more);
    }
}

function plain(range: { offset: bigint; length: bigint } | undefined): { offset: number; length: number } | undefined {
    return range && { offset: Number(range.offset), length: Number(range.length) };
}
