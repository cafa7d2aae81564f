//! Credentials that came with pulls over Kubernetes' CRI, by image.
//!
//! They are in one file that only root can read, since who pulls is not who mounts, and both end
//! and start again. The file appears whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Credential;
use crate::reference::RegistryRef;

/// Images whose credentials are kept; of more the oldest go.
const MOST: usize = 1000;
/// Larger than the file with the longest credentials that are accepted.
const MAX_FILE: u64 = 64 << 20;
/// Longest name, password or token that is kept. Tokens of clouds have some KiB.
const MAX_SECRET: usize = 16 << 10;

/// The credentials of one root directory.
#[derive(Debug)]
pub struct CriCredentials {
    file: PathBuf,
    kept: Mutex<Vec<Kept>>,
}

/// An image and its credential, the latest image last.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity_token: Option<String>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({})", self.image)
    }
}

impl CriCredentials {
    /// Where those of the snapshotter below `root` are.
    #[must_use]
    pub fn file(root: &Path) -> PathBuf {
        root.join("cri-credentials.json")
    }

    /// The credentials in `file`, which need not be there yet. One that cannot be read is replaced.
    #[must_use]
    pub fn open(file: PathBuf) -> Self {
        let kept = read(&file).unwrap_or_else(|error| {
            // What is wrong with it, not what is in it.
            tracing::warn!(file = %file.display(), "starting without known CRI credentials: {error}");
            Vec::new()
        });
        Self { file, kept: Mutex::new(kept) }
    }

    /// Keeps the credential that `image` is pulled with; with none, forgets it.
    ///
    /// # Errors
    /// When the file cannot be written; the credential counts all the same until the process ends.
    pub fn remember(&self, image: &RegistryRef, credential: Option<Credential>) -> io::Result<()> {
        let name = image.to_string();
        let entry = credential.filter(is_sane).map(|credential| {
            let (user, password, identity_token) = match credential {
                Credential::Password { user, password } => (Some(user), Some(password), None),
                Credential::IdentityToken(token) => (None, None, Some(token)),
            };
            Kept { image: name.clone(), user, password, identity_token }
        });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.last() == entry.as_ref() && entry.is_some() {
            return Ok(());
        }
        let before = kept.len();
        kept.retain(|it| it.image != name);
        if entry.is_none() && kept.len() == before {
            return Ok(());
        }
        kept.extend(entry);
        let excess = kept.len().saturating_sub(MOST);
        kept.drain(..excess);
        write(&self.file, &kept)
    }
}

/// The latest credential in `file` for an image in `repository` of `host`.
///
/// What cannot be read counts as none.
pub(super) fn look_up(file: &Path, host: &str, repository: &str) -> Option<Credential> {
    let kept = read(file).unwrap_or_else(|error| {
        tracing::warn!(file = %file.display(), "cannot read CRI credentials: {error}");
        Vec::new()
    });
    let matches = |it: &&Kept| {
        let image: Option<RegistryRef> = it.image.parse().ok();
        image.is_some_and(|image| image.host() == host && image.repository() == repository)
    };
    let found = kept.iter().rev().find(matches)?.clone();
    match (found.user, found.password, found.identity_token) {
        (_, _, Some(token)) => Some(Credential::IdentityToken(token)),
        (Some(user), Some(password), None) => Some(Credential::Password { user, password }),
        _ => None,
    }
}

fn is_sane(credential: &Credential) -> bool {
    match credential {
        Credential::Password { user, password } => user.len().max(password.len()) <= MAX_SECRET,
        Credential::IdentityToken(token) => token.len() <= MAX_SECRET,
    }
}

fn read(file: &Path) -> io::Result<Vec<Kept>> {
    let text = match File::open(file) {
        Ok(open) if open.metadata()?.len() > MAX_FILE => {
            return Err(io::Error::other("it is too large"));
        }
        Ok(open) => io::read_to_string(open)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    // The error of the JSON reader may repeat a value.
    serde_json::from_str(&text).map_err(|_| io::Error::other("it is damaged"))
}

fn write(file: &Path, kept: &[Kept]) -> io::Result<()> {
    let partial = file.with_extension("new");
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut open = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    open.write_all(&serde_json::to_vec(kept)?)?;
    open.sync_all()?;
    fs::rename(&partial, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn image(name: &str) -> RegistryRef {
        name.parse().expect("a reference")
    }

    fn password(password: &str) -> Credential {
        Credential::Password { user: "me".to_owned(), password: password.to_owned() }
    }

    #[test]
    fn outlive_the_process_and_are_forgotten_on_demand() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = CriCredentials::file(dir.path());
        assert_eq!(look_up(&file, "r.example", "a"), None);
        let it = CriCredentials::open(file.clone());
        it.remember(&image("r.example/a:1"), Some(password("one"))).expect("written");
        it.remember(&image("r.example/a:2"), Some(password("two"))).expect("written");
        let token = Credential::IdentityToken("t".to_owned());
        it.remember(&image("r.example/b"), Some(token.clone())).expect("written");
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let again = CriCredentials::open(file.clone());
        assert_eq!(look_up(&file, "r.example", "a"), Some(password("two")));
        assert_eq!(look_up(&file, "r.example", "b"), Some(token));
        assert_eq!(look_up(&file, "other.example", "a"), None);
        again.remember(&image("r.example/a:2"), None).expect("written");
        assert_eq!(look_up(&file, "r.example", "a"), Some(password("one")));
        assert!(!format!("{again:?}").contains("\"one\""));
    }

    #[test]
    fn are_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = CriCredentials::file(dir.path());
        let kept = (0..MOST).map(|number| Kept {
            image: format!("r.example/a{number}:latest"),
            user: Some("me".to_owned()),
            password: Some("p".to_owned()),
            identity_token: None,
        });
        write(&file, &kept.collect::<Vec<_>>()).expect("written");
        let it = CriCredentials::open(file.clone());
        it.remember(&image("r.example/new"), Some(password("p"))).expect("written");
        assert_eq!(it.kept.lock().expect("free").len(), MOST);
        assert_eq!(look_up(&file, "r.example", "a0"), None);
        assert!(look_up(&file, "r.example", "new").is_some());
        let long = password(&"x".repeat(MAX_SECRET + 1));
        it.remember(&image("r.example/long"), Some(long)).expect("ignored");
        assert_eq!(look_up(&file, "r.example", "long"), None);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = CriCredentials::file(dir.path());
        fs::write(&file, "[{\"image\": 1, \"password\": \"secret\"}]").expect("written");
        let error = read(&file).expect_err("damaged").to_string();
        assert!(!error.contains("secret"), "{error}");
        let it = CriCredentials::open(file.clone());
        it.remember(&image("r.example/a"), Some(password("p"))).expect("written");
        assert_eq!(look_up(&file, "r.example", "a"), Some(password("p")));
    }
}
