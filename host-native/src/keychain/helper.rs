//! Programs that give credentials: Docker's credential helpers, and whatever a kubeconfig names.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::Credential;

/// How long a program may take. Helpers of clouds ask the network and take some seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that is read of what a program prints.
const MAX_OUTPUT: u64 = 256 << 10;

/// The credential that the helper `name` has for `server`, by Docker's protocol: the server on
/// standard input, JSON on standard output.
pub(super) async fn credential(name: &str, server: &str) -> Option<Credential> {
    if name.is_empty() || name.contains('/') {
        tracing::warn!(name, "a credential helper is named without directories");
        return None;
    }
    let program = format!("docker-credential-{name}");
    from(&program, server, PATIENCE).await
}

async fn from(program: impl AsRef<OsStr>, server: &str, patience: Duration) -> Option<Credential> {
    let name = program.as_ref().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.arg("get");
    let printed = match run(command, server.as_bytes(), patience).await {
        Ok(printed) => printed,
        Err(why) => {
            tracing::debug!(server, helper = name, "the credential helper has nothing: {why}");
            return None;
        }
    };
    match serde_json::from_slice::<Answer>(&printed) {
        Ok(Answer { username, secret }) if username == "<token>" => {
            Some(Credential::IdentityToken(secret))
        }
        Ok(Answer { username, secret }) if username.is_empty() && secret.is_empty() => None,
        Ok(Answer { username: user, secret: password }) => {
            Some(Credential::Password { user, password })
        }
        // Not what it printed: that may hold the secret.
        Err(_) => {
            tracing::warn!(server, helper = name, "the credential helper prints no credential");
            None
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Runs a program to its end and gives what it printed. One that takes too long is killed.
///
/// # Errors
/// Why there is nothing, without anything that it printed.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let ended = timeout(patience, async {
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not want it may be gone already.
            let _ = stdin.write_all(input).await;
        }
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut printed).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, printed))
    });
    match ended.await {
        Ok(Ok((status, printed))) if status.success() => Ok(printed),
        Ok(Ok((status, _))) => Err(format!("it ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            tracing::warn!("a program that gives credentials was killed: it took {patience:?}");
            Err(format!("it did not end within {patience:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use super::*;

    fn program(dir: &Path, name: &str, script: &str) -> PathBuf {
        let path = dir.join(name);
        // Its own file descriptor must be gone before it is run.
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        path
    }

    #[tokio::test]
    async fn say_what_they_have_and_are_killed_when_they_hang() {
        let dir = tempfile::tempdir().expect("a directory");
        let ask = async |name: &str, script: &str| {
            from(program(dir.path(), name, script), "r.example", Duration::from_millis(400)).await
        };
        let me = r#"read server; echo "{\"Username\":\"me@$server\",\"Secret\":\"s\"}""#;
        let password =
            Credential::Password { user: "me@r.example".to_owned(), password: "s".to_owned() };
        assert_eq!(ask("one", me).await, Some(password));
        let token = r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"t"}'"#;
        assert_eq!(ask("two", token).await, Some(Credential::IdentityToken("t".to_owned())));
        for (name, script) in [
            ("none", "echo credentials not found; exit 1"),
            ("empty", "echo '{}'"),
            ("broken", "echo 'secret'"),
            ("endless", "yes"),
        ] {
            assert_eq!(ask(name, script).await, None, "{name}");
        }
        let started = Instant::now();
        assert_eq!(
            ask("hangs", &format!("echo $$ >{}/pid; sleep 60", dir.path().display())).await,
            None
        );
        assert!(started.elapsed() < Duration::from_secs(5));
        let pid = std::fs::read_to_string(dir.path().join("pid")).expect("it ran");
        let gone = || !Path::new(&format!("/proc/{}/cmdline", pid.trim())).exists();
        for _ in 0..100 {
            if gone() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(gone(), "it still runs");
        assert_eq!(credential("../evil", "r.example").await, None);
        assert_eq!(credential("not-there-at-all", "r.example").await, None);
    }
}
