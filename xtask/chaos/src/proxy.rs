//! A way through to a server that can fail as networks do: refuse connections, cut an insert's body, lose the answer to an
//! insert that was applied, hold an insert back, or answer for the server. It understands of HTTP only where a request begins.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

/// How often a thread looks whether something has changed.
const LOOK: Duration = Duration::from_millis(10);
/// What only an insert of rows has in its address.
const INSERT: &[u8] = b"insert_deduplication_token";
/// The end of a body of unknown length.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
/// The setting in an insert's address in whose place others are put.
const WAIT: &str = "wait_end_of_query=1";
/// Header of an answer that tells of an exception.
pub const EXCEPTION_CODE: &str = "X-ClickHouse-Exception-Code";
/// What a server says whose query failed after it had begun to answer.
const FALSE_SUCCESS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=UTF-8\r\nConnection: Close\r\n\
    X-ClickHouse-Exception-Code: 241\r\nContent-Length: 88\r\n\r\n\
    Code: 241. DB::Exception: (total) memory limit exceeded. (MEMORY_LIMIT_EXCEEDED) (test)\n";

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
    /// Nothing of the request passes; the answer is that of a success, with the header and the text of an exception.
    FalseSuccess,
    /// The insert has these settings instead of waiting for its end before the status is told; the answer passes, and is
    /// noted.
    With {
        /// As in an address.
        settings: &'static str,
    },
}

struct State {
    open: bool,
    fault: Fault,
    /// So many more inserts meet the fault.
    times: u32,
    hits: u32,
    /// First lines of answers that were lost or noted.
    answers: Vec<String>,
    /// Inserts that are held and whose client has sent all of them.
    held_whole: u32,
    /// They end with their threads: what a client sends to a connection that is gone has to be refused, not taken in.
    streams: Vec<Weak<TcpStream>>,
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
            answers: Vec::new(),
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
            let streams = state.streams.drain(..).filter_map(|stream| stream.upgrade());
            streams.for_each(|stream| _ = stream.shutdown(Shutdown::Both));
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

    /// First lines of the answers that were lost; of those that were noted, with the exception's code if there was one.
    pub fn answers(&self) -> Vec<String> {
        self.state.lock().unwrap().answers.clone()
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
    let (client, server) = (Arc::new(client), Arc::new(server));
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        state.lock().unwrap().streams.push(Arc::downgrade(stream));
    }
    let asked = Arc::new(Mutex::new(Fault::None));
    let (to_client, from_server, shared, plan) =
        (Arc::clone(&client), Arc::clone(&server), Arc::clone(state), Arc::clone(&asked));
    thread::spawn(move || answers(&from_server, &to_client, &shared, &plan));
    let shared = Arc::clone(state);
    thread::spawn(move || {
        let mut requests = Requests {
            server: &server,
            client: &client,
            state: &shared,
            asked: &asked,
            plan: Fault::None,
            passed: 0,
            held: Vec::new(),
        };
        // Either end may go at any time: that is the connection's end and no more.
        _ = requests.pass();
    });
}

/// One connection's way from client to server.
struct Requests<'a> {
    server: &'a TcpStream,
    client: &'a TcpStream,
    state: &'a Mutex<State>,
    /// The plan, for those who see the answer.
    asked: &'a Mutex<Fault>,
    /// What happens to the request under way.
    plan: Fault,
    /// Bytes of it that passed: of its body if the body is to be cut, else of all of it.
    passed: usize,
    /// What was taken in and did not pass.
    held: Vec<u8>,
}

impl Requests<'_> {
    fn pass(&mut self) -> std::io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut gone = false;
        loop {
            let held = !self.held.is_empty() && matches!(self.plan, Fault::Hold { .. });
            if held && self.state.lock().unwrap().fault == Fault::None {
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
            match self.client.read(&mut buffer) {
                Ok(0) => gone = true,
                Ok(read) => {
                    let mut piece = &buffer[..read];
                    if piece.starts_with(b"POST ") || piece.starts_with(b"GET ") {
                        // The client writes a head at once, and the system hands it over at once.
                        let end = piece.windows(4).position(|four| four == b"\r\n\r\n").map_or(read, |at| at + 4);
                        let head = self.begin(&piece[..end]);
                        if let Some(head) = head {
                            self.server.write_all(&head)?;
                            piece = &piece[end..];
                        }
                    }
                    if !self.forward(piece)? {
                        _ = self.client.shutdown(Shutdown::Both);
                        return self.server.shutdown(Shutdown::Both);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the plan for a request; its head, if that passes by itself.
    fn begin(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        (self.plan, self.passed) = (Fault::None, 0);
        self.held.clear();
        let mut state = self.state.lock().unwrap();
        if state.times > 0 && head.windows(INSERT.len()).any(|part| part == INSERT) {
            self.plan = state.fault;
            if let Fault::Hold { .. } | Fault::FalseSuccess | Fault::With { .. } = state.fault {
                state.hit();
            }
        }
        *self.asked.lock().unwrap() = self.plan;
        match self.plan {
            Fault::CutBody { .. } => Some(head.to_vec()),
            Fault::With { settings } => {
                let text = std::str::from_utf8(head).expect("a head is text");
                assert!(text.contains(WAIT), "inserts do not wait for their end: {text}");
                Some(text.replacen(WAIT, settings, 1).into_bytes())
            }
            _ => None,
        }
    }

    /// Passes bytes on as the plan says; `false` ends the connection.
    fn forward(&mut self, piece: &[u8]) -> std::io::Result<bool> {
        match self.plan {
            Fault::None | Fault::LoseAnswer | Fault::With { .. } => self.server.write_all(piece).map(|()| true),
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
            Fault::FalseSuccess => {
                self.held.extend_from_slice(piece);
                let whole = self.held.ends_with(LAST_CHUNK);
                if whole {
                    self.client.write_all(FALSE_SUCCESS)?;
                }
                Ok(!whole)
            }
        }
    }
}

/// One connection's way back.
fn answers(mut server: &TcpStream, mut client: &TcpStream, state: &Mutex<State>, asked: &Mutex<Fault>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read) = server.read(&mut buffer)
        && read > 0
    {
        let plan = *asked.lock().unwrap();
        let lost = plan == Fault::LoseAnswer && state.lock().unwrap().hit();
        if lost || matches!(plan, Fault::With { .. }) {
            let text = String::from_utf8_lossy(&buffer[..read]);
            let told = text.lines().filter(|line| line.starts_with("HTTP/") || line.starts_with(EXCEPTION_CODE));
            state.lock().unwrap().answers.extend(told.map(str::to_owned));
        }
        if lost {
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
