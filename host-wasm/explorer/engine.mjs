// Makes JavaScript of the component. Both variants have the same glue; the page takes the code that the browser can run.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { transpile } from '@bytecodealliance/jco-transpile';

const options = { name: 'engine', instantiation: 'async', nodejsCompat: false, minify: true };
for (const [variant, outDir] of [['engine', 'src/generated/scalar'], ['engine.simd', 'src/generated/simd']]) {
    const component = new URL(`../dist/${variant}.wasm`, import.meta.url).pathname;
    const { files } = await transpile(component, { ...options, outDir });
    for (const [path, content] of Object.entries(files)) {
        await mkdir(dirname(path), { recursive: true });
        // The glue could find its code itself; the page gives it the code, so there is nothing for Vite to copy.
        const text = path.endsWith('.js') && new TextDecoder().decode(content);
        await writeFile(path, text ? text.replace(/new URL\((`\.\/)/g, 'new URL(/* @vite-ignore */ $1') : content);
    }
}
