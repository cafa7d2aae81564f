import { render } from 'preact';
import { registerServiceWorker } from '../vfs';
import { App } from './app';
import { listen } from './keys';
import { listenForFiles } from './local-files';
import { follow } from './session';
import './style.css';

const page = document.getElementById('page');
if (page) render(<App />, page);
listen();
follow();
listenForFiles();
registerServiceWorker();
