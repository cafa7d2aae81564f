import { say } from './live';

/** Copies a text, and says `done` when it is. */
export function copy(text: string, done = 'Copied'): void {
    void navigator.clipboard?.writeText(text).then(
        () => say(done),
        () => say('The browser does not allow copying'),
    );
}
