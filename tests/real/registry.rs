//! A registry for one test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lazystar_tests::certificates::Paths;

use crate::rig::{Skip, need};

/// Who signs tokens, by its own word.
pub(crate) const ISSUER: &str = "token server of the rig";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// The name and password of a private registry.
pub(crate) const USER: &str = "lazy";
/// See [`USER`].
pub(crate) const PASSWORD: &str = "star";
/// The same, as `htpasswd -B` writes it.
const HTPASSWD: &str = "lazy:$2a$05$abcdefghijklmnopqrstuuhnl5Zq8mhHqAF2Cn8F5/8oDKw7j3oF6\n";

/// A registry; ends with its owner.
pub(crate) struct Registry {
    process: Child,
    /// Its `host:port`.
    pub(crate) address: String,
}

/// What a registry is beside the usual.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Where its content is, which other registries may serve too; else in its own directory.
    pub(crate) content: Option<&'a Path>,
    /// Whether it asks for a password.
    pub(crate) password: bool,
    /// Its certificate; it wants those of its clients, too.
    pub(crate) tls: Option<&'a Paths>,
    /// The registry that it is a pull-through cache of.
    pub(crate) cache_of: Option<&'a str>,
    /// The token server that it trusts, and the certificate of what that signs with.
    pub(crate) tokens: Option<(&'a str, &'a Path)>,
}

impl Registry {
    /// A registry that keeps everything in `dir`, or in `content`, which other registries may serve too, and asks for a
    /// password then.
    pub(crate) fn start(dir: &Path, content: Option<&Path>) -> Result<Self, Skip> {
        Self::start_as(dir, &Options { content, password: content.is_some(), ..Options::default() })
    }

    /// A registry with `options`, which keeps what is its own in `dir`.
    pub(crate) fn start_as(dir: &Path, options: &Options<'_>) -> Result<Self, Skip> {
        need(&["docker-registry"])?;
        fs::create_dir_all(dir).expect("the rig is writable");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let mut more = String::new();
        if options.password {
            let file = dir.join("htpasswd");
            fs::write(&file, HTPASSWD).expect("the rig is writable");
            more += &format!("auth: {{htpasswd: {{realm: rig, path: {}}}}}\n", file.display());
        }
        if let Some((realm, bundle)) = options.tokens {
            more += &format!(
                "auth: {{token: {{realm: '{realm}', service: rig, issuer: {ISSUER}, rootcertbundle: {}}}}}\n",
                bundle.display()
            );
        }
        if let Some(remote) = options.cache_of {
            more += &format!("proxy: {{remoteurl: 'http://{remote}'}}\n");
        }
        let tls = options.tls.map(|Paths { authority, server, server_key, .. }| {
            format!(
                ", tls: {{certificate: {}, key: {}, clientcas: [{}]}}",
                server.display(),
                server_key.display(),
                authority.display()
            )
        });
        let own = dir.join("content");
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: \
             {}}}}}\nhttp: {{addr: {address}{}}}\n{more}",
            options.content.unwrap_or(&own).display(),
            tls.unwrap_or_default()
        );
        fs::write(&config, text).expect("the rig is writable");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.stderr(Stdio::null()).spawn().expect("the registry starts");
        let this = Self { process, address };
        let started = Instant::now();
        while TcpStream::connect(&this.address).is_err() {
            assert!(started.elapsed() < PATIENCE, "the registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
