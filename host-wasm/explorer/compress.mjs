// Puts compressed forms beside the files of the built page, for servers that send them as they are.
import { readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const page = new URL('../dist/explorer/', import.meta.url).pathname;
let total = 0;
for (const name of await readdir(page, { recursive: true })) {
    if (!(await stat(page + name)).isFile()) continue;
    const content = await readFile(page + name);
    const brotli = brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: content.length } });
    await writeFile(`${page}${name}.br`, brotli);
    await writeFile(`${page}${name}.gz`, gzipSync(content, { level: 9 }));
    total += brotli.length;
}
console.log(`the page: ${total} bytes compressed`);
