/** The keys, all of which have a button or link, too. */
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

export const helping = signal(false);

const keys: [string, string][] = [
    ['↑ ↓ Home End PgUp PgDn', 'move in the tree; letters jump to a name'],
    ['→ ←', 'unfold and fold a directory, or go to the one above'],
    ['Enter', 'show a file; unfold a directory'],
    ['*', 'unfold all directories beside this one'],
    ['/', 'search'],
    ['[ ]', 'the layer below, the layer above'],
    ['v', 'show the file in the next way: text, hex, …'],
    ['d', 'download what the cursor is on'],
    ['x', 'select what the cursor is on, to download several as one tar; so does a click with Ctrl or ⌘'],
    ['y', 'copy a link to what is shown'],
    ['Esc', 'back to the files; close this'],
    ['?', 'this help'],
];

export function Help() {
    const dialog = useRef<HTMLDialogElement>(null);
    useEffect(() => {
        if (helping.value && !dialog.current?.open) dialog.current?.showModal();
        else if (!helping.value) dialog.current?.close();
    }, [helping.value]);
    return (
        <dialog ref={dialog} class="help" aria-labelledby="help-title" onClose={() => (helping.value = false)}>
            <h2 id="help-title">Keys</h2>
            <dl>
                {keys.map(([key, what]) => (
                    <div key={key}>
                        <dt>
                            <kbd>{key}</kbd>
                        </dt>
                        <dd>{what}</dd>
                    </div>
                ))}
            </dl>
            <p>
                Scripts reach the open image as <code>lazystar.image</code>: try <code>await lazystar.image.readdir('/')</code> in the
                console.
            </p>
            <button type="button" onClick={() => (helping.value = false)}>
                Close
            </button>
        </dialog>
    );
}
