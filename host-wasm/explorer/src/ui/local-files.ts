/** Opens files of this computer, chosen or dropped. */
import { signal } from '@preact/signals';
import { isFile } from '../reference';
import { give } from './given';
import { format, go, route, start } from './route';
import { refused, retry } from './session';

/** Whether something is dragged over the page that can be dropped. */
export const dragging = signal(false);

/** Opens a file; what the address shows of it, where that is a link to a file with this name. */
export function openFile(file: File): void {
    const place = give(file);
    const { place: now } = route.value;
    const isAwaited = now !== null && isFile(now) && now.repository === place.repository && refused.value?.kind === 'file';
    if (isAwaited) return retry();
    const before = format(route.value);
    go({ ...start, place });
    // The same name may be another file now.
    if (format(route.value) === before) retry();
}

/** Takes files that are dropped anywhere on the page. */
export function listenForFiles(): void {
    const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;
    window.addEventListener('dragover', (event) => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        dragging.value = true;
    });
    window.addEventListener('dragleave', (event) => {
        if (event.relatedTarget === null) dragging.value = false;
    });
    window.addEventListener('drop', (event) => {
        dragging.value = false;
        if (!hasFiles(event)) return;
        event.preventDefault();
        const file = event.dataTransfer?.files[0];
        if (file) openFile(file);
    });
}
