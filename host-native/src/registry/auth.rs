//! Answering challenges: passwords, and tokens from token servers.
//!
//! No credential or token is ever printed: they live in headers marked sensitive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::challenge::Challenge;
use super::client::{Call, Client, collect, drain};
use super::{Endpoint, origin_of};
use crate::keychain::Credential;
use crate::lock::lock;
use crate::metrics::{METRICS, Source};
use crate::source::FetchError;

/// Largest answer of a token server. Tokens of big clouds have some KiB.
const MAX_ANSWER: u64 = 256 << 10;
/// Life of a token that does not tell (distribution specification, "Token response").
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest time for which an answer is used without asking the keychain again.
const LONGEST_LIFE: Duration = Duration::from_secs(3600);
/// How long before its end a token is no longer used: clocks differ and requests take time.
const SKEW: Duration = Duration::from_secs(10);
/// After which part of its life a token in use is renewed.
const RENEWED: f64 = 0.7;

/// Tokens, and which challenge each repository poses.
#[derive(Default)]
pub(super) struct Tokens {
    known: Mutex<HashMap<(Url, String), Challenge>>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

/// What a token is good for. A password counts as the token of its registry.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    realm: Url,
    service: Option<String>,
    scope: Option<String>,
}

/// One token. Whoever needs it and finds none asks, so that only one request for it is under way;
/// others wait for that one, within their own deadline. Nothing is locked meanwhile that who has a
/// token needs.
#[derive(Default)]
struct Slot {
    token: Mutex<Option<Token>>,
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
struct Token {
    authorization: HeaderValue,
    until: Instant,
    /// From when on a new one is asked for while this one still serves.
    renew: Instant,
    /// Which of the keychain's credentials it was got with, and how many there were: none, if anybody
    /// gets it.
    credential: usize,
    credentials: usize,
}

/// Marks an answer that took a credential to get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vouched;

/// Who asks whom for what: one repository of one host.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) repository: &'a str,
}

impl Client {
    /// Sends `call` once with what authenticates `login`, and again with what a refusal asks for:
    /// with each of the credentials that there are.
    pub(super) async fn exchange_as(
        &self,
        call: &Call,
        login: Login<'_>,
        deadline: Instant,
    ) -> Result<Response, FetchError> {
        let place = (login.endpoint.base(), login.repository.to_owned());
        let mut known = lock(&self.tokens().known).get(&place).cloned();
        let mut used = match &known {
            Some(challenge) => self.authorization(challenge, login, None, deadline).await?,
            None => None,
        };
        let mut first = true;
        loop {
            let shown = used.as_ref().map(|token| &token.authorization);
            let mut response = self.exchange(call, shown, deadline).await?;
            if used.as_ref().is_some_and(|used| used.credentials > 0) {
                response.extensions_mut().insert(Vouched);
            }
            // Some registries answer 403 to a token that has expired.
            let refused = match response.status() {
                StatusCode::UNAUTHORIZED => true,
                StatusCode::FORBIDDEN => used.is_some(),
                _ => false,
            };
            let others = used.as_ref().is_none_or(|used| used.credential + 1 < used.credentials);
            if !refused || !(first || others) {
                return Ok(response);
            }
            let Some(challenge) = posed(&response)?.or(known) else { return Ok(response) };
            let refused = used.as_ref().map(|token| &token.authorization);
            let fresh = self.authorization(&challenge, login, refused, deadline).await?;
            let Some(fresh) = fresh.filter(|fresh| Some(&fresh.authorization) != refused) else {
                return Ok(response);
            };
            drain(response).await;
            lock(&self.tokens().known).insert(place.clone(), challenge.clone());
            (used, known, first) = (Some(fresh), Some(challenge), false);
        }
    }

    /// What to send to satisfy `challenge`: from before, unless that is `refused` or old.
    async fn authorization(
        &self,
        challenge: &Challenge,
        login: Login<'_>,
        refused: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Option<Token>, FetchError> {
        let key = Key::of(challenge, login)?;
        let slot = self.tokens().slot(&key);
        if let Some(token) = slot.usable(refused) {
            if token.renew <= Instant::now() {
                self.renew(&slot, challenge, login, key);
            }
            return Ok(Some(token));
        }
        let asking = tokio::time::timeout_at(deadline, slot.asking.lock()).await;
        let _asking = asking.map_err(|_| FetchError::Timeout {
            origin: origin_of(&key.realm),
            after: self.options().total_timeout,
        })?;
        if let Some(token) = slot.usable(refused) {
            return Ok(Some(token));
        }
        let before = lock(&slot.token).take();
        // A credential whose token was refused goes after the others.
        let begin = before
            .filter(|token| Some(&token.authorization) == refused)
            .map_or(0, |token| token.credential + 1);
        let fresh = self.fresh(challenge, &key, login, begin, deadline).await?;
        lock(&slot.token).clone_from(&fresh);
        Ok(fresh)
    }

    /// Asks for a new token while the old one still serves.
    fn renew(&self, slot: &Arc<Slot>, challenge: &Challenge, login: Login<'_>, key: Key) {
        let Ok(asking) = Arc::clone(&slot.asking).try_lock_owned() else { return };
        let (client, slot, challenge) = (self.clone(), Arc::clone(slot), challenge.clone());
        let (endpoint, repository) = (Arc::clone(login.endpoint), login.repository.to_owned());
        tokio::spawn(async move {
            let login = Login { endpoint: &endpoint, repository: &repository };
            let deadline = Instant::now() + client.options().total_timeout;
            match client.fresh(&challenge, &key, login, 0, deadline).await {
                Ok(Some(token)) => *lock(&slot.token) = Some(token),
                // The old one serves until its end; only then is it anybody's misfortune.
                Ok(None) | Err(_) => {
                    if let Some(token) = &mut *lock(&slot.token) {
                        token.renew = Instant::now() + SKEW;
                    }
                }
            }
            drop(asking);
        });
    }

    /// What satisfies `challenge`, by the first of the keychain's credentials that gets it,
    /// beginning with number `begin`. `None` if no credential is any good.
    async fn fresh(
        &self,
        challenge: &Challenge,
        key: &Key,
        login: Login<'_>,
        begin: usize,
        deadline: Instant,
    ) -> Result<Option<Token>, FetchError> {
        let keychain = &self.options().keychain;
        let found = keychain.credentials(&login.endpoint.host, login.repository).await;
        let credentials = found.len();
        let mut denied = None;
        let order = (0..credentials).cycle().skip(begin % credentials.max(1)).take(credentials);
        match challenge {
            Challenge::Basic => {
                for credential in order {
                    if let Credential::Password { user, password } = &found[credential] {
                        let until = Instant::now() + LONGEST_LIFE;
                        let authorization = basic(user, password)?;
                        return Ok(Some(Token {
                            authorization,
                            until,
                            renew: until,
                            credential,
                            credentials,
                        }));
                    }
                }
                Ok(None)
            }
            Challenge::Bearer { .. } => {
                if found.is_empty() {
                    return self.token(key, None, login, deadline).await.map(Some);
                }
                for credential in order {
                    match self.token(key, Some(&found[credential]), login, deadline).await {
                        Ok(token) => return Ok(Some(Token { credential, credentials, ..token })),
                        Err(error @ FetchError::Denied { .. }) => {
                            denied.get_or_insert(error);
                        }
                        Err(error) => return Err(error),
                    }
                }
                denied.map_or(Ok(None), Err)
            }
        }
    }

    /// Asks a token server.
    async fn token(
        &self,
        key: &Key,
        credential: Option<&Credential>,
        login: Login<'_>,
        deadline: Instant,
    ) -> Result<Token, FetchError> {
        let origin = origin_of(&key.realm);
        let broken =
            |why: &str| FetchError::Protocol { origin: origin.clone(), why: why.to_owned() };
        if credential.is_some()
            && login.endpoint.base().scheme() == "https"
            && key.realm.scheme() != "https"
        {
            return Err(broken("as a token server it would get the password unencrypted"));
        }
        let mut url = key.realm.clone();
        let fields = [("service", key.service.as_deref()), ("scope", key.scope.as_deref())];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let (mut call, authorization) = match credential {
            Some(Credential::IdentityToken(token)) => {
                let mut form =
                    Url::parse("http://form").map_err(|_| broken("its form cannot be made"))?;
                form.query_pairs_mut()
                    .extend_pairs(fields)
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "lazystar")
                    .append_pair("refresh_token", token);
                let body = Bytes::from(form.query().unwrap_or_default().to_owned());
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                let headers = [(CONTENT_TYPE, form)].into_iter().collect();
                (Call { body, headers, ..Call::new(Method::POST, url) }, None)
            }
            Some(Credential::Password { user, password }) => {
                url.query_pairs_mut().extend_pairs(fields).append_pair("account", user);
                (Call::new(Method::GET, url), Some(basic(user, password)?))
            }
            None => {
                url.query_pairs_mut().extend_pairs(fields);
                (Call::new(Method::GET, url), None)
            }
        };
        call.transport = login.endpoint.transport.clone();
        call.configured = login.endpoint.configures(&call.url);
        call.sent = Some(METRICS.host(&origin, Source::Tokens).requests);
        let asked = Instant::now();
        let response = self.exchange(&call, authorization.as_ref(), deadline).await?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let what = format!("a token for {}", login.repository);
                return Err(FetchError::Denied {
                    origin,
                    what,
                    status: status.as_u16(),
                    login: login.endpoint.host.clone(),
                });
            }
            status => return Err(FetchError::Status { origin, code: status.as_u16() }),
        }
        let answer = collect(self, response, MAX_ANSWER).await?;
        let answer: Answer =
            serde_json::from_slice(&answer).map_err(|_| broken("its token cannot be read"))?;
        let token = [answer.token, answer.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty());
        let token = token.ok_or_else(|| broken("its answer holds no token"))?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(LONGEST_LIFE);
        let authorization = sensitive(format!("Bearer {token}"))
            .ok_or_else(|| broken("its token cannot be sent"))?;
        let (until, renew) = (asked + life - SKEW.min(life / 4), asked + life.mul_f64(RENEWED));
        let credentials = usize::from(credential.is_some());
        Ok(Token { authorization, until, renew: renew.min(until), credential: 0, credentials })
    }
}

impl Tokens {
    fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if !slots.contains_key(key) {
            let now = Instant::now();
            // Slots in use are held elsewhere; of the others only live tokens are kept.
            slots.retain(|_, slot| {
                let token = lock(&slot.token);
                Arc::strong_count(slot) > 1 || token.as_ref().is_some_and(|it| it.until > now)
            });
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

impl Slot {
    /// The token, if it is neither `refused` nor old.
    fn usable(&self, refused: Option<&HeaderValue>) -> Option<Token> {
        let token = lock(&self.token).clone()?;
        (token.until > Instant::now() && Some(&token.authorization) != refused).then_some(token)
    }
}

impl Key {
    fn of(challenge: &Challenge, login: Login<'_>) -> Result<Self, FetchError> {
        let base = login.endpoint.base();
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return Ok(Self { realm: base, service: None, scope: None });
        };
        let usable = |url: &Url| matches!(url.scheme(), "http" | "https");
        let realm = base.join(realm).ok().filter(usable);
        let realm = realm.ok_or_else(|| FetchError::Protocol {
            origin: origin_of(&base),
            why: "its challenge names no usable token server".to_owned(),
        })?;
        let of_repository =
            (!login.repository.is_empty()).then(|| format!("repository:{}:pull", login.repository));
        Ok(Self { realm, service: service.clone(), scope: scope.clone().or(of_repository) })
    }
}

/// What a token server answers; it may use either name for the token.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn posed(response: &Response) -> Result<Option<Challenge>, FetchError> {
    let headers = response
        .headers()
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|header| header.to_str().ok());
    Challenge::choose(headers).map_err(|_| FetchError::Protocol {
        origin: origin_of(response.url()),
        why: "its challenge (WWW-Authenticate) is malformed".to_owned(),
    })
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, FetchError> {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    sensitive(format!("Basic {encoded}")).ok_or_else(|| FetchError::Protocol {
        origin: "the keychain".to_owned(),
        why: "its password cannot be sent".to_owned(),
    })
}

fn sensitive(value: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}
