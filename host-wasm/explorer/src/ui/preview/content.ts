/** The whole content of a file for views that need it all, up to a limit. */
import type { Piece, Row } from '../../api';
import { usePromised, type Promised } from '../promised';
import { engine } from '../session';
import { route } from '../route';

/** What is shown as text or parsed at once. */
export const MOST_TEXT = 1 << 20;

export function useContent(row: Row, most: number): Promised<Piece> {
    const { view } = route.value;
    const current = engine.value;
    return usePromised(current ? () => current.read(view, row.path, 0, most) : null, [current, view, row.path, most]);
}
