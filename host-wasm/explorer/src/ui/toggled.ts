/** A set with an item more, or, where it was in, without it. */
export function toggled<T>(set: ReadonlySet<T>, item: T): ReadonlySet<T> {
    const next = new Set(set);
    if (!next.delete(item)) next.add(item);
    return next;
}
