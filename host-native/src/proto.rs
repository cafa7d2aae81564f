//! containerd's API: the messages and services that Lazystar speaks.
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
}
