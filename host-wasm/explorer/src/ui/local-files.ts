/** Files of this computer that the page was given. They are there for as long as the page is. */
import { signal } from '@preact/signals';
import type { Place } from '../api';
import { isFile, placeOf } from '../reference';
import { format, go, route, start } from './route';
import { refused, retry } from './session';

const given = new Map<string, File>();

/** Whether something is dragged over the page that can be dropped. */
export const dragging = signal(false);

/** The file of a place, if it is one and was given. */
export function fileAt(place: Place): File | undefined {
    return isFile(place) ? given.get(place.repository) : undefined;
}

/** Opens a file; what the address shows of it, where that is a link to a file with this name. */
export function openFile(file: File): void {
    const place = placeOf(file);
    given.set(place.repository, file);
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
