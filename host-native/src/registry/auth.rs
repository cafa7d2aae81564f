//! Answering challenges: passwords, and tokens from token servers.
//!
//! No credential or token is ever printed: they live in headers marked sensitive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
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

/// Tokens, and which challenge each repository poses.
#[derive(Default)]
pub(super) struct Tokens {
    known: Mutex<HashMap<(Url, String), Challenge>>,
    slots: Mutex<HashMap<Key, Slot>>,
}

/// What a token is good for. A password counts as the token of its registry.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    realm: Url,
    service: Option<String>,
    scope: Option<String>,
}

/// Whoever needs a token locks its slot, so only one request for it is under way; others wait for
/// that one, within their own deadline. Nothing else is locked meanwhile.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

struct Token {
    authorization: HeaderValue,
    until: Instant,
}

/// Who asks whom for what: one repository of one host.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a str,
}

impl Client {
    /// Sends `call` once with what authenticates `login`, and once more with what a refusal asks
    /// for.
    pub(super) async fn exchange_as(
        &self,
        call: &Call,
        login: Login<'_>,
        deadline: Instant,
    ) -> Result<Response, FetchError> {
        let place = (login.endpoint.base.clone(), login.repository.to_owned());
        let known = lock(&self.tokens().known).get(&place).cloned();
        let used = match &known {
            Some(challenge) => self.authorization(challenge, login, None, deadline).await?,
            None => None,
        };
        let response = self.exchange(call, used.as_ref(), deadline).await?;
        // Some registries answer 403 to a token that has expired.
        let refused = match response.status() {
            StatusCode::UNAUTHORIZED => true,
            StatusCode::FORBIDDEN => used.is_some(),
            _ => false,
        };
        if !refused {
            return Ok(response);
        }
        let challenge = posed(&response)?.or(known);
        let Some(challenge) = challenge else { return Ok(response) };
        let fresh = self.authorization(&challenge, login, used.as_ref(), deadline).await?;
        let Some(fresh) = fresh else { return Ok(response) };
        drain(response).await;
        lock(&self.tokens().known).insert(place, challenge);
        self.exchange(call, Some(&fresh), deadline).await
    }

    /// What to send to satisfy `challenge`: from before, unless that is `refused` or old.
    async fn authorization(
        &self,
        challenge: &Challenge,
        login: Login<'_>,
        refused: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, FetchError> {
        let base = &login.endpoint.base;
        let key = match challenge {
            Challenge::Basic => Key { realm: base.clone(), service: None, scope: None },
            Challenge::Bearer { realm, service, scope } => {
                let realm =
                    base.join(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                let why = || "its challenge names no usable token server".to_owned();
                let realm = realm
                    .ok_or_else(|| FetchError::Protocol { origin: origin_of(base), why: why() })?;
                let scope = scope
                    .clone()
                    .unwrap_or_else(|| format!("repository:{}:pull", login.repository));
                Key { realm, service: service.clone(), scope: Some(scope) }
            }
        };
        let slot = self.tokens().slot(&key);
        let mut slot = tokio::time::timeout_at(deadline, slot.lock()).await.map_err(|_| {
            FetchError::Timeout {
                origin: origin_of(&key.realm),
                after: self.options().total_timeout,
            }
        })?;
        if let Some(token) = &*slot
            && token.until > Instant::now()
            && Some(&token.authorization) != refused
        {
            return Ok(Some(token.authorization.clone()));
        }
        *slot = None;
        let keychain = &self.options().keychain;
        let credential = keychain.credential(&login.endpoint.host, login.repository).await;
        *slot = match challenge {
            Challenge::Basic => match credential {
                Some(Credential::Password { user, password }) => {
                    let until = Instant::now() + LONGEST_LIFE;
                    Some(Token { authorization: basic(&user, &password)?, until })
                }
                _ => None,
            },
            Challenge::Bearer { .. } => Some(self.token(&key, credential, login, deadline).await?),
        };
        Ok(slot.as_ref().map(|token| token.authorization.clone()))
    }

    /// Asks a token server.
    async fn token(
        &self,
        key: &Key,
        credential: Option<Credential>,
        login: Login<'_>,
        deadline: Instant,
    ) -> Result<Token, FetchError> {
        let origin = origin_of(&key.realm);
        let broken =
            |why: &str| FetchError::Protocol { origin: origin.clone(), why: why.to_owned() };
        if credential.is_some()
            && login.endpoint.base.scheme() == "https"
            && key.realm.scheme() != "https"
        {
            return Err(broken("as a token server it would get the password unencrypted"));
        }
        let mut url = key.realm.clone();
        let fields = [("service", key.service.as_deref()), ("scope", key.scope.as_deref())];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let (mut call, authorization) = match &credential {
            Some(Credential::IdentityToken(token)) => {
                let mut form =
                    Url::parse("http://form").map_err(|_| broken("its form cannot be made"))?;
                form.query_pairs_mut()
                    .extend_pairs(fields)
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "lazystar")
                    .append_pair("refresh_token", token);
                let form = form.query().map(str::to_owned);
                (Call { form, ..Call::new(Method::POST, url) }, None)
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
        Ok(Token { authorization, until: asked + life - SKEW.min(life / 4) })
    }
}

impl Tokens {
    fn slot(&self, key: &Key) -> Slot {
        let mut slots = lock(&self.slots);
        if !slots.contains_key(key) {
            let now = Instant::now();
            // Slots in use are locked or held elsewhere; of the others only live tokens are kept.
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1
                    || slot
                        .try_lock()
                        .is_ok_and(|token| token.as_ref().is_some_and(|token| token.until > now))
            });
        }
        Arc::clone(slots.entry(key.clone()).or_default())
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
