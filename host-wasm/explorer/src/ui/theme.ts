/** Light or dark: as the system says, unless the person chose. */
import { effect, signal } from '@preact/signals';

export type Theme = 'system' | 'light' | 'dark';
const KEY = 'lazystar.theme';

export const theme = signal<Theme>(load());

effect(() => {
    const { classList } = document.documentElement;
    classList.toggle('light', theme.value === 'light');
    classList.toggle('dark', theme.value === 'dark');
    try {
        localStorage.setItem(KEY, theme.value);
    } catch {
        // It lasts for this visit, then.
    }
});

/** Chooses the next one. */
export function change(): void {
    const order: Theme[] = ['system', 'light', 'dark'];
    theme.value = order[(order.indexOf(theme.value) + 1) % order.length] ?? 'system';
}

function load(): Theme {
    try {
        const kept = localStorage.getItem(KEY);
        return kept === 'light' || kept === 'dark' ? kept : 'system';
    } catch {
        return 'system';
    }
}
