//! No credential, token or signed address is ever printed.

use std::io;
use std::sync::{Arc, Mutex};

use lazystar::image::{Image, OpenOptions};
use lazystar::keychain::{Credential, Keychain};
use lazystar_tests::fault_registry::{
    Fault, FaultRegistry, IDENTITY_TOKEN, PASSWORD, TOKEN_PREFIX, USER,
};

use crate::sample::Sample;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn are_never_printed() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut shown = String::new();
    let faults = [
        Fault::Basic,
        Fault::Bearer,
        Fault::BearerExpires(403),
        Fault::BearerRedirect,
        Fault::RedirectExpires(403),
    ];
    for fault in faults {
        let registry = FaultRegistry::start(fault).await.unwrap();
        let sample = Sample::new();
        sample.push(&registry, "v1");
        let host = registry.address().to_string();
        let credentials = [
            Credential::Password { user: USER.into(), password: PASSWORD.into() },
            Credential::IdentityToken(IDENTITY_TOKEN.into()),
            Credential::Password { user: USER.into(), password: format!("{PASSWORD} but wrong") },
        ];
        for credential in credentials {
            shown += &format!("{credential:?}");
            let client = crate::client(Keychain::fixed(&host, credential));
            let options = OpenOptions {
                client,
                platform: "linux/riscv64".parse().unwrap(),
                ..OpenOptions::default()
            };
            let reference = format!("{host}/team/app:v1").parse().unwrap();
            match Image::open(&reference, &options).await {
                Ok(image) => {
                    for at in 0..5 {
                        image.layers[1].blob.fetch_all(at..at + 9).await.unwrap();
                    }
                    registry.set(Fault::Unauthorized);
                    let error = image.layers[1].blob.fetch_all(0..9).await;
                    shown += &format!("{image:?} {:?} {error:?}", image.layers);
                    registry.set(fault);
                }
                Err(error) => shown += &format!("{error} {error:?}"),
            }
            shown += &format!("{options:?} {:?}", options.client.options());
        }
        // Storage that cannot be reached has a signature in its address.
        registry.set(Fault::Redirect);
        registry.stop();
    }
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.len() > 100, "nothing was logged");
    use base64::Engine;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    for secret in [PASSWORD, IDENTITY_TOKEN, TOKEN_PREFIX, "signature=", &basic[..30]] {
        for text in [&shown, &logged] {
            let found = text.lines().find(|line| line.contains(secret) && is_ours(line));
            assert!(found.is_none(), "{secret} is in: {}", found.unwrap_or_default());
        }
    }
}

/// At the level of traces the HTTP library shows what it sends; nobody but its developers asks for
/// that.
fn is_ours(line: &str) -> bool {
    !["hyper", "reqwest", "h2", "tower", "mio"]
        .iter()
        .any(|library| line.contains(&format!(" {library}")))
}

#[tokio::test]
async fn come_from_the_file_that_docker_login_writes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let helper = dir.path().join("not-there");
    // "YTpiOmM=" is a:b:c, whose password holds a colon.
    let config = serde_json::json!({
        "auths": {
            "https://index.docker.io/v1/": { "auth": "YTpiOmM=" },
            "one.example:5000": { "auth": "", "identitytoken": "long-lived" },
            "two.example": {},
            "broken.example": { "auth": "%%%" },
        },
        "credHelpers": { "three.example": helper },
    });
    std::fs::write(&file, config.to_string()).unwrap();
    let keychain = Keychain::DockerConfig(file);
    let of = async |keychain: &Keychain, host| keychain.credentials(host, "a").await;
    let hub = Credential::Password { user: "a".into(), password: "b:c".into() };
    assert_eq!(of(&keychain, "docker.io").await, [hub]);
    let token = Credential::IdentityToken("long-lived".into());
    assert_eq!(of(&keychain, "one.example:5000").await, [token]);
    for host in ["two.example", "three.example", "broken.example", "four.example"] {
        assert_eq!(of(&keychain, host).await, [], "{host}");
    }
    let missing = Keychain::DockerConfig(dir.path().join("missing.json"));
    assert_eq!(of(&missing, "docker.io").await, []);
}
