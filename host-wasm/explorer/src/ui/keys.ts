/** Keys that work everywhere on the page but in fields for text. */
import { copyLink, nextTab } from './preview/preview';
import { helping } from './help';
import { go, route } from './route';
import { openLayers } from './session';

export function listen(): void {
    window.addEventListener('keydown', (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
        const target = event.target as HTMLElement;
        if (target.closest('input, textarea, select, dialog')) {
            if (event.key === 'Escape' && target.id === 'query') leaveSearch();
            return;
        }
        const action = actions[event.key];
        if (!action || !route.value.place) return;
        action();
        event.preventDefault();
    });
}

const actions: Record<string, () => void> = {
    '?': () => (helping.value = true),
    '/': () => document.getElementById('query')?.focus(),
    '[': () => layer(-1),
    ']': () => layer(1),
    v: nextTab,
    y: copyLink,
    d: () => document.querySelector<HTMLButtonElement>('.preview .actions button')?.click(),
    Escape: leaveSearch,
};

/** The next layer below or above; the merged tree is above the top one. */
function layer(step: number): void {
    const views = [...openLayers.value.map(({ index }) => index), 'merged' as const];
    const at = views.indexOf(route.value.view);
    const next = views[Math.min(Math.max(at + step, 0), views.length - 1)];
    if (next !== undefined && next !== route.value.view) go({ view: next });
}

function leaveSearch(): void {
    go({ panel: 'files', query: '' });
    requestAnimationFrame(() => document.querySelector<HTMLElement>('.files .rows')?.focus());
}
