/** Turns text into coloured pieces of lines. Nothing here makes markup: the page shows the pieces as text. */
import { expose } from 'comlink';
import bash from 'highlight.js/lib/languages/bash';
import c from 'highlight.js/lib/languages/c';
import cpp from 'highlight.js/lib/languages/cpp';
import css from 'highlight.js/lib/languages/css';
import diff from 'highlight.js/lib/languages/diff';
import dockerfile from 'highlight.js/lib/languages/dockerfile';
import go from 'highlight.js/lib/languages/go';
import ini from 'highlight.js/lib/languages/ini';
import java from 'highlight.js/lib/languages/java';
import javascript from 'highlight.js/lib/languages/javascript';
import json from 'highlight.js/lib/languages/json';
import makefile from 'highlight.js/lib/languages/makefile';
import markdown from 'highlight.js/lib/languages/markdown';
import perl from 'highlight.js/lib/languages/perl';
import php from 'highlight.js/lib/languages/php';
import python from 'highlight.js/lib/languages/python';
import ruby from 'highlight.js/lib/languages/ruby';
import rust from 'highlight.js/lib/languages/rust';
import sql from 'highlight.js/lib/languages/sql';
import typescript from 'highlight.js/lib/languages/typescript';
import xml from 'highlight.js/lib/languages/xml';
import yaml from 'highlight.js/lib/languages/yaml';
import { createLowlight } from 'lowlight';
import type { Line } from './highlight';

const lowlight = createLowlight({
    bash, c, cpp, css, diff, dockerfile, go, ini, java, javascript, json, makefile, markdown, perl, php, python, ruby, rust,
    sql, typescript, xml, yaml,
});

type Branch = ReturnType<typeof lowlight.highlight>['children'];

const highlighter = {
    lines(language: string, text: string): Line[] {
        const lines: Line[] = [[]];
        const add = (children: Branch, kind: string | undefined): void => {
            for (const child of children) {
                if (child.type === 'element') add(child.children as Branch, classOf(child.properties.className) ?? kind);
                else if (child.type === 'text') {
                    child.value.split('\n').forEach((part, index) => {
                        if (index > 0) lines.push([]);
                        if (part) lines.at(-1)?.push(kind ? { text: part, kind } : { text: part });
                    });
                }
            }
        };
        add(lowlight.highlight(language, text).children, undefined);
        if (lines.at(-1)?.length === 0 && lines.length > 1) lines.pop();
        return lines;
    },
};

function classOf(names: unknown): string | undefined {
    return Array.isArray(names) && typeof names[0] === 'string' ? names[0] : undefined;
}

export type Highlighter = typeof highlighter;

expose(highlighter);
