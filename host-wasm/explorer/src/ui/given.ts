/** Files of this computer that the page was given. They are there for as long as the page is. */
import type { Place } from '../api';
import { isFile, placeOf } from '../reference';

const given = new Map<string, File>();

/** Takes a file, and says what its place is; another one of the same name is forgotten. */
export function give(file: File): Place {
    const place = placeOf(file);
    given.set(place.repository, file);
    return place;
}

/** The file of a place, if it is one and was given. */
export function fileAt(place: Place): File | undefined {
    return isFile(place) ? given.get(place.repository) : undefined;
}
