/** How the engine cuts what it needs of a blob into requests: as `FetchPolicy` of the core has it for readers. */
import type { Cost } from '../api';

/** Members this close are fetched together, with what lies between them. */
const GAP = 32 << 10;
/** What one request asks for at most, unless a single member is larger. */
const MOST = 1 << 20;

/** What fetching these members takes: lengths by offset. */
export function requests(members: ReadonlyMap<number, number>): Pick<Cost, 'bytes' | 'requests'> {
    let [bytes, count] = [0, 0];
    let [start, end] = [0, -Infinity];
    for (const [offset, length] of [...members].sort(([one], [other]) => one - other)) {
        const to = Math.max(end, offset + length);
        if (offset - end <= GAP && to - start <= MOST) bytes += to - end;
        else {
            count += 1;
            start = offset;
            bytes += to - Math.max(end, offset);
        }
        end = to;
    }
    return { bytes, requests: count };
}
