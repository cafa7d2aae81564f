import type { Row } from '../api';

const shapes: Record<Row['kind'], string> = {
    directory: 'M1.5 3.5h4.6l1.5 2h7v7.5h-13z',
    regular: 'M3.5 1.5h5.5l3.5 3.5v9.5h-9zM9 1.5v3.5h3.5',
    symlink: 'M3 12.5c0-5 3-7 8-7M8 2.5l3.5 3L8 8.5',
    'character-device': 'M2.5 4.5h11v7h-11zM5 7h1M8 7h1M5 9.5h6',
    'block-device': 'M2.5 3.5h11v4h-11zM2.5 7.5h11v4h-11zM11 5.5h.5M11 9.5h.5',
    fifo: 'M1.5 5.5h13M1.5 10.5h13M4 8h7M9 6.5L11 8 9 9.5',
    whiteout: 'M4 4l8 8M12 4l-8 8',
};

/** What kind an object is; the row says it in words, too. */
export function Icon({ of: { kind } }: { of: Pick<Row, 'kind'> }) {
    return (
        <svg class={`icon ${kind}`} viewBox="0 0 16 16" aria-hidden="true">
            <path d={shapes[kind]} />
        </svg>
    );
}
