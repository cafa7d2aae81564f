/** Reads and checks all of a layer, a group of files at a time. */
import type { Hears, Progress } from '../api';
import type { ImageLayer, Part } from './layer';
import { engine } from './problems';
import { Slices } from './slices';

const FILES = 1000;
const BYTES = 64 << 20;
const REPORT_MS = 100;

/** @throws what failed first; the bytes were fetched twice then */
export async function verify(layer: ImageLayer, onProgress: Hears<Progress>): Promise<void> {
    const files = await filesOf(layer);
    const total = files.reduce((sum, { length }) => sum + length, 0);
    let done = 0;
    let reported = 0;
    for (let from = 0; from < files.length; ) {
        let [to, bytes] = [from, 0];
        while (to < files.length && to - from < FILES && bytes < BYTES) {
            bytes += files[to]?.length ?? 0;
            to += 1;
        }
        for await (const content of layer.read(files.slice(from, to))) {
            done += content.bytes.length;
            if (performance.now() - reported < REPORT_MS) continue;
            reported = performance.now();
            await onProgress({ done, total });
        }
        from = to;
    }
    await onProgress({ done, total });
}

/** The regular files of a layer in the order of its blob. */
async function filesOf(layer: ImageLayer): Promise<Part[]> {
    const slices = new Slices();
    const files: (Part & { at: number })[] = [];
    for (let id = 0; id < layer.facts.entries; id += 500) {
        const ids = Uint32Array.from({ length: Math.min(500, layer.facts.entries - id) }, (_, index) => id + index);
        for (const { id: file, kind, size } of engine(() => layer.layer?.stat(ids)) ?? []) {
            if (kind.tag !== 'regular' || size === 0n) continue;
            files.push({ file, offset: 0, length: Number(size), path: `file ${file} of layer ${layer.facts.index + 1}`, at: layer.firstByte(file) });
        }
        await slices.breathe();
    }
    return files.sort((one, other) => one.at - other.at);
}
