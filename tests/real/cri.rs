//! Kubernetes' side of containerd: pods on lazily pulled images, and a private registry whose password comes with the
//! pull.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use lazystar::proto::runtime::v1 as api;
use rustix::process::Signal;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::containerd::Containerd;
use crate::registry::{PASSWORD, Registry, USER};
use crate::rig::test;

type Images = api::image_service_client::ImageServiceClient<Channel>;
type Pods = api::runtime_service_client::RuntimeServiceClient<Channel>;

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.expect("it listens")
}

/// What a kubelet does.
struct Kubelet {
    images: Images,
    pods: Pods,
    logs: PathBuf,
}

impl Kubelet {
    async fn new(images: &Path, pods: &Path, logs: PathBuf) -> Self {
        let (images, pods) = (connect(images).await, connect(pods).await);
        Self { images: Images::new(images), pods: Pods::new(pods), logs }
    }

    async fn pull(&mut self, image: &str, password: Option<&str>) -> Result<String, tonic::Status> {
        let auth = password.map(|password| api::AuthConfig {
            username: USER.to_owned(),
            password: password.to_owned(),
            ..api::AuthConfig::default()
        });
        let request =
            api::PullImageRequest { image: Some(spec(image)), auth, sandbox_config: None };
        Ok(self.images.pull_image(request).await?.into_inner().image_ref)
    }

    fn pod(&self, name: &str) -> api::PodSandboxConfig {
        let host = api::NamespaceMode::Node.into();
        let options = api::NamespaceOption { network: host, ..api::NamespaceOption::default() };
        let context = api::LinuxSandboxSecurityContext { namespace_options: Some(options) };
        api::PodSandboxConfig {
            metadata: Some(api::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{name}-{}", std::process::id()),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: self.logs.display().to_string(),
            linux: Some(api::LinuxPodSandboxConfig {
                security_context: Some(context),
                ..api::LinuxPodSandboxConfig::default()
            }),
        }
    }

    /// Starts a pod with one container, which sleeps.
    async fn start(&mut self, name: &str, image: &str) -> (String, String) {
        let pod = self.pod(name);
        let request = api::RunPodSandboxRequest { config: Some(pod.clone()) };
        let sandbox = self.pods.run_pod_sandbox(request).await.expect("the pod runs").into_inner();
        let id = sandbox.pod_sandbox_id;
        let options = api::NamespaceOption {
            network: api::NamespaceMode::Node.into(),
            pid: api::NamespaceMode::Container.into(),
            ..api::NamespaceOption::default()
        };
        let context = api::LinuxContainerSecurityContext { namespace_options: Some(options) };
        let config = api::ContainerConfig {
            metadata: Some(api::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(spec(image)),
            command: vec!["sleep".to_owned(), "600".to_owned()],
            log_path: format!("{name}.log"),
            linux: Some(api::LinuxContainerConfig { security_context: Some(context) }),
            ..api::ContainerConfig::default()
        };
        let request = api::CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(config),
            sandbox_config: Some(pod),
        };
        let container = self.pods.create_container(request).await.expect("it is made").into_inner();
        let container = container.container_id;
        let request = api::StartContainerRequest { container_id: container.clone() };
        self.pods.start_container(request).await.expect("it starts");
        (id, container)
    }

    async fn run(&mut self, container: &str, command: &str) -> (i32, String) {
        let cmd = ["sh", "-c", command].map(str::to_owned).into();
        let request = api::ExecSyncRequest { container_id: container.to_owned(), cmd, timeout: 60 };
        let answer = self.pods.exec_sync(request).await.expect("it runs").into_inner();
        let printed = [answer.stdout, answer.stderr].concat();
        (answer.exit_code, String::from_utf8_lossy(&printed).trim().to_owned())
    }

    async fn stop(&mut self, pod: &str) {
        let pod_sandbox_id = pod.to_owned();
        let request = api::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.pods.stop_pod_sandbox(request).await.expect("it stops");
        let request = api::RemovePodSandboxRequest { pod_sandbox_id };
        self.pods.remove_pod_sandbox(request).await.expect("it is removed");
    }

    async fn remove(&mut self, image: &str) {
        let request = api::RemoveImageRequest { image: Some(spec(image)) };
        self.images.remove_image(request).await.expect("it is removed");
    }
}

fn spec(image: &str) -> api::ImageSpec {
    api::ImageSpec { image: image.to_owned(), ..api::ImageSpec::default() }
}

#[test]
fn pods_run_on_lazy_images_of_a_private_registry() {
    test("pods_run_on_lazy_images_of_a_private_registry", |rig| {
        let image = rig.image(&["debian:ctr-esgz", "debian:esgz"])?;
        let pause = rig.special("pause:esgz")?;
        let work = rig.work();
        let private = Registry::start(work.path(), Some(&rig.file("registry")?))?;
        let top = format!(
            r#"[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}/{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "stargz"
    disable_snapshot_annotations = false
"#,
            rig.registry
        );
        let mut it = Containerd::start_with(rig, &top, &["--image-service", "@SOCKET"])?;
        let (sock, lazy) = (it.work.path().join("sock"), it.work.path().join("lazy.sock"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let image = format!("{}/{image}", private.address);
        let credentials = it.work.path().join("lazy/cri-credentials.json");
        let kept = || std::fs::read_to_string(&credentials).unwrap_or_default();

        runtime.block_on(async {
            let mut kubelet = Kubelet::new(&lazy, &sock, it.work.path().join("logs")).await;
            for wrong in [None, Some("wrong")] {
                let refused = kubelet.pull(&image, wrong).await.expect_err("it is private");
                assert!(refused.message().contains("failed to pull"), "{refused:?}");
            }
            kubelet.pull(&image, Some(PASSWORD)).await.expect("the password is right");
            let (lazily, ordinary) = it.prepared();
            assert!(lazily > 0 && ordinary == 0, "{lazily} layers lazily, {ordinary} not");
            let (pod, container) = kubelet.start("lazy", &image).await;
            let (code, version) = kubelet.run(&container, "dpkg --version").await;
            assert_eq!(code, 0, "{version}");
            assert!(version.contains("dpkg"), "{version}");
            kubelet.stop(&pod).await;
        });
        let log = std::fs::read_to_string(it.work.path().join("lazystar.log")).expect("a log");
        assert!(!log.contains(PASSWORD) && kept().contains(PASSWORD));

        // What was not read yet is had after a restart, too: nobody else knows the password.
        it.kill_lazystar(Signal::KILL);
        it.kill_mount_process();
        it.start_lazystar();
        it.wait_until("containerd connects again", || {
            let arguments = ["--namespace", "k8s.io", "snapshots", "--snapshotter=stargz", "ls"];
            it.ctr(&arguments).output().is_ok_and(|output| output.status.success())
        });
        runtime.block_on(async {
            let mut kubelet = Kubelet::new(&lazy, &sock, it.work.path().join("logs")).await;
            let (pod, container) = kubelet.start("again", &image).await;
            let (code, printed) = kubelet.run(&container, "cat /usr/bin/* | sha256sum").await;
            assert_eq!((code, printed.len()), (0, 67), "{printed}");
            kubelet.stop(&pod).await;
            kubelet.remove(&image).await;
        });
        assert!(!kept().contains(PASSWORD), "a removed image leaves no password");
        Ok(())
    });
}
