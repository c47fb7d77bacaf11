//! A way through to any server that fails as a whole: refuses, stalls, crawls. It knows nothing of what it carries.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How often a thread looks whether something has changed.
const LOOK: Duration = Duration::from_millis(10);

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Clear,
    /// Connections are ended, and new ones refused: the server's process is gone.
    Refused,
    /// Nothing passes in either direction and nobody is told: the network is parted.
    Stalled,
    /// So many bytes a second pass in each direction of each connection.
    Slow {
        /// Bytes per second.
        bytes: u32,
    },
}

/// A way to one server.
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where new connections lead, host:port.
    server: Mutex<String>,
    weather: Mutex<Weather>,
    streams: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl Shared {
    fn weather(&self) -> Weather {
        *self.weather.lock().unwrap()
    }
}

impl Wire {
    /// A way to `server` (host:port or a URL) from any free port.
    pub fn to(server: &str) -> Self {
        Self::between("127.0.0.1:0", server)
    }

    /// A way from `address` to `server`.
    pub fn between(address: &str, server: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server: Mutex::new(host(server)),
            weather: Mutex::new(Weather::Clear),
            streams: Mutex::new(Vec::new()),
            ended: AtomicBool::new(false),
        });
        let listening = Arc::clone(&shared);
        thread::spawn(move || listen(listener, address, &listening));
        Self { address, shared }
    }

    /// Where it listens, host:port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The URL with this way instead of the server.
    pub fn url(&self, url: &str) -> String {
        let path = url.strip_prefix("http://").unwrap().split_once('/').map_or("", |(_, path)| path);
        format!("http://{}/{path}", self.address).trim_end_matches('/').to_owned()
    }

    /// How the way is from now on.
    pub fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
        if weather == Weather::Refused {
            self.cut();
        }
    }

    /// Leads to another server from now on: connections are ended, and new ones go there.
    pub fn lead_to(&self, server: &str) {
        *self.shared.server.lock().unwrap() = host(server);
        self.cut();
    }

    /// Ends every connection; new ones are as the weather is.
    pub fn cut(&self) {
        self.shared.streams.lock().unwrap().drain(..).for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    }
}

/// host:port of a URL, or of itself.
fn host(server: &str) -> String {
    server.trim_start_matches("http://").split('/').next().unwrap().to_owned()
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.set(Weather::Refused);
    }
}

fn listen(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    while !shared.ended.load(Ordering::Relaxed) {
        if shared.weather() == Weather::Refused {
            // A port on which nobody listens refuses connections.
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).ok();
        }
        let accepted = listener.as_ref().map(|listener| {
            listener.set_nonblocking(true).unwrap();
            listener.accept()
        });
        match accepted {
            Some(Ok((client, _))) => {
                let server = shared.server.lock().unwrap().clone();
                if let Ok(server) = TcpStream::connect(server) {
                    join(client, server, shared);
                }
            }
            _ => thread::sleep(LOOK),
        }
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    client.set_nonblocking(false).unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LOOK)).unwrap();
        shared.streams.lock().unwrap().push(stream.try_clone().unwrap());
    }
    let ways = [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)];
    for (from, to) in ways {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Either end may go at any time: that is the connection's end and no more.
            _ = carry(&from, &to, &shared);
            _ = to.shutdown(Shutdown::Both);
            _ = from.shutdown(Shutdown::Both);
        });
    }
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    while !shared.ended.load(Ordering::Relaxed) {
        let room = match shared.weather() {
            Weather::Stalled => {
                thread::sleep(LOOK);
                continue;
            }
            // A hundredth of a second's bytes at once.
            Weather::Slow { bytes } => (bytes as usize / 100).clamp(1, buffer.len()),
            Weather::Clear | Weather::Refused => buffer.len(),
        };
        match from.read(&mut buffer[..room]) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                // What was read as the network parted does not get through either.
                while shared.weather() == Weather::Stalled && !shared.ended.load(Ordering::Relaxed) {
                    thread::sleep(LOOK);
                }
                to.write_all(&buffer[..read])?;
                if let Weather::Slow { bytes } = shared.weather() {
                    thread::sleep(Duration::from_secs_f64(read as f64 / f64::from(bytes.max(1))));
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
