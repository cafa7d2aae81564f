/** What this browser keeps of images, and how to be rid of it. */
import { useSignal } from '@preact/signals';
import { cacheFacts, clearCache } from '../engine/cache';
import { bytes } from './format';
import { say } from './live';
import { usePromised } from './promised';

export function Kept() {
    const cleared = useSignal(0);
    const facts = usePromised(cacheFacts, [], cleared.value);
    if (!facts.value || facts.value.limit === 0) return null;
    const clear = async (): Promise<void> => {
        await clearCache();
        cleared.value += 1;
        say('What was kept is gone');
    };
    return (
        <p class="kept">
            This browser keeps {bytes(facts.value.used)} of what was looked at (at most {bytes(facts.value.limit)}), checked again each
            time it is read.{' '}
            <button type="button" onClick={() => void clear()}>
                Clear
            </button>
        </p>
    );
}
