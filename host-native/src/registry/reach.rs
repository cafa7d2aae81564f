//! Which addresses a client connects to: for whoever asks on behalf of others.
//!
//! The address is checked that is connected to, not one that was looked up before: a name may lead
//! elsewhere the next time. Where a proxy makes the connection, it is the proxy that looks names
//! up; then what this machine knows of the name is checked.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{ClientBuilder, Url};

use super::origin_of;
use crate::source::FetchError;

/// Which addresses a client connects to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    #[default]
    Anywhere,
    /// Those on the public internet. Those of these hosts too, which are written as `HOST[:PORT]`,
    /// and those of hosts that the configuration of registries says where to find.
    Public(Arc<BTreeSet<String>>),
}

impl Reach {
    /// Whether `url` may be asked, wherever its name leads.
    pub(super) fn includes(&self, url: &Url) -> bool {
        let Self::Public(named) = self else { return true };
        let host = url.host_str().unwrap_or_default();
        let with_port = |port: u16| named.contains(&format!("{host}:{port}"));
        url.port_or_known_default().is_some_and(with_port)
            || (url.port().is_none() && named.contains(host))
    }
}

/// Refuses `url` if its host is written as an address that is not public, or is this machine.
pub(super) fn check_written(url: &Url) -> Result<(), FetchError> {
    let host = url.host_str().unwrap_or_default();
    let written = host.trim_start_matches('[').trim_end_matches(']').parse();
    let address = match written {
        Ok(address) => address,
        Err(_) if super::is_loopback(url) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Err(_) => return Ok(()),
    };
    if is_public(address) {
        return Ok(());
    }
    Err(FetchError::NotPublic { origin: origin_of(url), address })
}

/// Refuses `url` if this machine knows that its name leads to an address that is not public.
pub(super) async fn check_known(url: &Url) -> Result<(), FetchError> {
    match look_up(url.host_str().unwrap_or_default()).await {
        Ok((_, Some(address))) => Err(FetchError::NotPublic { origin: origin_of(url), address }),
        Ok((_, None)) | Err(_) => Ok(()),
    }
}

/// Lets a client connect to public addresses only, and by itself.
pub(super) fn guarded(builder: ClientBuilder) -> ClientBuilder {
    builder.no_proxy().dns_resolver(Arc::new(PublicResolver))
}

/// Why a name is not connected to: all of its addresses are like this one.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not an address on the public internet")]
pub(super) struct NotPublic(pub(super) IpAddr);

impl NotPublic {
    /// What is behind the failure of a request, if it is this.
    pub(super) fn of(error: &reqwest::Error) -> Option<&Self> {
        let mut cause: &dyn std::error::Error = error;
        loop {
            cause = cause.source()?;
            if let Some(found) = cause.downcast_ref() {
                return Some(found);
            }
        }
    }
}

#[derive(Debug)]
struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            match look_up(name.as_str()).await? {
                (public, Some(other)) if public.is_empty() => Err(NotPublic(other).into()),
                (public, _) => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

/// The public addresses of `host`, and one that is none.
async fn look_up(host: &str) -> io::Result<(Vec<SocketAddr>, Option<IpAddr>)> {
    let all = tokio::net::lookup_host((host, 0)).await?;
    let (public, others): (Vec<_>, Vec<_>) = all.partition(|found| is_public(found.ip()));
    Ok((public, others.first().map(SocketAddr::ip)))
}

/// Whether an address is one of the public internet (IANA's registries of special-purpose
/// addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // This network; multicast and reserved addresses.
        || a == 0
        || a >= 224
        // Shared by the customers of a provider.
        || (a == 100 && (64..128).contains(&b))
        // Of protocols.
        || (a, b, c) == (192, 0, 0)
        // Of benchmarks.
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        // ::ffff:a.b.c.d, and the address of an IPv4 host behind NAT64 or 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Of protocols, Teredo among them, and documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // All that is global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_public() {
        let is_public = |text: &str| is_public(text.parse().expect(text));
        for public in [
            "1.1.1.1",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(is_public(public), "{public}");
        }
        for other in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            assert!(!is_public(other), "{other}");
        }
    }

    #[test]
    fn a_named_host_is_one_with_its_port() {
        let named = ["127.0.0.1:5000", "registry.corp", "10.0.0.1:80"].map(str::to_owned);
        let reach = Reach::Public(Arc::new(named.into()));
        let includes = |url: &str| reach.includes(&url.parse().expect(url));
        for yes in [
            "http://127.0.0.1:5000/v2/",
            "https://registry.corp/v2/",
            "http://registry.corp/",
            "http://10.0.0.1/",
        ] {
            assert!(includes(yes), "{yes}");
        }
        for no in ["http://127.0.0.1/", "http://127.0.0.1:22/", "https://registry.corp:8443/"] {
            assert!(!includes(no), "{no}");
        }
        assert!(Reach::Anywhere.includes(&"http://127.0.0.1:22/".parse().expect("a URL")));
    }

    #[test]
    fn addresses_in_other_writings_are_addresses() {
        for url in [
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost/",
            "http://a.localhost/",
            "https://169.254.169.254/latest",
        ] {
            assert!(check_written(&url.parse().expect(url)).is_err(), "{url}");
        }
        assert!(check_written(&"https://ghcr.io/v2/".parse().expect("a URL")).is_ok());
    }
}
