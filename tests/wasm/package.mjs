// What the test of the packages wants to know, asked of the one for Node: `node package.mjs REGISTRY`.
import { createHash } from 'node:crypto';
import { EngineError, Image, Registry } from 'lazystar';

const sha256 = (bytes) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const registry = new Registry(process.argv[2], 'team/app');
const failure = async (what) => {
    try {
        await what();
    } catch (error) {
        if (error instanceof EngineError) return error.constructor.name;
        throw error;
    }
};

const image = await Image.open(registry, 'good');
const differences = [...image.differences(1)];
console.log(
    JSON.stringify({
        names: Array.from(image.readdir(), ({ name }) => name),
        replaced: new TextDecoder().decode(await image.read('/dir/file-1')),
        digest: sha256(await image.read('/dir/file-700001')),
        part: sha256(await image.read('/dir/file-300000', { offset: 99990, length: 20 })),
        link: image.readlink('/link'),
        found: Array.from(image.walk('/', 'FILE-700'), ({ path }) => path).filter((path) => path.endsWith('1')),
        removed: differences.filter(({ change }) => change === 'removed').length,
        waste: image.efficiency(200).worst.find(({ path }) => path.startsWith('/many/')).path,
        missing: await failure(() => image.stat('/not/there')),
        directory: await failure(() => image.read('/dir')),
        altered: await failure(async () => (await Image.open(registry, 'bad')).read('/dir/file-300000')),
        ordinary: await failure(() => Image.open(registry, 'ordinary')),
    }),
);
image.close();
