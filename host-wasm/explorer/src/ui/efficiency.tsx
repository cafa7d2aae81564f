/** How much of what the layers store can be seen, and what is wasted on what. */
import { saveContent } from './download';
import { visible } from './escape';
import { bytes, count, percent } from './format';
import { pathLink } from './files';
import { usePromised } from './promised';
import { engine, generation, image, settling } from './session';
import { Failed, Waiting } from './states';

export function EfficiencyPanel() {
    const current = engine.value;
    const isReady = current !== null && !settling.value;
    const answer = usePromised(isReady ? () => current.efficiency() : null, [current, isReady, generation.value]);
    if (answer.problem) return <Failed problem={answer.problem} again={answer.again} />;
    if (!answer.value) return <Waiting what="Comparing the layers" />;
    const { stored, visible: seen, worst, tallies } = answer.value;
    const wasted = stored - seen;
    const save = (): void => {
        const report = JSON.stringify({ digest: image.value?.digest, ...answer.value }, null, 2);
        saveContent(new Blob([report], { type: 'application/json' }), 'efficiency.json');
    };
    return (
        <div class="report">
            <div class="score">
                <b>{percent(seen, stored)}</b>
                <span>
                    of the {bytes(stored)} of files that the layers store can be seen; {bytes(wasted)} cannot.
                </span>
                <meter min={0} max={stored || 1} value={seen} aria-label="Share that can be seen" />
            </div>
            <dl class="facts">
                <dt>Overwritten</dt>
                <dd>{bytes(tallies.overwritten)} of files whose content an upper layer replaces</dd>
                <dt>Removed</dt>
                <dd>{bytes(tallies.removed)} of files that an upper layer deletes</dd>
                <dt>Duplicated</dt>
                <dd>{bytes(tallies.duplicated)} stored once more as they were</dd>
                <dt>Metadata only</dt>
                <dd>{bytes(tallies.metadataOnly)} stored again for another mode, owner or time (such as by chown)</dd>
            </dl>
            {worst.length > 0 && (
                <table>
                    <caption>Paths that cost most</caption>
                    <thead>
                        <tr>
                            <th scope="col">Path</th>
                            <th scope="col" class="number">
                                Wasted
                            </th>
                            <th scope="col" class="number">
                                Layers
                            </th>
                        </tr>
                    </thead>
                    <tbody>
                        {worst.map(({ path, bytes: wasted, layers }) => (
                            <tr key={path}>
                                <th scope="row">
                                    <a href={pathLink(path)}>{visible(path)}</a>
                                </th>
                                <td class="number">{bytes(wasted)}</td>
                                <td class="number">{count(layers)}</td>
                            </tr>
                        ))}
                    </tbody>
                </table>
            )}
            <button type="button" onClick={save}>
                Save as JSON
            </button>
        </div>
    );
}
