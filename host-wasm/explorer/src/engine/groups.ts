/** Adds a value to the list that a map has for a key. */
export function append<K, V>(groups: Map<K, V[]>, key: K, value: V): void {
    const group = groups.get(key);
    if (group) group.push(value);
    else groups.set(key, [value]);
}
