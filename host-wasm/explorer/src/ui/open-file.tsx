/** A button that opens a file of this computer, and what is shown while one is dragged. */
import { useRef } from 'preact/hooks';
import { dragging, openFile } from './local-files';

export function OpenFile({ use = openFile }: { use?: (file: File) => void }) {
    const input = useRef<HTMLInputElement>(null);
    const take = ({ currentTarget }: Event): void => {
        const field = currentTarget as HTMLInputElement;
        const file = field.files?.[0];
        // So that the same file can be chosen again.
        field.value = '';
        if (file) use(file);
    };
    return (
        <>
            <button type="button" onClick={() => input.current?.click()}>
                Open a file
            </button>
            <input ref={input} type="file" hidden aria-label="File with an image or a layer" onChange={take} />
        </>
    );
}

export function DropHint() {
    if (!dragging.value) return null;
    return (
        <div class="drop" role="status">
            <p>Drop an archive of an image or a layer to look inside.</p>
        </div>
    );
}
