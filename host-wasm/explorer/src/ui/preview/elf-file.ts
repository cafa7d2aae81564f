/**
 * The parts of an ELF file that say what it needs and where it runs (System V ABI, generic and GNU). Reads headers
 * and tables and nothing else; every number in them is only a hint about where to read next.
 */
import { hex, upToNul, viewOf } from '../../engine/bytes';
import type { Read } from './sections';

export interface ElfFacts {
    class: string;
    type: string;
    machine: string;
    entry: bigint;
    interpreter: string | null;
    needed: string[];
    soname: string | null;
    runpath: string | null;
    buildId: string | null;
    sections: { name: string; type: string; offset: number; size: number }[];
    isStripped: boolean;
}

/** Tables larger than this are not looked at. */
const MOST = 1 << 20;
const MOST_SECTIONS = 500;

const types = ['none', 'relocatable', 'executable', 'shared object or PIE', 'core'];
const machines: Record<number, string> = {
    3: 'x86', 8: 'MIPS', 20: 'PowerPC', 21: 'PowerPC 64', 22: 's390', 40: 'ARM', 62: 'x86-64', 183: 'AArch64', 243: 'RISC-V', 247: 'BPF', 258: 'LoongArch',
};
const sectionTypes: Record<number, string> = {
    0: 'null', 1: 'progbits', 2: 'symtab', 3: 'strtab', 4: 'rela', 5: 'hash', 6: 'dynamic', 7: 'note', 8: 'nobits', 9: 'rel', 11: 'dynsym',
    14: 'init_array', 15: 'fini_array', 16: 'preinit_array', 17: 'group', 0x6ffffff6: 'gnu_hash', 0x6ffffffd: 'verdef', 0x6ffffffe: 'verneed', 0x6fffffff: 'versym',
};

interface Section {
    name: number;
    type: number;
    address: number;
    offset: number;
    size: number;
    link: number;
}

/** Fails with a message when the file is no ELF or is cut short. */
export async function elf(read: Read): Promise<ElfFacts> {
    const head = await read(0, 64);
    if (head.length < 52 || head[0] !== 0x7f || head[1] !== 0x45 || head[2] !== 0x4c || head[3] !== 0x46) throw new Error('not an ELF file');
    const wide = head[4] === 2;
    const little = head[5] === 1;
    if ((!wide && head[4] !== 1) || (!little && head[5] !== 2)) throw new Error('an ELF file of an unknown class or byte order');
    if (wide && head.length < 64) throw new Error('the ELF header is cut short');
    const word = (of: DataView, at: number): number => (wide ? Number(of.getBigUint64(at, little)) : of.getUint32(at, little));
    const header = viewOf(head);
    const at = wide ? { sections: 40, size: 58, count: 60, names: 62 } : { sections: 32, size: 46, count: 48, names: 50 };

    const table = word(header, at.sections);
    const each = header.getUint16(at.size, little);
    const number = Math.min(header.getUint16(at.count, little), MOST_SECTIONS);
    const sections: Section[] = [];
    if (table > 0 && each >= (wide ? 64 : 40)) {
        const bytes = await read(table, Math.min(MOST, each * number));
        for (let start = 0; start + each <= bytes.length; start += each) {
            const row = viewOf(bytes.subarray(start, start + each));
            const field = (narrow: number, broad: number): number => (wide ? word(row, broad) : row.getUint32(narrow, little));
            sections.push({
                name: row.getUint32(0, little),
                type: row.getUint32(4, little),
                address: field(12, 16),
                offset: field(16, 24),
                size: field(20, 32),
                link: row.getUint32(wide ? 40 : 24, little),
            });
        }
    }
    const content = async (section: Section | undefined): Promise<Uint8Array> =>
        section && section.size <= MOST && section.type !== 8 ? read(section.offset, section.size) : new Uint8Array();
    const names = await content(sections[header.getUint16(at.names, little)]);
    const named = sections.map((section) => ({ ...section, text: text(names, section.name) }));
    const find = (name: string): Section | undefined => named.find((section) => section.text === name);

    const dynamic = named.find(({ type }) => type === 6);
    const needed: string[] = [];
    let [soname, runpath]: (string | null)[] = [null, null];
    if (dynamic) {
        const strings = await content(sections[dynamic.link]);
        const entries = viewOf(await content(dynamic));
        const step = wide ? 16 : 8;
        for (let start = 0; start + step <= entries.byteLength; start += step) {
            const tag = word(entries, start);
            const value = word(entries, start + step / 2);
            if (tag === 0) break;
            if (tag === 1) needed.push(text(strings, value));
            else if (tag === 14) soname = text(strings, value);
            else if (tag === 15 || tag === 29) runpath = text(strings, value);
        }
    }
    const note = await content(find('.note.gnu.build-id'));
    const interpreter = await content(find('.interp'));
    return {
        class: `${wide ? 64 : 32}-bit, ${little ? 'little' : 'big'} endian`,
        type: types[header.getUint16(16, little)] ?? 'of another type',
        machine: machines[header.getUint16(18, little)] ?? `machine ${header.getUint16(18, little)}`,
        entry: wide ? header.getBigUint64(24, little) : BigInt(header.getUint32(24, little)),
        interpreter: interpreter.length ? text(interpreter, 0) : null,
        needed,
        soname: soname ?? null,
        runpath: runpath ?? null,
        buildId: note.length > 16 ? hex(note.subarray(16, 36)) : null,
        sections: named.slice(1).map((section) => ({
            name: section.text,
            type: sectionTypes[section.type] ?? `0x${section.type.toString(16)}`,
            offset: section.offset,
            size: section.size,
        })),
        isStripped: !named.some(({ type }) => type === 2),
    };
}

/** A string that ends with NUL. */
function text(strings: Uint8Array, from: number): string {
    return new TextDecoder().decode(upToNul(strings, from)).slice(0, 4096);
}
