//! A way through to a server that can fail as networks do: refuse connections, cut an insert's body, lose the answer to an
//! insert that was applied, or hold an insert back. It understands of HTTP only where a request begins.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How often a thread looks whether something has changed.
const LOOK: Duration = Duration::from_millis(10);
/// What only an insert of rows has in its address.
const INSERT: &[u8] = b"insert_deduplication_token";
/// The end of a body of unknown length.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What happens to inserts; everything else passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All is well.
    None,
    /// After so many bytes of the body, both ends of the connection are closed.
    CutBody {
        /// Bytes.
        after: usize,
    },
    /// When the answer begins, both ends of the connection are closed, and nothing of the answer gets through.
    LoseAnswer,
    /// So many bytes of the request pass; the rest is taken in and passed on only when the fault is over.
    Hold {
        /// Bytes.
        after: usize,
    },
}

struct State {
    open: bool,
    fault: Fault,
    /// So many more inserts meet the fault.
    times: u32,
    hits: u32,
    /// First lines of answers that were lost.
    lost: Vec<String>,
    /// Inserts that are held and whose client has sent all of them.
    held_whole: u32,
    streams: Vec<TcpStream>,
}

impl State {
    /// Counts a fault that happens now; `false` if enough have happened.
    fn hit(&mut self) -> bool {
        let hits = self.times > 0;
        self.times -= u32::from(hits);
        self.hits += u32::from(hits);
        hits
    }
}

/// A way to one server.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// A way to the server of this URL.
    pub fn to(url: &str) -> Self {
        let server = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            open: true,
            fault: Fault::None,
            times: 0,
            hits: 0,
            lost: Vec::new(),
            held_whole: 0,
            streams: Vec::new(),
        };
        let (state, ended) = (Arc::new(Mutex::new(state)), Arc::new(AtomicBool::new(false)));
        let (shared, end) = (Arc::clone(&state), Arc::clone(&ended));
        thread::spawn(move || listen(listener, address, &server, &shared, &end));
        Self { address, state, ended }
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

    /// The next `times` inserts meet a fault.
    pub fn fail(&self, fault: Fault, times: u32) {
        let mut state = self.state.lock().unwrap();
        (state.fault, state.times) = (fault, times);
    }

    /// What is held passes, and everything from now on.
    pub fn mend(&self) {
        self.fail(Fault::None, 0);
    }

    /// Ends all connections and refuses new ones, or lets them in again.
    pub fn set_open(&self, open: bool) {
        let mut state = self.state.lock().unwrap();
        state.open = open;
        if !open {
            state.streams.drain(..).for_each(|stream| _ = stream.shutdown(Shutdown::Both));
        }
    }

    /// Inserts that met a fault.
    pub fn hits(&self) -> u32 {
        self.state.lock().unwrap().hits
    }

    /// Inserts that are held, and whose client has nothing more to send.
    pub fn held_whole(&self) -> u32 {
        self.state.lock().unwrap().held_whole
    }

    /// First lines of the answers that were lost.
    pub fn lost(&self) -> Vec<String> {
        self.state.lock().unwrap().lost.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.set_open(false);
    }
}

fn listen(listener: TcpListener, address: SocketAddr, server: &str, state: &Arc<Mutex<State>>, ended: &AtomicBool) {
    let mut listener = Some(listener);
    while !ended.load(Ordering::Relaxed) {
        if !state.lock().unwrap().open {
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
                if let Ok(server) = TcpStream::connect(server) {
                    connect(client, server, state);
                }
            }
            _ => thread::sleep(LOOK),
        }
    }
}

fn connect(client: TcpStream, server: TcpStream, state: &Arc<Mutex<State>>) {
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(LOOK)).unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        state.lock().unwrap().streams.push(stream.try_clone().unwrap());
    }
    let lose = Arc::new(AtomicBool::new(false));
    let (to_client, from_server, shared, lost) =
        (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(state), Arc::clone(&lose));
    thread::spawn(move || answers(from_server, to_client, &shared, &lost));
    let shared = Arc::clone(state);
    thread::spawn(move || {
        let mut requests = Requests { server, state: shared, lose, plan: Fault::None, passed: 0, held: Vec::new() };
        // Either end may go at any time: that is the connection's end and no more.
        _ = requests.pass(client);
    });
}

/// One connection's way from client to server.
struct Requests {
    server: TcpStream,
    state: Arc<Mutex<State>>,
    lose: Arc<AtomicBool>,
    /// What happens to the request under way.
    plan: Fault,
    /// Bytes of it that passed: of its body if the body is to be cut, else of all of it.
    passed: usize,
    held: Vec<u8>,
}

impl Requests {
    fn pass(&mut self, mut client: TcpStream) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut gone = false;
        loop {
            if !self.held.is_empty() && self.state.lock().unwrap().fault == Fault::None {
                self.plan = Fault::None;
                self.server.write_all(&std::mem::take(&mut self.held))?;
            }
            if gone && self.held.is_empty() {
                return self.server.shutdown(Shutdown::Write);
            }
            if gone {
                thread::sleep(LOOK);
                continue;
            }
            match client.read(&mut buffer) {
                Ok(0) => gone = true,
                Ok(read) => {
                    let mut piece = &buffer[..read];
                    if piece.starts_with(b"POST ") || piece.starts_with(b"GET ") {
                        // The client writes a head at once, and the system hands it over at once.
                        let end = piece.windows(4).position(|four| four == b"\r\n\r\n").map_or(read, |at| at + 4);
                        self.begin(&piece[..end]);
                        if let Fault::CutBody { .. } = self.plan {
                            self.server.write_all(&piece[..end])?;
                            piece = &piece[end..];
                        }
                    }
                    if !self.forward(piece)? {
                        _ = client.shutdown(Shutdown::Both);
                        return self.server.shutdown(Shutdown::Both);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn begin(&mut self, head: &[u8]) {
        (self.plan, self.passed) = (Fault::None, 0);
        let mut state = self.state.lock().unwrap();
        if state.times > 0 && head.windows(INSERT.len()).any(|part| part == INSERT) {
            self.plan = state.fault;
            self.lose.store(state.fault == Fault::LoseAnswer, Ordering::Relaxed);
            if let Fault::Hold { .. } = state.fault {
                state.hit();
            }
        }
    }

    /// Passes bytes on as the plan says; `false` ends the connection.
    fn forward(&mut self, piece: &[u8]) -> std::io::Result<bool> {
        match self.plan {
            Fault::None | Fault::LoseAnswer => self.server.write_all(piece).map(|()| true),
            Fault::CutBody { after } => {
                let (passing, cut_off) = piece.split_at(piece.len().min(after.saturating_sub(self.passed)));
                self.server.write_all(passing)?;
                self.passed += passing.len();
                // A body that is shorter passes whole, and the fault waits for the next one.
                if self.passed < after {
                    return Ok(true);
                }
                let cut = self.state.lock().unwrap().hit();
                if !cut {
                    self.plan = Fault::None;
                    self.server.write_all(cut_off)?;
                }
                Ok(!cut)
            }
            Fault::Hold { after } => {
                let (passing, held) = piece.split_at(piece.len().min(after - self.passed));
                self.server.write_all(passing)?;
                self.passed += passing.len();
                self.held.extend_from_slice(held);
                if self.held.ends_with(LAST_CHUNK) {
                    self.state.lock().unwrap().held_whole += 1;
                }
                Ok(true)
            }
        }
    }
}

/// One connection's way back.
fn answers(mut server: TcpStream, mut client: TcpStream, state: &Mutex<State>, lose: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read) = server.read(&mut buffer)
        && read > 0
    {
        if lose.load(Ordering::Relaxed) && state.lock().unwrap().hit() {
            let mut state = state.lock().unwrap();
            let first = buffer[..read].split(|&byte| byte == b'\r').next().unwrap_or_default();
            state.lost.push(String::from_utf8_lossy(first).into_owned());
            break;
        }
        if client.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    for stream in [server, client] {
        _ = stream.shutdown(Shutdown::Both);
    }
}
