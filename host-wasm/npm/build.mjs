// Makes JavaScript of the component, and puts its types where the wrapper is compiled against them.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, relative } from 'node:path';
import { transpile } from '@bytecodealliance/jco-transpile';

const component = new URL('../dist/engine.wasm', import.meta.url).pathname;
const options = { name: 'engine', outDir: 'dist/engine', instantiation: 'async', nodejsCompat: false, minify: true };
const { files } = await transpile(component, options);
const write = async (path, content) => {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
};
for (const [path, content] of Object.entries(files)) {
    await write(path, content);
    if (path.endsWith('.d.ts')) await write(`src/engine/${relative('dist/engine', path)}`, content);
}
