//! Whose requests are answered: those of the page of this server, and of people at this machine.
//!
//! Any site may have a browser send requests here. One that lets its own name lead to this machine
//! (DNS rebinding) is known by the `Host`; any other by what browsers say of where a request is
//! from.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode};

use super::refusal::Refusal;

/// Refuses a request that came to the address `here` for another name, or from another site.
pub(super) fn check(here: Option<SocketAddr>, head: &Parts) -> Result<(), Refusal> {
    let stated = value(&head.headers, HOST);
    let host = stated.or_else(|| head.uri.authority().map(Authority::as_str)).unwrap_or_default();
    let names = [Some(host), head.uri.authority().map(Authority::as_str)];
    if !names.into_iter().flatten().all(|name| is_own(name, here)) {
        let message = format!(
            "{host:?} is not the name of this server; open it as http://127.0.0.1, or by the address that it listens on"
        );
        return Err(Refusal::new(StatusCode::FORBIDDEN, "LAZYSTAR_HOST", message));
    }
    let from_here = |origin: &str| origin.strip_prefix("http://") == Some(host);
    let of_browser = value(&head.headers, HeaderName::from_static("sec-fetch-site"));
    let is_foreign =
        head.headers.get_all(ORIGIN).iter().any(|it| !it.to_str().is_ok_and(from_here))
            || of_browser.is_some_and(|site| !matches!(site, "same-origin" | "none"));
    if is_foreign {
        let message = "another site asks for this; only the explorer's own page may. To follow a link, copy it into the address bar";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "LAZYSTAR_ORIGIN", message));
    }
    Ok(())
}

/// The value of a header that must not be there twice; the empty one if it is.
fn value(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    Some(if values.next().is_some() { "" } else { value.to_str().unwrap_or_default() })
}

/// Whether `host` names this server. The port does not matter: it may be another one at the end of
/// a tunnel. Names that are addresses are looked up nowhere, so they cannot be made to lead here.
fn is_own(host: &str, here: Option<SocketAddr>) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if host.contains('@') {
        return false;
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_local = here.is_none_or(|here| here.ip().to_canonical().is_loopback());
    match name.parse::<IpAddr>() {
        Ok(address) => !is_local || address.to_canonical().is_loopback(),
        Err(_) => {
            name.eq_ignore_ascii_case("localhost")
                || (!is_local && rustix::system::uname().nodename().to_str() == Ok(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_names() {
        let near = Some("127.0.0.1:7117".parse().expect("an address"));
        let far = Some("192.0.2.7:7117".parse().expect("an address"));
        for (host, is_near, is_far) in [
            ("127.0.0.1:7117", true, true),
            ("127.0.0.1", true, true),
            ("localhost:8000", true, true),
            ("LOCALHOST", true, true),
            ("[::1]:7117", true, true),
            ("192.0.2.7:7117", false, true),
            ("evil.example", false, false),
            ("evil.example:7117", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("x@127.0.0.1", false, false),
            ("", false, false),
            ("127.0.0.1:7117, evil.example", false, false),
        ] {
            assert_eq!((is_own(host, near), is_own(host, far)), (is_near, is_far), "{host}");
        }
    }
}
