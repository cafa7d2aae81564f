/**
 * Text from images, made safe to show: what reorders, hides or controls is replaced by its code point, `⟨U+202E⟩`.
 * Everything else is left to the browser, which gets it as text and never as markup.
 */

// Controls, bidirectional marks and overrides, invisible characters, line and paragraph separators, tags, lone surrogates.
const unsafe =
    /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|[\u{e0000}-\u{e007f}]/gu;

export function visible(text: string): string {
    return text.replace(unsafe, codePoint);
}

/** The same for content of files, where tabs and line ends are what they are. */
export function visibleContent(text: string): string {
    return text.replace(unsafe, (character) => (character === '\t' || character === '\n' ? character : codePoint(character)));
}

function codePoint(character: string): string {
    return `⟨U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟩`;
}
