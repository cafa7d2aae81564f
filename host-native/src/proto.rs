//! containerd's API and Kubernetes' CRI: the messages and services that Lazystar speaks.
//!
//! Generated from the definitions in `host-native/proto/`, whose README says where they come from.
//! Modules are nested as the packages are, since the code refers from one to another by path.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    reason = "generated code"
)]

pub mod types {
    include!("proto/containerd.types.rs");
}

pub mod services {
    pub mod snapshots {
        pub mod v1 {
            include!("proto/containerd.services.snapshots.v1.rs");
        }
    }
    pub mod content {
        pub mod v1 {
            include!("proto/containerd.services.content.v1.rs");
        }
    }
    pub mod images {
        pub mod v1 {
            include!("proto/containerd.services.images.v1.rs");
        }
    }
    pub mod leases {
        pub mod v1 {
            include!("proto/containerd.services.leases.v1.rs");
        }
    }
    pub mod diff {
        pub mod v1 {
            include!("proto/containerd.services.diff.v1.rs");
        }
    }
}

pub mod runtime {
    pub mod v1 {
        include!("proto/runtime.v1.rs");

        impl std::fmt::Debug for AuthConfig {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("AuthConfig(..)")
            }
        }
    }
}
