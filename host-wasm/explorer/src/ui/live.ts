import { signal } from '@preact/signals';

/** What a screen reader says next; the page has one live region. */
export const announcement = signal('');

export function say(text: string): void {
    announcement.value = text;
}
