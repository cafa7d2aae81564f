// Makes JavaScript of a component: `node transpile.mjs COMPONENT DIRECTORY`; prints its imports as JSON.
import { writeFile, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { transpile } from '@bytecodealliance/jco-transpile';

const [component, directory] = process.argv.slice(2);
const { files, imports } = await transpile(component, { name: 'engine', outDir: directory });
for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, content);
}
console.log(JSON.stringify(imports));
