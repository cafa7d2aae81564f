//! Pull secrets of a Kubernetes cluster: all of type `kubernetes.io/dockerconfigjson`.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::Instant;

use super::docker::AuthFile;
use super::{Credential, helper};
use crate::bounded;
use crate::lock::lock;
use crate::registry::{Pem, TransportSettings, client_builder};

/// How long secrets are used before the cluster is asked again.
const KEPT: Duration = Duration::from_secs(30);
/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a program that gives the credential for the cluster may take.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(20);
/// Secrets asked for at once, and the most that are read at all.
const PAGE: usize = 250;
const MOST_PAGES: usize = 40;
/// Largest answer: a secret has up to 1 MiB.
const MAX_ANSWER: usize = 64 << 20;
const MAX_FILE: u64 = 1 << 20;
/// Where a pod finds what proves that it is one.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A cluster and what it had when it was last asked.
pub struct Kubernetes {
    config: Option<PathBuf>,
    secrets: Mutex<Option<Arc<[AuthFile]>>>,
    /// When it was asked; taken by who asks.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// Where a cluster is, and what it is shown.
struct Cluster {
    server: Url,
    transport: TransportSettings,
    bearer: Option<String>,
    basic: Option<(String, String)>,
}

impl Kubernetes {
    /// The cluster of a kubeconfig: this one, or that of `$KUBECONFIG`, `~/.kube/config`, or the
    /// cluster that this process is in. Asks for nothing.
    #[must_use]
    pub fn new(config: Option<PathBuf>) -> Self {
        Self { config, secrets: Mutex::default(), asked: tokio::sync::Mutex::default() }
    }

    /// The credentials for `repository` of `host` in all secrets, in the order of the cluster.
    pub(super) async fn credentials(&self, host: &str, repository: &str) -> Vec<Credential> {
        self.refresh().await;
        let secrets = lock(&self.secrets).clone();
        let mut found = Vec::new();
        for secret in secrets.iter().flat_map(|secrets| &**secrets) {
            found.extend(secret.credentials(host, repository).await);
        }
        found
    }

    /// Asks the cluster, unless that was done just now. Nobody waits for another one who asks and
    /// knows secrets from before.
    async fn refresh(&self) {
        let mut asked = match self.asked.try_lock() {
            Ok(asked) => asked,
            Err(_) if lock(&self.secrets).is_some() => return,
            Err(_) => self.asked.lock().await,
        };
        if asked.is_some_and(|at| at.elapsed() < KEPT) {
            return;
        }
        match tokio::time::timeout(PATIENCE + PROGRAM_PATIENCE, self.secrets()).await {
            Ok(Ok(secrets)) => *lock(&self.secrets) = Some(secrets.into()),
            Ok(Err(why)) => tracing::warn!("cannot get the pull secrets of the cluster: {why}"),
            Err(_) => tracing::warn!("the cluster does not answer; going on without it"),
        }
        *asked = Some(Instant::now());
    }

    async fn secrets(&self) -> Result<Vec<AuthFile>, String> {
        let cluster = Cluster::find(self.config.as_deref()).await?;
        let builder = cluster.transport.apply(client_builder().timeout(PATIENCE))?;
        let client = builder.build().map_err(|error| error.without_url().to_string())?;
        let mut secrets = Vec::new();
        let mut next = String::new();
        for _ in 0..MOST_PAGES {
            let mut url = cluster.server.clone();
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty().extend(["api", "v1", "secrets"]);
            }
            url.query_pairs_mut()
                .append_pair("fieldSelector", "type=kubernetes.io/dockerconfigjson")
                .append_pair("limit", &PAGE.to_string());
            if !next.is_empty() {
                url.query_pairs_mut().append_pair("continue", &next);
            }
            let mut request = client.get(url).header("accept", "application/json");
            if let Some(token) = &cluster.bearer {
                request = request.bearer_auth(token);
            } else if let Some((user, password)) = &cluster.basic {
                request = request.basic_auth(user, Some(password));
            }
            let no_answer = |error: reqwest::Error| error.without_url().to_string();
            let mut response = request.send().await.map_err(no_answer)?;
            if !response.status().is_success() {
                return Err(format!(
                    "its server answers with status {}; the account needs to `list` secrets",
                    response.status().as_u16()
                ));
            }
            let mut body = Vec::new();
            while let Some(bytes) = response.chunk().await.map_err(no_answer)? {
                body.extend_from_slice(&bytes);
                if body.len() > MAX_ANSWER {
                    return Err("its answer is too large".to_owned());
                }
            }
            let list: SecretList = serde_json::from_slice(&body)
                .map_err(|_| "its answer is not a list of secrets".to_owned())?;
            secrets.extend(list.items.iter().filter_map(Secret::auth_file));
            next = list.metadata.next;
            if next.is_empty() {
                break;
            }
        }
        Ok(secrets)
    }
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct SecretList {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Secret>,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Secret {
    #[serde(default)]
    data: SecretData,
}

#[derive(Default, Deserialize)]
struct SecretData {
    #[serde(default, rename = ".dockerconfigjson")]
    config: String,
}

impl Secret {
    fn auth_file(&self) -> Option<AuthFile> {
        AuthFile::parse(&STANDARD.decode(&self.data.config).ok()?)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct KubeConfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<Exec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exec {
    command: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    api_version: String,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// What a program prints that gives credentials for clusters.
#[derive(Deserialize)]
struct ExecCredential {
    status: ExecStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExecStatus {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Cluster {
    async fn find(config: Option<&Path>) -> Result<Self, String> {
        let usual = || {
            let listed = env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
            let listed = listed.and_then(|list| env::split_paths(&list).find(|it| it.exists()));
            listed.or_else(|| Some(env::home_dir()?.join(".kube/config")).filter(|it| it.exists()))
        };
        match config.map(Path::to_owned).or_else(usual) {
            Some(file) => {
                let what = |why| format!("{}: {why}", file.display());
                let text = read(&file).map_err(&what)?;
                let dir = file.parent().unwrap_or_else(|| Path::new("/"));
                Self::configured(&text, dir).await.map_err(what)
            }
            None => Self::around(Path::new(SERVICE_ACCOUNT)),
        }
    }

    /// The cluster of the current context of a kubeconfig in `dir`.
    async fn configured(text: &str, dir: &Path) -> Result<Self, String> {
        // The message of the reader may repeat a token.
        let config: KubeConfig = serde_norway::from_str(text).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line());
            format!("line {line} is not what a kubeconfig has there")
        })?;
        let wanted = &config.current_context;
        let context = config.contexts.iter().find(|it| it.name == *wanted);
        let context = context.ok_or_else(|| format!("it has no context {wanted:?}"))?;
        let Context { cluster, user } = &context.context;
        let found = config.clusters.iter().find(|it| it.name == *cluster);
        let ClusterEntry {
            server,
            certificate_authority,
            certificate_authority_data,
            insecure_skip_tls_verify,
            proxy_url,
        } = &found.ok_or_else(|| format!("it has no cluster {cluster:?}"))?.cluster;
        let ca =
            pem(certificate_authority, certificate_authority_data, dir, "certificate-authority")?;
        let mut transport = TransportSettings {
            ca: ca.into_iter().collect(),
            skip_verify: insecure_skip_tls_verify.then_some(true),
            proxy: proxy_url.clone().filter(|proxy| !proxy.is_empty()),
            ..TransportSettings::default()
        };
        let nobody = User::default();
        let user = config.users.iter().find(|it| it.name == *user).map_or(&nobody, |it| &it.user);
        let certificate = pem(
            &user.client_certificate,
            &user.client_certificate_data,
            dir,
            "client-certificate",
        )?;
        let key = pem(&user.client_key, &user.client_key_data, dir, "client-key")?;
        transport.client.extend(certificate.map(|certificate| (certificate, key)));
        let mut bearer = user.token.clone().filter(|token| !token.is_empty());
        if let Some(file) = &user.token_file {
            bearer = Some(read(&dir.join(file))?.trim().to_owned());
        }
        if let Some(exec) = &user.exec {
            let status = exec.run(dir).await?;
            bearer = status.token.or(bearer);
            let inline = |text: String| Pem::inline(Path::new(&exec.command), text.into_bytes());
            let key = status.client_key_data.map(inline);
            transport.client.extend(status.client_certificate_data.map(|it| (inline(it), key)));
        }
        let server = Url::parse(server).map_err(|_| format!("{server:?} is no server"))?;
        let basic = user.username.clone().zip(user.password.clone());
        Ok(Self { server, transport, bearer, basic })
    }

    /// The cluster that this process runs in.
    fn around(account: &Path) -> Result<Self, String> {
        let var = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
        let (Some(host), Some(port)) =
            (var("KUBERNETES_SERVICE_HOST"), var("KUBERNETES_SERVICE_PORT"))
        else {
            return Err(
                "there is no kubeconfig, and this is not in a cluster; set kubeconfig_path"
                    .to_owned(),
            );
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let server = Url::parse(&format!("https://{host}:{port}")).map_err(|it| it.to_string())?;
        let transport = TransportSettings {
            ca: vec![Pem::read(&account.join("ca.crt"))],
            ..TransportSettings::default()
        };
        let bearer = Some(read(&account.join("token"))?.trim().to_owned());
        Ok(Self { server, transport, bearer, basic: None })
    }
}

impl Exec {
    async fn run(&self, dir: &Path) -> Result<ExecStatus, String> {
        // A path with a slash is relative to the kubeconfig, others are looked for.
        let program = match self.command.contains('/') {
            true => dir.join(&self.command),
            false => PathBuf::from(&self.command),
        };
        let version = match &*self.api_version {
            "" => "client.authentication.k8s.io/v1",
            version => version,
        };
        let asked = serde_json::json!({
            "apiVersion": version, "kind": "ExecCredential", "spec": { "interactive": false },
        });
        let mut command = Command::new(&program);
        command.args(&self.args).env("KUBERNETES_EXEC_INFO", asked.to_string());
        let variables = self.env.iter().flatten();
        command.envs(variables.map(|Variable { name, value }| (name, value)));
        let what = |why| format!("{}: {why}", program.display());
        let printed = helper::run(command, b"", PROGRAM_PATIENCE).await.map_err(what)?;
        let printed: ExecCredential = serde_json::from_slice(&printed)
            .map_err(|_| what("it prints no ExecCredential".to_owned()))?;
        Ok(printed.status)
    }
}

/// Certificates or a key, in a file or as they are, in base64.
fn pem(
    file: &Option<PathBuf>,
    data: &Option<String>,
    dir: &Path,
    what: &str,
) -> Result<Option<Pem>, String> {
    match (data, file) {
        (Some(data), _) if !data.is_empty() => {
            let content = STANDARD.decode(data.trim());
            let content = content.map_err(|_| format!("{what}-data is no base64"))?;
            Ok(Some(Pem::inline(Path::new(&format!("{what}-data")), content)))
        }
        (_, Some(file)) => Ok(Some(Pem::read(&dir.join(file)))),
        (_, None) => Ok(None),
    }
}

fn read(file: &Path) -> Result<String, String> {
    let content = bounded::read(file, MAX_FILE).map_err(|error| error.to_string())?;
    String::from_utf8(content).map_err(|_| "it is no UTF-8 text".to_owned())
}
