//! A registry for one test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::rig::{Skip, need};

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

impl Registry {
    /// A registry that keeps everything in `dir`, or in `content`, which other registries may serve too, and asks for a
    /// password then.
    pub(crate) fn start(dir: &Path, content: Option<&Path>) -> Result<Self, Skip> {
        need(&["docker-registry"])?;
        fs::create_dir_all(dir).expect("the rig is writable");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let (root, auth) = match content {
            Some(content) => {
                let file = dir.join("htpasswd");
                fs::write(&file, HTPASSWD).expect("the rig is writable");
                let auth =
                    format!("auth: {{htpasswd: {{realm: rig, path: {}}}}}\n", file.display());
                (content.to_owned(), auth)
            }
            None => (dir.join("content"), String::new()),
        };
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: \
             {}}}}}\nhttp: {{addr: {address}}}\n{auth}",
            root.display()
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
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
