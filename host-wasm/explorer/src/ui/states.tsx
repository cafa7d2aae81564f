/** What is shown instead of content: waiting, failures, nothing. */
import { useSignal } from '@preact/signals';
import type { ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';
import type { Problem } from '../api';
import { isFile, isLayout, named } from '../reference';
import { Copy } from './commands';
import { visible, visibleContent } from './escape';
import { OpenFile } from './open-file';
import { route } from './route';
import { isDirect, retry } from './session';

const titles: Record<Problem['kind'], string> = {
    offline: 'You are offline',
    unreachable: 'The server cannot be reached',
    cors: 'The server does not let web pages read it',
    unauthorized: 'The registry wants you to log in',
    forbidden: 'This is not allowed',
    'not-found': 'There is no such image',
    'too-many-requests': 'Too many requests for the registry',
    registry: 'The registry failed',
    'not-lazy': 'This layer has no table of contents',
    malformed: 'The image is damaged',
    'digest-mismatch': 'This is not what the image promised',
    unverifiable: 'This cannot be checked',
    unsupported: 'This kind of image is not known',
    'limit-exceeded': 'This image asks for too much',
    'wrong-kind': 'This cannot be shown',
    file: 'This file cannot be read',
    internal: 'Something went wrong here',
};

/** Failures that another way to the registry may not have. */
const proxied: Problem['kind'][] = ['unreachable', 'cors', 'forbidden', 'registry', 'malformed', 'digest-mismatch', 'too-many-requests'];
/** Where `lazystar explore` listens unless it is told otherwise. */
const PROXY = 'http://127.0.0.1:7117/';

/** Says after a while that it takes long. */
export function Waiting({ what }: { what: string }) {
    const isSlow = useSignal(false);
    useEffect(() => {
        const timer = setTimeout(() => (isSlow.value = true), 2000);
        return () => clearTimeout(timer);
    }, []);
    return (
        <div class="waiting" role="status">
            <div class="skeleton" aria-hidden="true">
                <i />
                <i />
                <i />
            </div>
            <p>
                {what}…{isSlow.value && ' It takes its time.'}
            </p>
        </div>
    );
}

/** A failure, with what can be done about it. */
export function Failed({ problem, again, children }: { problem: Problem; again?: () => void; children?: ComponentChildren }) {
    return (
        <div class={`failed ${problem.kind}`} role="alert">
            <h2>{titles[problem.kind]}</h2>
            <p class="message">{visibleContent(problem.message)}</p>
            {problem.expected && (
                <dl class="digests">
                    <dt>Promised</dt>
                    <dd>
                        <code>{visible(problem.expected)}</code>
                    </dd>
                    <dt>Came</dt>
                    <dd>
                        <code>{visible(problem.actual ?? '')}</code>
                    </dd>
                    {problem.blobRange && (
                        <>
                            <dt>Where</dt>
                            <dd>
                                bytes {problem.blobRange.offset} to {problem.blobRange.offset + problem.blobRange.length - 1}
                                {problem.layer !== undefined && ` of layer ${problem.layer + 1}`}
                            </dd>
                        </>
                    )}
                </dl>
            )}
            {problem.kind === 'too-many-requests' && <Reset after={problem.retryAfter} />}
            {problem.kind === 'unauthorized' && !again && isDirect.value && <Login />}
            {problem.kind === 'file' && <OpenFile />}
            {isDirect.value && proxied.includes(problem.kind) && <ViaProxy />}
            {children}
            {again && (
                <button type="button" onClick={() => again()}>
                    Try again
                </button>
            )}
        </div>
    );
}

/** Where registries are asked directly: the same by a proxy, which is not kept from them, and has mirrors and credentials. */
function ViaProxy() {
    const { place } = route.value;
    if (!place || isFile(place) || isLayout(place)) return null;
    const command = `lazystar explore ${named(place, route.value.tag)}`;
    return (
        <p class="proxy">
            This page asked the registry itself. By the proxy of <code>{visible(command)}</code> <Copy text={command} label="Copy lazystar explore" /> it is asked
            with your credentials and by your mirrors; what is shown here is then at{' '}
            <code>{PROXY}#/…</code> <Copy text={`${PROXY}${location.hash}`} label="Copy address" />
        </p>
    );
}

function Reset({ after }: { after: number | undefined }) {
    if (after === undefined) return <p>It does not say for how long. Try again in a few minutes, or log in.</p>;
    const at = new Date(Date.now() + after * 1000).toLocaleTimeString();
    return <p>It takes requests again in {after} s, at {at}.</p>;
}

/** Credentials stay in the memory of this page. */
function Login() {
    const send = (event: SubmitEvent): void => {
        event.preventDefault();
        const form = new FormData(event.target as HTMLFormElement);
        const [user, password] = [String(form.get('user')), String(form.get('password'))];
        const utf8 = new TextEncoder().encode(`${user}:${password}`);
        retry(`Basic ${btoa(String.fromCharCode(...utf8))}`);
    };
    return (
        <form class="login" onSubmit={send}>
            <label>
                User
                <input name="user" autocomplete="username" required />
            </label>
            <label>
                Password or token
                <input name="password" type="password" autocomplete="current-password" required />
            </label>
            <button type="submit">Log in</button>
        </form>
    );
}
