//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::commands::convert::ConvertArgs;
use crate::commands::explore::ExploreArgs;
use crate::commands::optimize::OptimizeArgs;
use crate::commands::verify::VerifyArgs;
use crate::containerd;
use crate::doctor::registry::RegistryName;
use crate::oci::Platform;
use crate::pack::cli::PackArgs;
use crate::reference::{ImageRef, ReferenceError, RegistryRef};
use crate::snapshotter;

/// Version and revision.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("LAZYSTAR_REVISION"));
const IMAGES: &str = "\
IMAGE is one of
  [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]  an image in a registry
  oci:DIR[:TAG]                            an image in an OCI layout
  docker-archive:FILE[:NAME]               an image in an archive of `docker save`
  file:BLOB                                a single layer

Exit status: 0 when it worked, 1 when it failed, 2 when the command line is wrong.";

/// Runs container images before they are downloaded: mounts stargz, eStargz and zstd:chunked
/// images straight from a registry, fetches what is read, and verifies every chunk of it.
#[derive(Debug, Parser)]
#[command(name = "lazystar", version = VERSION, after_help = IMAGES, max_term_width = 100)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line of a program started as `containerd-stargz-grpc`, as one of `lazystar
/// snapshotter`: its flags have one dash or two. Any other is returned as it is.
pub fn translated(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let args: Vec<_> = args.collect();
    let name = args.first().and_then(|program| Path::new(program).file_name());
    if name != Some(OsStr::new("containerd-stargz-grpc")) {
        return args;
    }
    let flags = args.into_iter().skip(1).map(|flag| match flag.to_str() {
        Some(text) if text.starts_with('-') && !text.starts_with("--") && text.len() > 2 => {
            OsString::from(format!("-{text}"))
        }
        _ => flag,
    });
    ["lazystar", "snapshotter"].map(OsString::from).into_iter().chain(flags).collect()
}

/// Reads a level of logging by the names of this program or of Go's.
fn level(text: &str) -> Result<LevelFilter, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        _ => return Err("the levels are error, warn, info, debug, trace and off".to_owned()),
    })
}

fn in_registry(text: &str) -> Result<RegistryRef, String> {
    match text.parse().map_err(|error: ReferenceError| error.to_string())? {
        ImageRef::Registry(image) => Ok(image),
        _ => Err("containerd pulls from registries; push the image to one".to_owned()),
    }
}

/// What holds for every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "General options")]
pub struct Global {
    /// Talk to registries without TLS (registries on this machine always are tried that way)
    #[arg(long, global = true)]
    pub plain_http: bool,
    /// Take this variant of images for several platforms, as linux/arm64/v8 [default: this
    /// machine's]
    #[arg(long, global = true, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Keep fetched content here [default: /var/lib/lazystar/cache for root, else
    /// ~/.cache/lazystar]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Let fetched content take this much of the disk, as 20GB; what was read least recently is
    /// dropped, and fetched again when it is needed [default: no limit]
    #[arg(long, global = true, value_name = "SIZE")]
    pub cache_limit: Option<ByteSize>,
    /// Also open layers whose content nothing vouches for: images without a TOC digest, and
    /// legacy stargz layers
    #[arg(long, global = true)]
    pub allow_unverified: bool,
    /// The configuration file, in the format of containerd-stargz-grpc; what it says of registries
    /// and their mirrors holds for every command, the rest for the snapshotter [default for the
    /// snapshotter, where it need not exist: /etc/containerd-stargz-grpc/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What reads layers, for mount, ls, cat, stat and tree: this program, or the component in a
    /// sandbox that a hostile image cannot leave; that is slower and keeps nothing on the disk (only
    /// where this program was built with the feature wasm-engine)
    #[arg(long, global = true, value_name = "ENGINE", default_value = "native")]
    pub engine: EngineKind,
    /// How much to say on standard error: error, warn, info, debug, trace [default: warn; info for
    /// the snapshotter]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level)]
    pub log_level: Option<LevelFilter>,
}

/// What reads layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// Core, as a part of this program.
    #[default]
    Native,
    /// Core as a component in wasmtime.
    Wasm,
}

/// Why there is no [`EngineKind::Wasm`].
#[cfg(not(feature = "wasm-engine"))]
pub(crate) const NO_WASM_ENGINE: &str = "this lazystar has no WebAssembly engine; build it with `host-wasm/build` and then `cargo build --release --features wasm-engine`";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole job on this machine, with nothing installed: pack a sample image, serve it
    /// from an embedded registry, run a workload on it lazily and after a full pull
    Demo(DemoArgs),
    /// Mount the root file system of an image, fetching only what is read
    ///
    /// A process in the background serves the mount until it is unmounted, by `lazystar umount`,
    /// `umount`, or a signal to that process; what it has to say, such as why a read failed, goes
    /// to mount.log in the cache directory. Root gets overlayfs over the layers, everybody else a
    /// read-only mount of the merged tree, made with fusermount3.
    #[command(after_help = IMAGES)]
    Mount(MountArgs),
    /// Unmount an image
    Umount {
        /// Where it is mounted
        dir: PathBuf,
    },
    /// List a directory of an image
    #[command(after_help = IMAGES)]
    Ls(LsArgs),
    /// Write files of an image to standard output
    #[command(after_help = IMAGES)]
    Cat {
        /// The image
        image: ImageRef,
        /// Paths in it; symbolic links are followed inside the image
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// Show what is known about a file of an image
    #[command(after_help = IMAGES)]
    Stat {
        /// The image
        image: ImageRef,
        /// Paths in it; a symbolic link itself is shown
        #[arg(required = true)]
        paths: Vec<String>,
        /// Print JSON, an object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a directory of an image and all below it
    #[command(after_help = IMAGES)]
    Tree {
        /// The image
        image: ImageRef,
        /// A directory in it
        #[arg(default_value = "/")]
        path: String,
        /// Go down at most this many levels
        #[arg(long, value_name = "N")]
        depth: Option<usize>,
        /// Print JSON, an object a line
        #[arg(long)]
        json: bool,
    },
    /// Show the layers of an image: which can be read lazily, and why not
    #[command(after_help = IMAGES)]
    Inspect {
        /// The image
        image: ImageRef,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look into images in a browser
    ///
    /// Serves a page on this machine, prints its URL, and opens it. The page reads images by itself,
    /// verifying what it shows; this program passes its requests on to registries, with the credentials
    /// that it finds, which the page never sees. Ctrl-C ends it.
    #[command(after_help = IMAGES)]
    Explore(ExploreArgs),
    /// Serve containerd's snapshots API, so that containerd, Docker and BuildKit run images lazily
    ///
    /// Takes the place of containerd-stargz-grpc: started under that name it takes that program's
    /// flags. The log, on standard error, is JSON, an object a line. systemd is told when it is
    /// ready, and may open the socket for it.
    #[command(version = VERSION, display_name = "containerd-stargz-grpc")]
    Snapshotter(SnapshotterArgs),
    /// Say what on this machine keeps images from being lazy, and what to do about it
    ///
    /// With an IMAGE, also which of its layers cannot be lazy and why. Ends with status 1 when there
    /// is a problem.
    #[command(after_help = IMAGES)]
    Doctor(DoctorArgs),
    /// Run BuildKit's daemon with a snapshotter of its own beside it
    ///
    /// Starts `lazystar snapshotter` and `buildkitd`, wired to it, passes signals on, and stops both;
    /// the exit status is that of buildkitd.
    Buildkitd(BuildkitdArgs),
    /// Pull an image lazily through containerd
    ///
    /// As `ctr-remote images rpull`: layers that the snapshotter can serve lazily are not
    /// downloaded. For Docker's images, use --namespace moby.
    Pull(PullArgs),
    /// Bring into containerd's content store what it lacks of a lazily pulled image
    ///
    /// Afterwards the image can be pushed, exported, and run with another snapshotter. An
    /// interrupted fetch goes on where it ended.
    Fetch(FetchArgs),
    /// Show what a running snapshotter has mounted, how much of it is cached, and what is not lazy
    Status {
        /// The root directory of the snapshotter
        #[arg(long, value_name = "DIR", default_value_os_t = snapshotter::default_root())]
        root: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say for each layer of an image why it is lazy or not: what the image allows, and what
    /// became of it in the snapshotter on this machine
    #[command(after_help = IMAGES)]
    Explain {
        /// The image
        image: ImageRef,
        /// The root directory of the snapshotter
        #[arg(long, value_name = "DIR", default_value_os_t = snapshotter::default_root())]
        root: PathBuf,
        /// Print JSON, an object a layer
        #[arg(long)]
        json: bool,
    },
    /// Write down what the containers of an image have read of it, for `lazystar convert --from-record`
    ///
    /// The running snapshotter knows which files of its layers were read, by whatever container, since
    /// their image was pulled or the snapshotter was started, and in which order; reads that the
    /// kernel answers from memory come after those and are not counted.
    #[command(after_help = IMAGES)]
    Record(RecordArgs),
    /// Make an image lazily readable: from a registry, a layout or an archive to another one
    ///
    /// Needs neither root nor a daemon. Layers may be tars, plain or compressed with gzip or zstd. What
    /// was converted before is not converted again, and what DST has is not sent again; the tag of DST
    /// moves when everything is there.
    #[command(after_help = IMAGES)]
    Convert(ConvertArgs),
    /// Make an image lazily readable for a workload: what that reads comes first and is fetched ahead
    ///
    /// Runs CMD in the image, mounted lazily, and records which files it reads in which order. As root
    /// the container is made by runc or crun, where there is one, else, and for everybody else, by
    /// namespaces and chroot; its network is that of the machine.
    #[command(after_help = IMAGES)]
    Optimize(OptimizeArgs),
    /// Check everything that an image says of itself: every chunk, table of contents, DiffID and entry
    ///
    /// Reads the image as a whole. Ends with status 1 when something is wrong, or a layer is not lazy;
    /// with --allow-unverified, ordinary layers are taken for what they are.
    #[command(after_help = IMAGES)]
    Verify(VerifyArgs),
    /// Make a lazily readable layer or image out of a directory or a tar file
    Pack(PackArgs),
    /// Print the digest of the table of contents of a layer
    TocDigest {
        /// The layer's blob
        blob: PathBuf,
    },
}

/// `lazystar snapshotter`.
#[derive(Args, Debug)]
pub struct SnapshotterArgs {
    /// The unix socket to serve on
    #[arg(long, value_name = "SOCKET", default_value_os_t = snapshotter::default_address())]
    pub address: PathBuf,
    /// Keep snapshots and fetched content here
    #[arg(long, value_name = "DIR", default_value_os_t = snapshotter::default_root())]
    pub root: PathBuf,
    /// containerd's socket: it is asked which layer is meant by clients that do not say so, such as
    /// `docker pull` [default: containerd_address of the configuration, or
    /// /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET")]
    pub containerd: Option<PathBuf>,
    /// Pull the layers of such clients instead
    #[arg(long)]
    pub no_lookup: bool,
    /// A registry on another port than usual, for such clients: containerd does not tell ports. Those
    /// of images that are there already are known, and port 5000 of this machine is
    #[arg(long, value_name = "HOST:PORT")]
    pub registry: Vec<String>,
    /// Also serve CRI's image service, passing calls on to this socket, usually containerd's: the
    /// credentials of pulls that pass through are used for the layers of their images
    #[arg(long, value_name = "SOCKET")]
    pub image_service: Option<PathBuf>,
    /// Serve that on a socket of its own
    #[arg(long, value_name = "SOCKET", requires = "image_service")]
    pub image_service_listen: Option<PathBuf>,
}

/// Which containerd, and what of it.
#[derive(Args, Debug)]
pub struct ContainerdArgs {
    /// containerd's socket
    #[arg(long, short, value_name = "SOCKET", default_value = containerd::ADDRESS)]
    pub address: PathBuf,
    /// containerd's namespace: moby for Docker, k8s.io for Kubernetes
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    pub namespace: String,
}

/// `lazystar pull`.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// The image, in a registry
    #[arg(value_parser = in_registry)]
    pub image: RegistryRef,
    /// Which containerd.
    #[command(flatten)]
    pub containerd: ContainerdArgs,
    /// The name of Lazystar, or any other lazy snapshotter, in containerd's configuration
    #[arg(long, value_name = "NAME", default_value = "stargz")]
    pub snapshotter: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `lazystar fetch`.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// The image, as containerd names it
    #[arg(value_parser = in_registry)]
    pub image: RegistryRef,
    /// Which containerd.
    #[command(flatten)]
    pub containerd: ContainerdArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `lazystar record`.
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// The image, in a registry
    #[arg(value_parser = in_registry)]
    pub image: RegistryRef,
    /// Write to this file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The root directory of the snapshotter
    #[arg(long, value_name = "DIR", default_value_os_t = snapshotter::default_root())]
    pub root: PathBuf,
}

/// `lazystar doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// An image to look at, too
    pub image: Option<ImageRef>,
    /// Look at this registry and its mirrors instead, as HOST or, to try them on an image, as
    /// `HOST/REPOSITORY[:TAG]`: how to log in, byte ranges, redirects, HTTP version, latency, rate
    #[arg(long, value_name = "HOST", conflicts_with = "image")]
    pub registry: Option<RegistryName>,
    /// The snapshotter's socket
    #[arg(long, value_name = "SOCKET", default_value_os_t = snapshotter::default_address())]
    pub address: PathBuf,
    /// The snapshotter's root directory
    #[arg(long, value_name = "DIR", default_value_os_t = snapshotter::default_root())]
    pub root: PathBuf,
    /// containerd's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/containerd/config.toml")]
    pub containerd_config: PathBuf,
    /// The configuration of Docker's daemon
    #[arg(long, value_name = "FILE", default_value = "/etc/docker/daemon.json")]
    pub docker_config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `lazystar buildkitd`.
#[derive(Args, Debug)]
pub struct BuildkitdArgs {
    /// The program to run [default: buildkitd on the PATH]
    #[arg(long, value_name = "FILE", default_value = "buildkitd")]
    pub buildkitd: PathBuf,
    /// Where the snapshotter keeps its state [default: lazystar below buildkitd's root directory]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// What buildkitd is given, after `--`
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}

/// `lazystar mount`.
#[derive(Args, Debug)]
pub struct MountArgs {
    /// The image
    pub image: ImageRef,
    /// The directory to mount it on
    pub dir: PathBuf,
    /// Let the root file system be written to, keeping what is written in this directory
    #[arg(long, value_name = "DIR")]
    pub rw: Option<PathBuf>,
    /// Stay in the foreground; Ctrl-C unmounts
    #[arg(long)]
    pub foreground: bool,
    /// Do not fetch ahead what the image's prefetch landmark asks for
    #[arg(long)]
    pub no_prefetch: bool,
    /// When it is unmounted, write to this file what was read, in its order, for
    /// `lazystar convert --from-record`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// `lazystar ls`.
#[derive(Args, Debug)]
pub struct LsArgs {
    /// The image
    pub image: ImageRef,
    /// A path in it
    #[arg(default_value = "/")]
    pub path: String,
    /// Show type, mode, owner, size and time
    #[arg(short, long)]
    pub long: bool,
    /// Print JSON, an object a line
    #[arg(long)]
    pub json: bool,
}

/// `lazystar demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Round trip to the embedded registry, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30)]
    pub latency: u64,
    /// Bandwidth of the embedded registry, in Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 200)]
    pub bandwidth: u64,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> String {
        let translated = translated(line.split(' ').map(OsString::from));
        translated.iter().map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn takes_the_flags_of_the_program_it_stands_in_for() {
        assert_eq!(of("lazystar ls -l x"), "lazystar ls -l x");
        let flags = "-address /s --root=/r -log-level debug";
        let as_ours = "lazystar snapshotter --address /s --root=/r --log-level debug";
        assert_eq!(of(&format!("/usr/bin/containerd-stargz-grpc {flags}")), as_ours);
        assert_eq!(of("containerd-stargz-grpc -version"), "lazystar snapshotter --version");
        assert!(Cli::try_parse_from(as_ours.split(' ')).is_ok());
        let version = Cli::try_parse_from(["lazystar", "snapshotter", "--version"]);
        let version = version.expect_err("it is printed").to_string();
        assert_eq!(version.trim(), format!("containerd-stargz-grpc {VERSION}"));
        assert_eq!(VERSION.split(' ').count(), 2);
    }

    #[test]
    fn takes_the_levels_of_go() {
        let all = "trace debug info warn warning error fatal panic Info";
        for name in all.split(' ') {
            assert!(level(name).is_ok(), "{name}");
        }
        assert_eq!(level("panic"), Ok(LevelFilter::ERROR));
        let line = ["lazystar", "snapshotter", "--log-level", "loud"];
        let refused = Cli::try_parse_from(line).expect_err("no level").to_string();
        assert!(refused.contains("the levels are error, warn"), "{refused}");
    }
}
