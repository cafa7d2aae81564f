//! The native host against registries, directories and files.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail its test")]

mod blobs;
mod configs;
mod convert;
mod credentials;
mod demo_registry;
mod explore;
mod faults;
mod hosts;
mod images;
mod kubernetes;
mod layers;
mod mirrors;
mod references;
mod sample;
mod toc_image;

use std::time::Duration;

use lazystar::keychain::Keychain;
use lazystar::registry::{Client, ClientOptions, Hosts, Outage, Reach};

/// A client whose patience suits tests.
fn client(keychain: Keychain) -> Client {
    client_with(keychain, Hosts::default())
}

fn client_with(keychain: Keychain, hosts: Hosts) -> Client {
    Client::new(ClientOptions {
        keychain,
        hosts,
        reach: Reach::default(),
        connect_timeout: Duration::from_secs(2),
        head_timeout: Duration::from_secs(1),
        chunk_timeout: Duration::from_millis(400),
        total_timeout: Duration::from_secs(5),
        attempts: 4,
        backoff: Duration::from_millis(5),
        longest_pause: Duration::from_millis(100),
        resumptions: 8,
        outage: Outage::ERROR,
        spool: None,
    })
}
