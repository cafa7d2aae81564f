/** Colours for text, from a worker of its own: large files do not stop the page. */
import { wrap, type Remote } from 'comlink';
import type { Highlighter } from './highlight.worker';

/** A piece of a line, with the class that colours it. */
export interface Part {
    text: string;
    kind?: string;
}
export type Line = Part[];

/** Above this, text stays plain. */
const MOST = 1 << 19;

let worker: Remote<Highlighter> | null = null;

/** The lines of a text in colours; `null` when its language is not known, or it is too long. */
export async function highlight(name: string, text: string): Promise<Line[] | null> {
    if (text.length > MOST) return null;
    const known = language(name, text);
    if (!known) return null;
    worker ??= wrap<Highlighter>(new Worker(new URL('./highlight.worker.ts', import.meta.url), { type: 'module' }));
    return worker.lines(known, text);
}

const extensions: Record<string, string> = {
    bash: 'bash', sh: 'bash', zsh: 'bash', profile: 'bash', bashrc: 'bash',
    c: 'c', h: 'c', cc: 'cpp', cpp: 'cpp', cxx: 'cpp', hpp: 'cpp', hh: 'cpp',
    conf: 'ini', cfg: 'ini', ini: 'ini', service: 'ini', socket: 'ini', desktop: 'ini', toml: 'ini', properties: 'ini',
    css: 'css', diff: 'diff', patch: 'diff', go: 'go', mod: 'go', java: 'java',
    js: 'javascript', mjs: 'javascript', cjs: 'javascript', ts: 'typescript', mts: 'typescript', tsx: 'typescript', jsx: 'javascript',
    json: 'json', map: 'json', lock: 'json', md: 'markdown', markdown: 'markdown', mk: 'makefile',
    html: 'xml', xml: 'xml', svg: 'xml', xhtml: 'xml', pl: 'perl', pm: 'perl', php: 'php',
    py: 'python', pyi: 'python', rb: 'ruby', rs: 'rust', sql: 'sql', yaml: 'yaml', yml: 'yaml',
};

function language(name: string, text: string): string | null {
    const lower = name.toLowerCase();
    if (/^(gnu)?makefile$/.test(lower)) return 'makefile';
    if (/^(docker|container)file/.test(lower)) return 'dockerfile';
    const byName = extensions[lower.slice(lower.lastIndexOf('.') + 1)];
    if (byName) return byName;
    const script = /^#!.*?\b(bash|sh|dash|zsh|python|perl|ruby|node|php)[\d.]*\b/.exec(text.slice(0, 200))?.[1];
    if (!script) return null;
    return ['python', 'perl', 'ruby', 'php'].includes(script) ? script : script === 'node' ? 'javascript' : 'bash';
}
