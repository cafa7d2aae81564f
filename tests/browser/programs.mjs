// Files of kinds that no system of the tests has by itself.
import { execFileSync } from 'node:child_process';

/** A program for Windows with two sections that needs two libraries. */
export function windowsProgram() {
    const bytes = Buffer.alloc(0x800);
    const u16 = (at, value) => bytes.writeUInt16LE(value, at);
    const u32 = (at, value) => bytes.writeUInt32LE(value, at);
    bytes.write('MZ');
    u32(60, 0x80);
    bytes.write('PE\0\0', 0x80);
    [[0x84, 0x8664], [0x86, 2], [0x94, 240], [0x96, 0x22], [0x98, 0x20b], [0x98 + 68, 3]].forEach(([at, value]) => u16(at, value));
    u32(0x98 + 16, 0x1010);
    u32(0x98 + 108, 16);
    u32(0x98 + 120, 0x2000);
    const section = 0x98 + 240;
    for (const [index, [name, address, offset, flags]] of [['.text', 0x1000, 0x400, 0x60000020], ['.idata', 0x2000, 0x600, 0xc0000040]].entries()) {
        const at = section + 40 * index;
        bytes.write(name, at);
        [[8, 0x200], [12, address], [16, 0x200], [20, offset], [36, flags]].forEach(([field, value]) => bytes.writeUInt32LE(value, at + field));
    }
    for (const [index, name] of ['KERNEL32.dll', 'evil\u202elld.dll'].entries()) {
        u32(0x600 + 20 * index + 12, 0x2100 + 64 * index);
        bytes.write(name, 0x700 + 64 * index);
    }
    return bytes;
}

/** A certificate that openssl makes, and a block that is none. */
export function certificates() {
    const args = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '-', '-subj', '/O=Sample/CN=sample.test', '-days', '36500'];
    const old = '-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAAAAAA\n-----END RSA PRIVATE KEY-----\n';
    return `# a note\n${execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] })}-----BEGIN CERTIFICATE-----\nMIIBszCC\n-----END CERTIFICATE-----\n${old}`;
}
