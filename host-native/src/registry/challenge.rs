//! What a registry asks for with `WWW-Authenticate` (RFC 9110, section 11.6.1).

/// A way to authenticate that this client knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token from a token server (distribution specification, "Token authentication").
    Bearer {
        /// The URL of the token server.
        realm: String,
        /// The name of this registry there.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of the challenges in `headers`: tokens before passwords. `None` if none is known.
    ///
    /// # Errors
    /// If a header is malformed.
    pub(super) fn choose<'a>(
        headers: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Self>, Malformed> {
        let mut best = None;
        for header in headers {
            for (scheme, parameters) in parse(header)? {
                if scheme.eq_ignore_ascii_case("bearer") {
                    let mut parameters = parameters;
                    let mut take = |name: &str| {
                        let at = parameters
                            .iter()
                            .position(|(key, _)| key.eq_ignore_ascii_case(name))?;
                        Some(parameters.swap_remove(at).1)
                    };
                    let realm = take("realm").ok_or(Malformed)?;
                    return Ok(Some(Self::Bearer {
                        realm,
                        service: take("service"),
                        scope: take("scope"),
                    }));
                }
                if scheme.eq_ignore_ascii_case("basic") {
                    best = Some(Self::Basic);
                }
            }
        }
        Ok(best)
    }
}

/// A challenge header that does not follow its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Parsed = (String, Vec<(String, String)>);

/// Reads `Scheme key="value", key=value, Scheme ...`.
fn parse(header: &str) -> Result<Vec<Parsed>, Malformed> {
    let mut challenges: Vec<Parsed> = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let (token, after) = take_token(rest)?;
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (_, parameters) = challenges.last_mut().ok_or(Malformed)?;
            let (value, after) = take_value(value.trim_start())?;
            if parameters.iter().any(|(key, _)| key.eq_ignore_ascii_case(token)) {
                return Err(Malformed);
            }
            parameters.push((token.to_owned(), value));
            rest = next_item(after)?;
        } else {
            challenges.push((token.to_owned(), Vec::new()));
            // A scheme may stand alone, or a space and its parameters follow.
            let spaced = after.starts_with([' ', '\t']);
            rest = after.trim_start();
            if rest.starts_with(',') {
                rest = next_item(rest)?;
            } else if !rest.is_empty() && !spaced {
                return Err(Malformed);
            }
        }
    }
    Ok(challenges)
}

/// Skips the commas, of which lists may have too many, before the next item.
fn next_item(rest: &str) -> Result<&str, Malformed> {
    let rest = rest.trim_start();
    if rest.is_empty() {
        return Ok(rest);
    }
    let next = rest.trim_start_matches([',', ' ', '\t']);
    if rest.starts_with(',') { Ok(next) } else { Err(Malformed) }
}

fn take_token(text: &str) -> Result<(&str, &str), Malformed> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = text.bytes().position(|b| !legal(b)).unwrap_or(text.len());
    if end == 0 { Err(Malformed) } else { Ok(text.split_at(end)) }
}

/// A token or a quoted string, and what follows it.
fn take_value(text: &str) -> Result<(String, &str), Malformed> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Token servers write URLs without quotes; a strict token would refuse them.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return if end == 0 || text[..end].contains('"') {
            Err(Malformed)
        } else {
            Ok((text[..end].to_owned(), &text[end..]))
        };
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next().ok_or(Malformed)?.1),
            other => value.push(other),
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_challenge_is_read_or_refused(
            headers in prop::collection::vec("(Bearer|basic|Negotiate)?[ ,]*((realm|service|scope|x)[ ]*=[ ]*(\"[a-z:\\\\,]*\"?|[a-z/]*)[, ]*){0,4}|.{0,40}", 0..3),
        ) {
            let chosen = Challenge::choose(headers.iter().map(String::as_str));
            if let Ok(Some(Challenge::Bearer { realm, .. })) = chosen {
                prop_assert!(headers.iter().any(|header| header.to_ascii_lowercase().contains("realm")), "{realm}");
            }
        }

        #[test]
        fn any_quoted_challenge_is_read_as_written(realm in "[ -~]{1,30}", service in "[ -~]{0,30}") {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{}\", service=\"{}\"", quoted(&realm), quoted(&service));
            prop_assert_eq!(Challenge::choose([&*header]), bearer(&realm, Some(&service), None));
        }
    }

    fn bearer(
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<Option<Challenge>, Malformed> {
        let [service, scope] = [service, scope].map(|text| text.map(str::to_owned));
        Ok(Some(Challenge::Bearer { realm: realm.to_owned(), service, scope }))
    }

    #[test]
    fn reads_what_registries_send() {
        let choose = |header: &str| Challenge::choose([header]);
        assert_eq!(
            choose(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push")
            )
        );
        assert_eq!(
            choose("bearer realm=http://x/t , service = \"s\\\"q\""),
            bearer("http://x/t", Some("s\"q"), None)
        );
        assert_eq!(choose(r#"Basic realm="a, b", Bearer realm="r""#), bearer("r", None, None));
        assert_eq!(choose(r#"Negotiate, Basic realm="x""#), Ok(Some(Challenge::Basic)));
        assert_eq!(choose("Basic"), Ok(Some(Challenge::Basic)));
        assert_eq!(choose("Negotiate"), Ok(None));
        assert_eq!(choose(""), Ok(None));
    }

    #[test]
    fn refuses_what_is_malformed() {
        let malformed = [
            "Bearer",
            r#"Bearer realm="x"#,
            r#"Bearer realm="a",realm="b""#,
            r#"realm="x""#,
            r#"Bearer realm="a" service="b""#,
            "Bearer realm=",
        ];
        for header in malformed {
            assert_eq!(Challenge::choose([header]), Err(Malformed), "{header}");
        }
    }
}
