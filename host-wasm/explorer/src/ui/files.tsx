/** The tree of files: a treegrid whose rows exist only where they can be seen. */
import { useComputed, useSignal, useSignalEffect } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { download } from './download';
import { visible } from './escape';
import { bytes, count, counted, mode, time } from './format';
import { Icon } from './icon';
import { afresh, go, link, route } from './route';
import { clear, Selection, select, selected } from './selection';
import { engine, generation, image, problem, settling, sizes } from './session';
import { canUnfold, Tree, type Node, type Order } from './tree';
import { Failed, Waiting } from './states';
import { ROW, useWindow } from './window';
import type { Problem } from '../api';

const columns: { order: Order | null; className: string; label: string }[] = [
    { order: 'name', className: 'name', label: 'Name' },
    { order: 'size', className: 'size', label: 'Size' },
    { order: null, className: 'mode', label: 'Mode' },
    { order: null, className: 'owner', label: 'Owner' },
    { order: 'modified', className: 'time', label: 'Modified' },
];

export function Files() {
    const tree = useSignal<Tree | null>(null);
    const failed = useSignal<Problem | null>(null);
    const order = useSignal<Order>('name');
    const cursor = useSignal('/');
    const view = useComputed(() => route.value.view);
    const layersOfView = useComputed(() => (view.value === 'merged' ? generation.value : String(view.value)));

    useSignalEffect(() => {
        const current = engine.value;
        const of = view.value;
        const wait = of === 'merged' && settling.value;
        void layersOfView.value;
        tree.value = failed.value = null;
        clear();
        if (!current || wait) return;
        let isLate = false;
        Tree.open(current, of).then(
            async (opened) => {
                if (isLate) return;
                opened.sort(order.peek());
                tree.value = opened;
                const at = await opened.reveal(route.peek().path);
                if (at && at !== opened.root) cursor.value = at.row.path;
            },
            (thrown) => !isLate && (failed.value = problem(thrown)),
        );
        return () => void (isLate = true);
    });
    // Another path in the address, from a link, a search or the history.
    useSignalEffect(() => {
        const { path } = route.value;
        if (path !== cursor.peek() && tree.value) void tree.value.reveal(path).then((at) => at && (cursor.value = path));
    });
    useSignalEffect(() => {
        if (sizes.value.get(view.value)) void tree.peek()?.refresh().catch(() => undefined);
    });

    if (failed.value) return <Failed problem={failed.value} />;
    if (!tree.value) return <Waiting what="Reading the tables of contents" />;
    const sort = (by: Order): void => {
        order.value = by;
        tree.value?.sort(by);
    };
    return <Grid tree={tree.value} order={order.value} sort={sort} cursor={cursor} />;
}

interface GridProps {
    tree: Tree;
    order: Order;
    sort(order: Order): void;
    cursor: { value: string };
}

function Grid({ tree, order, sort, cursor }: GridProps) {
    const list = tree.list.value;
    const body = useRef<HTMLDivElement>(null);
    const { first, last, slot, onScroll, show, page } = useWindow(body, list.length);
    const at = useMemo(() => Math.max(0, list.findIndex(({ row }) => row.path === cursor.value)), [list, cursor.value]);
    const typed = useRef({ text: '', at: 0 });

    useEffect(() => show(at), [at, cursor.value, tree]);

    const move = (to: number): void => {
        const node = list[Math.min(Math.max(to, 0), list.length - 1)];
        if (node) cursor.value = node.row.path;
    };
    const choose = (node: Node): void => {
        cursor.value = node.row.path;
        go({ path: node.row.path, ...afresh });
    };
    const toggle = (node: Node): void => (node.unfolded ? tree.fold(node) : void tree.unfold(node));

    const keys: Record<string, (node: Node) => void> = {
        ArrowDown: () => move(at + 1),
        ArrowUp: () => move(at - 1),
        PageDown: () => move(at + page()),
        PageUp: () => move(at - page()),
        Home: () => move(0),
        End: () => move(list.length - 1),
        ArrowRight: (node) => {
            if (!canUnfold(node.row)) return;
            if (node.unfolded) move(at + (node.children?.length ? 1 : 0));
            else void tree.unfold(node);
        },
        ArrowLeft: (node) => {
            if (node.unfolded) tree.fold(node);
            else if (node.parent && node.parent !== tree.root) cursor.value = node.parent.row.path;
        },
        Enter: (node) => {
            choose(node);
            if (canUnfold(node.row)) toggle(node);
        },
        ' ': choose,
        '*': (node) => node.parent?.children?.filter(({ row }) => canUnfold(row)).slice(0, 50).forEach((child) => void tree.unfold(child)),
        d: ({ row }) => void download(row, row.kind === 'directory'),
        x: ({ row }) => select(row),
    };
    const onKeyDown = (event: KeyboardEvent): void => {
        const node = list[at];
        if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
        const action = keys[event.key];
        if (action) {
            typed.current.text = '';
            action(node);
        }
        if (!action && !typeAhead(event.key)) return;
        event.preventDefault();
        event.stopPropagation();
    };
    // Letters that mean something on the whole page do so here, too: type-ahead begins with any other one, or goes on.
    const typeAhead = (key: string): boolean => {
        const now = performance.now();
        const isGoingOn = now - typed.current.at < 700 && typed.current.text !== '';
        if (key.length !== 1 || (!isGoingOn && '/[]vdxy?*'.includes(key))) return false;
        typed.current = { text: (isGoingOn ? typed.current.text : '') + key.toLowerCase(), at: now };
        // The same letter again and again goes from one name to the next.
        const text = /^(.)\1*$/.test(typed.current.text) ? key.toLowerCase() : typed.current.text;
        const from = at + (text.length === 1 ? 1 : 0);
        const found = [...list.keys()].map((index) => (index + from) % list.length);
        const next = found.find((index) => list[index]?.row.name.toLowerCase().startsWith(text));
        if (next !== undefined) move(next);
        return true;
    };

    const rows = list.slice(first, last);
    // The row that has the cursor exists even when it is scrolled away, so that the focus is not lost.
    const away = list[at] && (at < first || at >= last) ? [list[at]] : [];
    return (
        <div class="files">
            <Selection />
            <div class="heads" aria-hidden="true">
                {columns.map(({ order: by, className, label }) => (
                    <span class={className} key={className}>
                        {by ? (
                            <button type="button" tabIndex={-1} class={order === by ? 'sorted' : ''} onClick={() => sort(by)}>
                                {label}
                            </button>
                        ) : (
                            label
                        )}
                    </span>
                ))}
            </div>
            <div
                class="rows"
                ref={body}
                role="treegrid"
                tabIndex={0}
                aria-label={treeName(tree)}
                aria-rowcount={list.length}
                aria-multiselectable={true}
                aria-activedescendant={list.length ? `row-${at}` : undefined}
                onScroll={onScroll}
                onKeyDown={onKeyDown}
            >
                <div class="all" role="presentation" style={{ height: `${list.length * ROW}px` }}>
                    {[...rows, ...away].map((node) => {
                        const index = node === away[0] ? at : first + rows.indexOf(node);
                        return (
                            <TreeRow
                                key={node === away[0] ? 'away' : slot(index)}
                                node={node}
                                index={index}
                                isCursor={index === at}
                                isShown={node.row.path === route.value.path}
                                choose={choose}
                                toggle={toggle}
                            />
                        );
                    })}
                </div>
                {list.length === 0 && <p class="empty">This tree is empty.</p>}
            </div>
        </div>
    );
}

function treeName({ view }: Tree): string {
    const name = image.value?.place.repository ?? '';
    return view === 'merged' ? `Files of ${name}, all layers` : `Files of layer ${view + 1} of ${name}`;
}

interface RowProps {
    node: Node;
    index: number;
    isCursor: boolean;
    isShown: boolean;
    choose(node: Node): void;
    toggle(node: Node): void;
}

function TreeRow({ node, index, isCursor, isShown, choose, toggle }: RowProps) {
    const { row, level, unfolded } = node;
    const folder = canUnfold(row);
    const name = visible(row.name);
    const isSelected = selected.value.has(row.path);
    const [day, clock] = time(row.modified).split(' ');
    return (
        <div
            id={`row-${index}`}
            role="row"
            class={`row ${row.kind}${isCursor ? ' cursor' : ''}${isShown ? ' shown' : ''}${row.change ? ` ${row.change}` : ''}`}
            style={{ top: `${index * ROW}px` }}
            aria-level={level}
            aria-posinset={node.position}
            aria-setsize={node.siblings}
            aria-rowindex={index + 1}
            aria-selected={selected.value.size > 0 ? isSelected : isShown}
            aria-expanded={folder ? unfolded : undefined}
            onClick={({ ctrlKey, metaKey }) => (ctrlKey || metaKey ? select(row) : choose(node))}
            onDblClick={() => folder && toggle(node)}
        >
            <span role="gridcell" class="name" style={{ paddingLeft: `${(level - 1) * 14}px` }}>
                <span
                    class={`fold${folder ? (unfolded ? ' open' : ' closed') : ''}`}
                    onClick={(event) => {
                        event.stopPropagation();
                        if (folder) toggle(node);
                    }}
                />
                {isSelected ? <span class="icon tick">✓</span> : <Icon of={row} />}
                <span class="text" title={name}>
                    {name}
                    {row.target !== null && <span class="target"> → {visible(row.target)}</span>}
                </span>
                <Marks row={row} problem={node.problem} />
            </span>
            <span role="gridcell" class="size">
                {row.size === null ? <span class="pending">…</span> : row.device ?? (row.kind === 'regular' || row.kind === 'directory' ? bytes(row.size) : '')}
            </span>
            <span role="gridcell" class="mode">
                {mode(row)}
            </span>
            <span role="gridcell" class="owner">
                {row.uid}:{row.gid}
            </span>
            <span role="gridcell" class="time">
                {day}
                <span class="clock"> {clock}</span>
            </span>
        </div>
    );
}

/** Words for what cannot be seen from name and numbers. */
function Marks({ row, problem }: { row: Node['row']; problem: Problem | null }) {
    const marks: string[] = [];
    if (row.change) marks.push(row.change);
    if (row.kind === 'whiteout') marks.push(row.hides ? `hides ${counted(row.hides, 'path')}` : 'whiteout');
    if (row.opaque) marks.push(row.hides ? `opaque, hides ${counted(row.hides, 'path')}` : 'opaque');
    if (row.kind === 'regular' && row.links > 1) marks.push(`${count(row.links)} links`);
    if (row.mode & 0o4000 && row.kind === 'regular') marks.push('setuid');
    if (row.mode & 0o2000 && row.kind === 'regular') marks.push('setgid');
    if (row.kind === 'symlink' && row.resolved === null) marks.push('dangling');
    if (problem) marks.push(problem.message);
    return (
        <>
            {marks.map((mark) => (
                <span class={`mark ${mark.split(/[ ,]/)[0]}`} key={mark}>
                    {mark}
                </span>
            ))}
        </>
    );
}

/** The address of a path, for other panels. */
export function pathLink(path: string): string {
    return link({ path, panel: 'files', ...afresh });
}
