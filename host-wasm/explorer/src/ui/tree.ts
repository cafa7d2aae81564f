/**
 * The tree as it is unfolded: which rows are on the list, in which order. Names are fetched from the engine when a
 * directory is unfolded, in pages, so that a directory of 50,000 names shows its first ones at once.
 */
import { signal } from '@preact/signals';
import type { Remote } from 'comlink';
import type { ImageEngine, Problem, Row, View } from '../api';
import { problem } from './session';

export type Order = 'name' | 'size' | 'modified';

/** A row on the list. */
export interface Node {
    row: Row;
    /** 1 below the root. */
    level: number;
    parent: Node | null;
    /** `null` while they were not asked for. */
    children: Node[] | null;
    unfolded: boolean;
    loading: boolean;
    /** Why its names could not be read. */
    problem: Problem | null;
    /** Where it came in the engine's order, which is that of the bytes of names. */
    given: number;
    /** Position among its siblings, and their number. */
    position: number;
    siblings: number;
}

export class Tree {
    /** All rows that are on the list now. */
    readonly list = signal<Node[]>([]);
    readonly root: Node;
    order: Order = 'name';

    constructor(
        private readonly engine: Remote<ImageEngine>,
        readonly view: View,
        root: Row,
    ) {
        this.root = node(root, null, 0);
    }

    static async open(engine: Remote<ImageEngine>, view: View): Promise<Tree> {
        const tree = new Tree(engine, view, await engine.stat(view, '/', false));
        await tree.unfold(tree.root);
        return tree;
    }

    /** Shows what is in a directory; ends when its first names are there. */
    async unfold(directory: Node): Promise<void> {
        directory.unfolded = true;
        if (directory.children || directory.loading) return this.update();
        directory.loading = true;
        directory.problem = null;
        this.update();
        try {
            const first = await this.engine.children(this.view, directory.row.path, 0);
            this.add(directory, first.rows);
            void this.rest(directory, first.next);
        } catch (thrown) {
            directory.loading = false;
            directory.problem = problem(thrown);
            this.update();
        }
    }

    fold(directory: Node): void {
        directory.unfolded = false;
        this.update();
    }

    /** Folds everything but the top. */
    foldAll(): void {
        const close = (nodes: Node[] | null): void =>
            nodes?.forEach((child) => {
                child.unfolded = false;
                close(child.children);
            });
        close(this.root.children);
        this.update();
    }

    /** Unfolds all that is above a path; gives its node, or `null` when there is none. */
    async reveal(path: string): Promise<Node | null> {
        let at = this.root;
        for (const name of path.split('/').filter(Boolean)) {
            await this.unfold(at);
            const next = await this.child(at, name);
            if (!next) return null;
            at = next;
        }
        return at;
    }

    /** Sorts all that was read and all that will be. Directories stay among the rest. */
    sort(order: Order): void {
        this.order = order;
        const all = (directory: Node): void => {
            if (!directory.children) return;
            this.arrange(directory);
            directory.children.forEach(all);
        };
        all(this.root);
        this.update();
    }

    /** Reads the rows of a directory and of those in it again: sizes become known after names. */
    async refresh(directory: Node = this.root): Promise<void> {
        if (!directory.children || directory.loading) return;
        const rows = new Map<string, Row>();
        for (let start: number | null = 0; start !== null; ) {
            const page: { rows: Row[]; next: number | null } = await this.engine.children(this.view, directory.row.path, start);
            for (const row of page.rows) rows.set(row.name, row);
            start = page.next;
        }
        for (const child of directory.children) child.row = rows.get(child.row.name) ?? child.row;
        if (this.order === 'size') this.arrange(directory);
        this.update();
        for (const child of directory.children) if (child.children) await this.refresh(child);
    }

    private async rest(directory: Node, next: number | null): Promise<void> {
        try {
            while (next !== null) {
                const page: { rows: Row[]; next: number | null } = await this.engine.children(this.view, directory.row.path, next);
                this.add(directory, page.rows);
                next = page.next;
            }
        } catch (thrown) {
            directory.problem = problem(thrown);
        }
        directory.loading = false;
        this.update();
    }

    /** The child of this name, which may be on a page that did not come yet. */
    private async child(directory: Node, name: string): Promise<Node | undefined> {
        for (;;) {
            const found = directory.children?.find(({ row }) => row.name === name);
            if (found || !directory.loading) return found;
            await new Promise((resolve) => setTimeout(resolve, 10));
        }
    }

    private add(directory: Node, rows: Row[]): void {
        const before = directory.children ?? [];
        const more = rows.map((row, index) => node(row, directory, before.length + index));
        directory.children = [...before, ...more];
        this.arrange(directory);
        this.update();
    }

    private arrange(directory: Node): void {
        const children = directory.children ?? [];
        if (this.order === 'size') children.sort((one, other) => (other.row.size ?? 0) - (one.row.size ?? 0));
        else if (this.order === 'modified') children.sort((one, other) => other.row.modified - one.row.modified);
        else children.sort((one, other) => one.given - other.given);
        children.forEach((child, index) => {
            child.position = index + 1;
            child.siblings = children.length;
        });
    }

    private update(): void {
        const list: Node[] = [];
        const add = (directory: Node): void =>
            directory.children?.forEach((child) => {
                list.push(child);
                if (child.unfolded) add(child);
            });
        add(this.root);
        this.list.value = list;
    }
}

function node(row: Row, parent: Node | null, given: number): Node {
    const level = parent ? parent.level + 1 : 0;
    const state = { children: null, unfolded: false, loading: false, problem: null };
    return { row, level, parent, given, position: 1, siblings: 1, ...state };
}

export function canUnfold({ kind }: Row): boolean {
    return kind === 'directory';
}
