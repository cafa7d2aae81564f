//! The daemon's side of the mount process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use lazystar_core::Digest;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::protocol::{Identity, NumberedLayer, Reply, Request, ShownLayer, read_fd};
use super::{log, mount_point, socket};
use crate::driver::reads::ReadFile;
use crate::lock::lock;
use crate::mount::session;
use crate::snapshotter::lines::{read, write};
use crate::snapshotter::mounts::{detach_below, mounted_below};
use crate::systemd;

/// Set for a process that is to be the mount process.
pub const CHILD: &str = "LAZYSTAR_MOUNT_PROCESS";
/// How long the process may take to listen, and a request may find nobody listening while another
/// process is being started.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long an answer may take; longer than any layer may take to open.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// A log of this size makes place for a new one.
const MAX_LOG: u64 = 8 << 20;

/// How to run this program again, as the mount process.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its file.
    pub program: PathBuf,
    /// Its command line, its name first.
    pub args: Vec<OsString>,
}

/// The mount process of a root directory.
#[derive(Debug)]
pub struct MountProcess {
    root: PathBuf,
    launch: Launch,
    device: Mutex<Option<OwnedFd>>,
}

/// How a mount process came to serve.
#[derive(Debug)]
pub enum Serving {
    /// The mount is the one that was there before; these layers are shown.
    Kept(Vec<ShownLayer>),
    /// The mount is new, and nothing is shown.
    New,
}

impl MountProcess {
    /// The process for `root`, which runs as `launch` says, and the device of its mount if somebody
    /// held it while no process ran.
    #[must_use]
    pub fn new(root: &Path, launch: Launch, device: Option<OwnedFd>) -> Self {
        Self { root: root.to_owned(), launch, device: Mutex::new(device) }
    }

    /// Finds the process that is running, or starts one; one of another program is replaced. `known`
    /// are the layers to show from the start when there is a mount to go on with.
    ///
    /// # Errors
    /// When nothing can be mounted here, or no process started.
    pub async fn begin(&self, known: Vec<NumberedLayer>) -> Result<Serving> {
        if !self.is_mounted() {
            return self.begin_new().await;
        }
        let Ok(Reply::Hello(identity)) = self.ask_once(&Request::Hello).await else {
            let held = self.held().is_some();
            return if held { self.go_on(known).await } else { self.begin_new().await };
        };
        let device = self.take_device().await?;
        *self.held() = Some(device);
        if identity == Identity::own() {
            return Ok(Serving::Kept(self.shown(None).await?));
        }
        tracing::info!(
            version = identity.version,
            "replacing the mount process of another program"
        );
        self.ask_once(&Request::Stop).await?;
        self.ended().await;
        self.go_on(known).await
    }

    /// Lets go of the mount that there is, so that a new one is made next.
    pub fn give_up_mount(&self) {
        *self.held() = None;
    }

    /// Starts another process in the place of one that has ended.
    ///
    /// # Errors
    /// When none can be started.
    pub async fn go_on(&self, known: Vec<NumberedLayer>) -> Result<Serving> {
        match self.resume(known).await {
            Ok(()) => Ok(Serving::Kept(self.shown(None).await?)),
            Err(error) => {
                tracing::error!("cannot go on with the mount, making a new one: {error:#}");
                self.begin_new().await
            }
        }
    }

    /// Waits until the process has ended.
    pub async fn ended(&self) {
        let Ok(mut stream) = UnixStream::connect(socket(&self.root)).await else { return };
        if write(&mut stream, &Request::Watch).await.is_ok() {
            let _ = read::<Reply>(&mut stream).await;
        }
    }

    /// Shows a layer below [`mount_point`], and returns the digest of the manifest that it was found
    /// in.
    ///
    /// # Errors
    /// When the layer cannot be read lazily, with the reason.
    pub async fn open(&self, layer: NumberedLayer) -> Result<Option<Digest>> {
        match self.ask(&Request::Open(layer)).await? {
            Reply::Opened { manifest } => Ok(manifest),
            other => Err(unexpected(other)),
        }
    }

    /// Shows a layer no longer.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn close(&self, number: u32) -> Result<()> {
        self.ask(&Request::Close { number }).await.map(|_| ())
    }

    /// What is shown, of all layers or of one.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn shown(&self, only: Option<u32>) -> Result<Vec<ShownLayer>> {
        match self.ask(&Request::Layers { only }).await? {
            Reply::Layers(shown) => Ok(shown),
            other => Err(unexpected(other)),
        }
    }

    /// What it counts, as Prometheus reads it.
    ///
    /// # Errors
    /// When the process does not answer.
    pub async fn metrics(&self) -> Result<String> {
        match self.ask_once(&Request::Metrics).await? {
            Reply::Metrics(text) => Ok(text),
            other => Err(unexpected(other)),
        }
    }

    /// Unmounts, and ends the process.
    ///
    pub async fn stop(&self) {
        self.detach();
        *self.held() = None;
        // It may have seen already that nothing is mounted.
        if self.ask_once(&Request::Stop).await.is_ok() {
            self.ended().await;
        }
        for path in [socket(&self.root), mount_point(&self.root)] {
            let removed =
                if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::debug!(path = %path.display(), %error, "cannot tidy up");
            }
        }
    }

    /// The directory of a layer that is shown.
    #[must_use]
    pub fn dir(&self, number: u32) -> PathBuf {
        mount_point(&self.root).join(number.to_string())
    }

    async fn begin_new(&self) -> Result<Serving> {
        self.detach();
        let dir = mount_point(&self.root);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.with_context(|| format!("cannot make the directory {}", dir.display()))?;
        let device = session::open_device()?;
        session::mount_device(&device, &dir)?;
        systemd::keep(&device);
        *self.held() = Some(device);
        self.spawn().await?;
        done(self.ask_once(&Request::Start { resume: false, layers: Vec::new() }).await?)?;
        session::set_read_ahead(&dir);
        Ok(Serving::New)
    }

    async fn resume(&self, layers: Vec<NumberedLayer>) -> Result<()> {
        self.spawn().await?;
        done(self.ask_once(&Request::Start { resume: true, layers }).await?)
    }

    async fn spawn(&self) -> Result<()> {
        let device = self.held().as_ref().map(OwnedFd::try_clone);
        let device = device.context("there is no FUSE device to go on with")??;
        let socket = socket(&self.root);
        // Whoever connects now must not reach a process that has gone.
        let _ = fs::remove_file(&socket);
        let mut command = Command::new(&self.launch.program);
        if let Some((name, args)) = self.launch.args.split_first() {
            command.arg0(name).args(args);
        }
        command.env(CHILD, "1").stdin(device).stdout(Stdio::null()).stderr(self.open_log()?);
        // Neither a terminal's Ctrl-C nor this process's end is its end.
        let mut child =
            command.process_group(0).spawn().context("cannot start the mount process")?;
        let started = Instant::now();
        while UnixStream::connect(&socket).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "the mount process ended at once, {status}; see {}",
                    log(&self.root).display()
                );
            }
            if started.elapsed() > START_PATIENCE {
                bail!("the mount process does not listen; see {}", log(&self.root).display());
            }
            sleep(Duration::from_millis(5)).await;
        }
        // Whoever waits for it may be told by the runtime.
        tokio::spawn(async move { child.wait().await });
        Ok(())
    }

    fn open_log(&self) -> Result<File> {
        let path = log(&self.root);
        if fs::metadata(&path).is_ok_and(|it| it.len() > MAX_LOG) {
            let _ = fs::rename(&path, path.with_extension("log.old"));
        }
        let log = File::options().append(true).create(true).open(&path);
        log.with_context(|| format!("cannot write {}", path.display()))
    }

    fn detach(&self) {
        detach_below(&self.root.join("snapshots"));
        detach_below(&mount_point(&self.root));
    }

    fn is_mounted(&self) -> bool {
        mounted_below(&self.root).contains(&mount_point(&self.root))
    }

    async fn take_device(&self) -> Result<OwnedFd> {
        let mut stream = UnixStream::connect(socket(&self.root)).await?;
        write(&mut stream, &Request::Device).await?;
        timeout(ANSWER_PATIENCE, read_fd(&stream)).await?
    }

    /// Asks, again while another process is being started in the place of a dead one.
    async fn ask(&self, request: &Request) -> Result<Reply> {
        let started = Instant::now();
        loop {
            match self.ask_once(request).await {
                Err(error) if started.elapsed() > START_PATIENCE => {
                    return Err(error.context("the mount process does not answer"));
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
                answered => return answered,
            }
        }
    }

    async fn ask_once(&self, request: &Request) -> Result<Reply> {
        ask_at(&self.root, request).await
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<OwnedFd>> {
        lock(&self.device)
    }
}

/// What was read of a layer, for each number that the mount process of `root` shows it under.
///
/// # Errors
/// When no such process runs, or it does not answer.
pub async fn reads(root: &Path, layer: Digest) -> Result<Vec<Vec<ReadFile>>> {
    match ask_at(root, &Request::Reads { layer }).await? {
        Reply::Reads(reads) => Ok(reads),
        other => Err(unexpected(other)),
    }
}

async fn ask_at(root: &Path, request: &Request) -> Result<Reply> {
    let answered = async {
        let mut stream = UnixStream::connect(socket(root)).await?;
        write(&mut stream, request).await?;
        read(&mut stream).await?.context("the mount process ended")
    };
    timeout(ANSWER_PATIENCE, answered).await.context("the mount process is silent")?
}

fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn unexpected(reply: Reply) -> anyhow::Error {
    match reply {
        Reply::Failed(why) => anyhow!(why),
        other => anyhow!("the mount process answers {other:?}"),
    }
}
