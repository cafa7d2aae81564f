//! A TCP proxy in front of a registry: counts what passes and fails on command.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How the registry behind a [`Proxy`] looks to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Up,
    /// Every connection is closed at once.
    Down,
    /// Connections stand, and nothing passes.
    Blackhole,
}

/// A registry's address of one test's own.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    network: Mutex<Network>,
    connections: Mutex<Vec<TcpStream>>,
    requests: Mutex<Vec<String>>,
    bytes: AtomicU64,
}

impl Proxy {
    /// Listens on loopback for `upstream`, a `host:port`.
    ///
    /// # Errors
    /// Fails where no port can be bound.
    pub fn start(upstream: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            network: Mutex::new(Network::Up),
            connections: Mutex::default(),
            requests: Mutex::default(),
            bytes: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(&client));
            }
        });
        Ok(Self { address, shared })
    }

    /// The `host:port` to use in place of the registry's.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes the weather, for open connections too.
    pub fn set(&self, network: Network) {
        *lock(&self.shared.network) = network;
        if network == Network::Down {
            for connection in lock(&self.shared.connections).drain(..) {
                // It may have been closed by its peer.
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
    }

    /// The first lines of the requests so far, such as `GET /v2/debian/manifests/plain`; forgets them.
    #[must_use]
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.requests))
    }

    /// Bytes that the registry has sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }
}

/// An HTTP proxy that makes tunnels, all of them to `upstream`, whatever host is named; gives its address and which hosts
/// were.
///
/// # Errors
/// Fails where no port can be bound.
pub fn tunnels(upstream: &str) -> io::Result<(String, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let named = Arc::new(Mutex::new(Vec::new()));
    let (upstream, naming) = (upstream.to_owned(), Arc::clone(&named));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (upstream, naming) = (upstream.clone(), Arc::clone(&naming));
            // A client that does not do its part is left.
            thread::spawn(move || tunnel(client, &upstream, &naming).is_ok());
        }
    });
    Ok((address, named))
}

fn tunnel(mut client: TcpStream, upstream: &str, named: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some(host) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n");
    };
    lock(named).push(host.to_owned());
    let mut server = TcpStream::connect(upstream)?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from_client, &mut to_server));
    io::copy(&mut server, &mut client)?;
    client.shutdown(Shutdown::Both)
}

impl Shared {
    fn serve(self: &Arc<Self>, client: &TcpStream) {
        if *lock(&self.network) == Network::Down {
            return;
        }
        let Ok(server) = TcpStream::connect(&self.upstream) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let duplicate = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some((from_client, to_server)), Some((kept_client, kept_server))) =
            (duplicate(), duplicate())
        else {
            return;
        };
        lock(&self.connections).extend([kept_client, kept_server]);
        let requests = Arc::clone(self);
        thread::spawn(move || {
            let mut line = Vec::new();
            requests.pump(from_client, to_server, |bytes| requests.note_requests(&mut line, bytes));
        });
        let (Ok(from_server), Ok(to_client)) = (server.try_clone(), client.try_clone()) else {
            return;
        };
        self.pump(from_server, to_client, |bytes| {
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        });
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, mut note: impl FnMut(&[u8])) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while *lock(&self.network) == Network::Blackhole {
                thread::sleep(Duration::from_millis(5));
            }
            note(&buffer[..count]);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// Clients of a registry that only read send headers alone, so each line is a request or a header.
    fn note_requests(&self, line: &mut Vec<u8>, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\n' {
                line.push(*byte);
                continue;
            }
            let text = String::from_utf8_lossy(line);
            if let Some((request, "HTTP/1.1\r")) = text.rsplit_once(' ') {
                lock(&self.requests).push(request.to_owned());
            }
            line.clear();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(address: &str) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = vec![0; 2];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn passes_counts_and_fails() {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = upstream.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for mut client in upstream.incoming().flatten() {
                thread::spawn(move || {
                    let mut request = [0; 1024];
                    while let Ok(1..) = client.read(&mut request) {
                        let _ = client.write_all(b"ok");
                    }
                });
            }
        });
        let proxy = Proxy::start(&address).expect("a port");
        assert_eq!(get(&proxy.address()).expect("it is up"), b"ok");
        assert_eq!(proxy.take_requests(), ["GET /v2/"]);
        assert_eq!(proxy.bytes(), 2);

        proxy.set(Network::Down);
        assert!(get(&proxy.address()).is_err());
        proxy.set(Network::Blackhole);
        assert!(get(&proxy.address()).is_err());
        proxy.set(Network::Up);
        assert_eq!(get(&proxy.address()).expect("it is up again"), b"ok");
    }
}
