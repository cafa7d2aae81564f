/** What a file or a tar of an image is called as a download: a name on every system, that looks like what it is. */
export function downloadName(path: string, asTar: boolean): string {
    const name = path.slice(path.lastIndexOf('/') + 1) || 'root';
    const plain = name.toWellFormed().replace(/[\p{C}\p{Zl}\p{Zp}<>:"/\\|?*]/gu, '_').replace(/^\.+|[. ]+$/g, '_');
    const short = [...plain].slice(0, 120).join('') || '_';
    return asTar ? `${short}.tar` : short;
}
