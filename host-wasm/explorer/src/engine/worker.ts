/** The worker's entry: one image. */
import { expose } from 'comlink';
import { Image } from './image';
import { prepare } from './wire';

prepare();
expose(new Image());
