/** What looking at the image has cost so far. */
import { isFile } from '../reference';
import { bytes, counted, percent } from './format';
import { image, meter, openLayers, other } from './session';

export function MeterBar() {
    const now = meter.value;
    if (!now || !image.value) return null;
    const { fetched, cached, total, requests } = now;
    if (isFile(image.value.place)) {
        return (
            <footer class="meter" aria-label="Bytes transferred">
                <span>A file of this computer: no network is used. Links to it are good for as long as this page is open.</span>
            </footer>
        );
    }
    return (
        <footer class="meter" aria-label="Bytes transferred">
            <span>
                <b data-meter="fetched">{bytes(fetched)}</b> of {bytes(total)} fetched (<b>{percent(fetched, total)}</b>)
            </span>
            <span>
                <b>{bytes(cached)}</b> from this browser's cache
            </span>
            <span>{counted(requests, 'request')}</span>
            {fetched < total && openLayers.value.length > 0 && (
                <span>
                    <b>{percent(total - fetched, total)}</b> saved against a pull
                </span>
            )}
            {other.meter.value && <span>{bytes(other.meter.value.fetched)} of the image that it is compared with</span>}
            {image.value.offline && <span class="offline">offline: what was seen before</span>}
        </footer>
    );
}
