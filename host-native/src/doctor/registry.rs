//! What a registry and its mirrors do that matters to lazy images.

use super::Finding;
use crate::reference::RegistryRef;
use crate::registry::{BlobAnswer, Client, Greeting, Probe, Repository};
use crate::source::FetchError;

const AREA: &str = "registry";
/// Above this every first read of a file is felt.
const SLOW: std::time::Duration = std::time::Duration::from_millis(200);

/// A registry to look at: `HOST`, or `HOST/REPOSITORY[:TAG]` with an image to try it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryName {
    reference: RegistryRef,
    names_image: bool,
}

impl std::str::FromStr for RegistryName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names_image = text.contains('/');
        let image = if names_image { text.to_owned() } else { format!("{text}/any") };
        let reference: RegistryRef =
            image.parse().map_err(|error: crate::reference::ReferenceError| error.to_string())?;
        let is_host = names_image || reference.repository() == "any" || text == "docker.io";
        if !is_host {
            return Err(format!("{text:?} is no host; write its name with a dot or a port"));
        }
        Ok(Self { reference, names_image })
    }
}

/// Asks the hosts of a registry, with the client's credentials.
pub async fn examine(client: &Client, name: &RegistryName, plain_http: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match look(client, name, plain_http, &mut findings).await {
        Ok(()) => findings,
        Err(error) => {
            findings.push(problem(&error));
            findings
        }
    }
}

async fn look(
    client: &Client,
    name: &RegistryName,
    plain_http: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), FetchError> {
    let mut repository = Repository::new(client, &name.reference, plain_http)?;
    let image = match name.names_image {
        true => Some(name.reference.clone()),
        false => repository.any_image().await,
    };
    let mut blob = None;
    match &image {
        Some(image) => {
            repository = Repository::new(client, image, plain_http)?;
            let tag = image.digest().map(|digest| digest.to_string());
            let tag = tag.or_else(|| image.tag().map(str::to_owned)).unwrap_or_default();
            match repository.any_blob(&tag).await {
                Ok(found) => blob = found,
                Err(error) => findings.push(problem(&error)),
            }
        }
        None => findings.push(Finding::warning(
            AREA,
            "it lists no images, so nothing is known of byte ranges and redirects",
            format!(
                "name one: `lazystar doctor --registry {}/REPOSITORY:TAG`",
                name.reference.host()
            ),
        )),
    }
    let probes = repository.probe(blob).await?;
    let count = probes.len();
    for (at, probe) in probes.iter().enumerate() {
        let kind = if probe.is_mirror { "mirror" } else { "registry" };
        findings.push(Finding::ok(
            AREA,
            format!("host {} of {count}, a {kind}: {}", at + 1, probe.host),
        ));
        of_host(probe, findings);
    }
    Ok(())
}

fn of_host(probe: &Probe, findings: &mut Vec<Finding>) {
    match &probe.answer {
        Ok(greeting) => of_greeting(greeting, findings),
        Err(error) => findings.push(problem(error)),
    }
    match &probe.blob {
        Some(Ok(answer)) => of_blob(answer, findings),
        Some(Err(error)) => findings.push(problem(error)),
        None => {}
    }
}

fn of_greeting(greeting: &Greeting, findings: &mut Vec<Finding>) {
    let Greeting { wants, status, has_credential, version, latency, limits, learned } = greeting;
    let wants = wants.as_ref().map_or_else(|| "nothing".to_owned(), Clone::clone);
    let shown = match has_credential {
        true => "a credential is known for it",
        false => "no credential is known for it",
    };
    let what = format!("authentication: it wants {wants}; {shown}; it then answers {status}");
    findings.push(match status {
        200..=399 => Finding::ok(AREA, what),
        401 | 403 => {
            Finding::problem(AREA, what, "log in with `docker login`, see README, Registries")
        }
        404 => Finding::warning(
            AREA,
            what,
            "a registry answers 200 at /v2/; check path and override_path",
        ),
        _ => Finding::problem(AREA, what, "check that it is a registry, and what is before it"),
    });
    let what = format!("HTTP: {version}, {:.1} ms to an answer", latency.as_secs_f64() * 1e3);
    findings.push(if *latency > SLOW {
        Finding::warning(
            AREA,
            what,
            "a mirror or a pull-through cache nearby makes first reads faster",
        )
    } else {
        Finding::ok(AREA, what)
    });
    findings.push(of_limits(limits, *learned));
}

fn of_limits(limits: &[String], learned: Option<f64>) -> Finding {
    match (limits, learned) {
        (_, Some(rate)) => Finding::warning(
            AREA,
            format!(
                "rate: it refused requests (429) and is asked {rate:.1} times a second at most"
            ),
            "log in, or use a mirror or a pull-through cache",
        ),
        ([], None) => Finding::ok(AREA, "rate: it states no limit, and refused nothing"),
        (limits, None) => Finding::ok(AREA, format!("rate: it states {}", limits.join(", "))),
    }
}

fn of_blob(answer: &BlobAnswer, findings: &mut Vec<Finding>) {
    let BlobAnswer { from, status, content_range, version, limits } = answer;
    if !limits.is_empty() {
        findings.push(of_limits(limits, None));
    }
    findings.push(Finding::ok(
        AREA,
        match from {
            Some(place) => format!(
                "redirects: blobs come from {place} by {version}, which is not shown credentials"
            ),
            None => "redirects: none, blobs come from the host itself".to_owned(),
        },
    ));
    let ranges = match (status, content_range) {
        (206, Some(range)) => Finding::ok(AREA, format!("ranges: they work ({range})")),
        (200, _) => Finding::problem(
            AREA,
            "ranges: it ignores them and sends whole blobs; layers are downloaded as a whole, once, when they are first read",
            "enable range requests in the registry or the proxy before it; of a pull-through cache, ask again",
        ),
        (206, None) => Finding::problem(
            AREA,
            "ranges: it does not say which bytes it sends (Content-Range)",
            "the registry or a proxy before it is broken",
        ),
        (status, _) => Finding::problem(
            AREA,
            format!("ranges: a request for one is answered with status {status}"),
            "check that the image was pushed completely, and who may read it",
        ),
    };
    findings.push(ranges);
}

fn problem(error: &FetchError) -> Finding {
    Finding::problem(AREA, error.to_string(), "see README, Registries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_host_or_an_image() {
        let name = |text: &str| text.parse::<RegistryName>();
        for host in ["docker.io", "localhost:5000", "registry.example"] {
            let name = name(host).expect(host);
            assert!(!name.names_image && name.reference.host() == host, "{name:?}");
        }
        assert!(name("registry.example/a/b:1").expect("an image").names_image);
        for bad in ["registry", "https://registry.example", "a b", ""] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
