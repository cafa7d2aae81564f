/** Paths of an image: absolute, `/` between names, never a slash at the end. */

/** Names of a path, without empty ones and dots; `..` goes up, and stays at the top. */
export function names(path: string): string[] {
    const found: string[] = [];
    for (const name of path.split('/')) {
        if (name === '..') found.pop();
        else if (name !== '' && name !== '.') found.push(name);
    }
    return found;
}

export function normal(path: string): string {
    return `/${names(path).join('/')}`;
}

export function below(directory: string, name: string): string {
    return directory === '/' ? `/${name}` : `${directory}/${name}`;
}

export function parent(path: string): string {
    return path.slice(0, Math.max(1, path.lastIndexOf('/')));
}

export function base(path: string): string {
    return path === '/' ? '/' : path.slice(path.lastIndexOf('/') + 1);
}

/** All directories that a path is in, from the top. */
export function* ancestors(path: string): Generator<string> {
    if (path === '/') return;
    yield '/';
    for (let at = path.indexOf('/', 1); at > 0; at = path.indexOf('/', at + 1)) yield path.slice(0, at);
}
