/**
 * The parts of a PE file (programs and libraries of Windows and UEFI) that say where it runs and what it needs. Reads headers
 * and the tables of imports, and nothing else; every number in them is only a hint about where to read next.
 */
import { upToNul, viewOf } from '../../engine/bytes';
import type { Read } from './sections';

export interface PeFacts {
    machine: string;
    subsystem: string;
    /** Program, library or driver. */
    type: string;
    width: string;
    entry: number;
    isManaged: boolean;
    isSigned: boolean;
    /** Names of libraries, the delayed ones last. */
    imports: string[];
    sections: { name: string; flags: string; offset: number; size: number }[];
}

const MOST_SECTIONS = 96;
const MOST_IMPORTS = 1000;
const MOST_NAME = 256;

const machines: Record<number, string> = { 0x14c: 'x86', 0x8664: 'x86-64', 0x1c0: 'ARM', 0x1c4: 'ARM (Thumb-2)', 0xaa64: 'ARM64', 0xebc: 'EFI byte code', 0x5032: 'RISC-V 32', 0x5064: 'RISC-V 64', 0x6264: 'LoongArch 64', 0x200: 'Itanium' };
const subsystems: Record<number, string> = { 0: 'unknown', 1: 'native', 2: 'Windows, graphical', 3: 'Windows, console', 5: 'OS/2', 7: 'POSIX', 9: 'Windows CE', 10: 'EFI application', 11: 'EFI boot driver', 12: 'EFI runtime driver', 13: 'EFI ROM', 14: 'Xbox', 16: 'Windows boot application' };

/** Fails with a message when the file is no PE or is cut short. */
export async function pe(read: Read): Promise<PeFacts> {
    const stub = await need(read, 0, 64, 'the header of DOS');
    if (stub.getUint16(0, true) !== 0x5a4d) throw new Error('not a PE file');
    const start = stub.getUint32(60, true);
    const head = await need(read, start, 24, 'the header');
    if (head.getUint32(0, true) !== 0x4550) throw new Error('a program for DOS, not a PE file');
    const optionalSize = head.getUint16(20, true);
    const optional = await need(read, start + 24, Math.min(optionalSize, 1024), 'the optional header');
    if (optional.byteLength < 96) throw new Error('an object file: it has no optional header');
    const magic = optional.getUint16(0, true);
    if (magic !== 0x10b && magic !== 0x20b) throw new Error(`an optional header of the unknown kind ${magic}`);
    const isWide = magic === 0x20b;

    const number = Math.min(head.getUint16(6, true), MOST_SECTIONS);
    const table = await view(read, start + 24 + optionalSize, 40 * number);
    const sections = Array.from({ length: Math.floor(table.byteLength / 40) }, (_, index) => {
        const at = 40 * index;
        return {
            name: text(new Uint8Array(table.buffer, table.byteOffset + at, 8)),
            address: table.getUint32(at + 12, true),
            length: Math.max(table.getUint32(at + 8, true), table.getUint32(at + 16, true)),
            offset: table.getUint32(at + 20, true),
            size: table.getUint32(at + 16, true),
            flags: table.getUint32(at + 36, true),
        };
    });
    /** Where in the file an address of the loaded program is; `null` where nothing of the file is. */
    const offset = (address: number): number | null => {
        const section = sections.find((section) => address >= section.address && address - section.address < section.length);
        return section && address - section.address < section.size ? section.offset + address - section.address : null;
    };
    const directory = (index: number): number => {
        const at = (isWide ? 112 : 96) + 8 * index;
        const count = optional.getUint32(isWide ? 108 : 92, true);
        return index < count && at + 8 <= optional.byteLength ? optional.getUint32(at, true) : 0;
    };
    const names = async (address: number, size: number, name: number): Promise<string[]> => {
        const at = address === 0 ? null : offset(address);
        if (at === null) return [];
        const rows = await view(read, at, size * MOST_IMPORTS);
        const found: string[] = [];
        for (let row = 0; row + size <= rows.byteLength; row += size) {
            const place = rows.getUint32(row + name, true);
            const where = place === 0 ? null : offset(place);
            if (where === null) break;
            found.push(text(await read(where, MOST_NAME)));
        }
        return found;
    };
    const characteristics = head.getUint16(22, true);
    const subsystem = optional.byteLength >= 70 ? optional.getUint16(68, true) : 0;
    return {
        machine: machines[head.getUint16(4, true)] ?? `machine 0x${head.getUint16(4, true).toString(16)}`,
        subsystem: subsystems[subsystem] ?? `subsystem ${subsystem}`,
        type: characteristics & 0x2000 ? 'library' : subsystem === 1 ? 'driver' : 'program',
        width: isWide ? '64-bit' : '32-bit',
        entry: optional.getUint32(16, true),
        isManaged: directory(14) !== 0,
        isSigned: directory(4) !== 0,
        imports: [...new Set([...(await names(directory(1), 20, 12)), ...(await names(directory(13), 32, 4))])],
        sections: sections.map(({ name, flags, offset, size }) => ({ name, flags: rights(flags), offset, size })),
    };
}

/** What may be done with a section. */
function rights(flags: number): string {
    const letter = (bit: number, name: string): string => (flags & (1 << bit) ? name : '-');
    return letter(30, 'r') + letter(31, 'w') + letter(29, 'x');
}

async function view(read: Read, offset: number, length: number): Promise<DataView> {
    return viewOf(await read(offset, length));
}

async function need(read: Read, offset: number, length: number, what: string): Promise<DataView> {
    const found = await view(read, offset, length);
    if (found.byteLength < length) throw new Error(`${what} is cut short`);
    return found;
}

/** A string that ends with NUL. */
function text(bytes: Uint8Array): string {
    return new TextDecoder().decode(upToNul(bytes));
}
