/** A question before something that costs: people go on, or do not. */
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { visible } from './escape';

interface Question {
    title: string;
    text: string;
    /** What going on is called. */
    yes: string;
    answer(yes: boolean): void;
}

const asked = signal<Question | null>(null);

/** Asks, and says whether to go on. A question that is open already is answered with no. */
export function ask(title: string, text: string, yes: string): Promise<boolean> {
    asked.peek()?.answer(false);
    return new Promise((answer) => (asked.value = { title, text, yes, answer }));
}

export function Asking() {
    const dialog = useRef<HTMLDialogElement>(null);
    const question = asked.value;
    useEffect(() => {
        if (question) dialog.current?.showModal();
    }, [question]);
    if (!question) return null;
    const end = (yes: boolean): void => {
        asked.value = null;
        question.answer(yes);
    };
    return (
        <dialog ref={dialog} class="help asking" aria-labelledby="asking-title" aria-describedby="asking-text" onClose={() => end(false)}>
            <h2 id="asking-title">{visible(question.title)}</h2>
            <p id="asking-text">{question.text}</p>
            <span class="actions">
                <button type="button" class="main" onClick={() => end(true)}>
                    {question.yes}
                </button>
                <button type="button" onClick={() => end(false)}>
                    Cancel
                </button>
            </span>
        </dialog>
    );
}
