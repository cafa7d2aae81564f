import { useEffect, useState } from 'preact/hooks';
import type { Row } from '../../api';
import { visible } from '../escape';
import { bytes } from '../format';
import { Failed, Waiting } from '../states';
import { useContent } from './content';

const MOST = 8 << 20;

/** A picture as the browser draws it, from bytes that were verified. SVG runs no scripts in an `img`. */
export function Picture({ row, media }: { row: Row; media: string }) {
    const size = row.size ?? 0;
    const content = useContent(row, MOST);
    const [url, setUrl] = useState<string | null>(null);
    const [about, setAbout] = useState('');
    useEffect(() => {
        if (!content.value) return;
        const made = URL.createObjectURL(new Blob([content.value.bytes as BlobPart], { type: media }));
        setUrl(made);
        return () => URL.revokeObjectURL(made);
    }, [content.value, media]);
    if (size > MOST) return <p>This picture has {bytes(size)}: download it instead.</p>;
    if (content.problem) return <Failed problem={content.problem} again={content.again} />;
    if (!url) return <Waiting what={`Fetching ${bytes(size)}`} />;
    return (
        <figure>
            <img
                src={url}
                alt={`Content of ${visible(row.name)}`}
                onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => setAbout(`${naturalWidth} × ${naturalHeight}`)}
                onError={() => setAbout('The browser cannot draw it.')}
            />
            <figcaption>{about}</figcaption>
        </figure>
    );
}
