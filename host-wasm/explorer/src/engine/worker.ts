/** The worker's entry: one image. */
import { expose } from 'comlink';
import { Image } from './image';
import { CLOSE, prepare } from './wire';

prepare();
const image = new Image();
expose(image);
addEventListener('message', ({ data }) => {
    if (data !== CLOSE) return;
    void image.close().finally(() => {
        postMessage(CLOSE);
        close();
    });
});
