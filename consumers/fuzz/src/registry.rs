//! The registry's answers: the real client asks a server that answers what the bytes say, and the decoder is told.

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use millrace_consumers::{
    config,
    registry::{Answer, Registry},
};
use millrace_pipeline::decode::{DecodeLimits, Decoder};
use millrace_schemas::{ORDER_EVENT_V1, golden};
use tokio::runtime::{Builder, Runtime};

const ID: u32 = 1;

/// How the server answers.
#[derive(Clone, Debug, Default)]
struct Reply {
    status: u16,
    body: Vec<u8>,
    /// Announces more than there is.
    cut: bool,
}

struct World {
    runtime: Runtime,
    registry: Registry,
    reply: Arc<Mutex<Reply>>,
    decoder: Decoder,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

/// A schema of whatever kind makes rows or rejections of records, and never a panic; a registry that is unwell is no
/// schema that is absent.
pub fn registry(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    WORLD.with_borrow_mut(|world| world.ask(*choice, body));
}

impl World {
    fn new() -> Self {
        let reply = Arc::new(Mutex::new(Reply::default()));
        let registry = Registry::new(&config::Registry {
            url: format!("http://{}", serve(Arc::clone(&reply))),
            credentials: None,
            tls: Default::default(),
            request_timeout: Duration::from_secs(5),
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let decoder = Decoder::new(ORDER_EVENT_V1, DecodeLimits::default()).unwrap();
        Self { runtime, registry: registry.unwrap(), reply, decoder }
    }

    fn ask(&mut self, choice: u8, body: &[u8]) {
        let status = [200, 404, 500, 200][usize::from(choice & 3)];
        let reply = Reply { status, body: body.to_vec(), cut: choice & 3 == 3 };
        *self.reply.lock().unwrap_or_else(PoisonError::into_inner) = reply;
        if choice & 4 == 0 {
            let answer = self.runtime.block_on(self.registry.by_id(ID));
            if status == 500 && !body.windows(3).any(|code| code == b"404") {
                assert!(answer.is_err(), "{answer:?}");
            }
            match answer {
                Ok(Answer::Schema(schema)) => self.write_with(&schema, body),
                Ok(Answer::Absent) => self.decoder.learn_absent(ID),
                Err(_) => {}
            }
        } else if let Ok(schema) = self.runtime.block_on(self.registry.latest("orders"))
            && let Ok(mut decoder) = Decoder::new(&schema, DecodeLimits::default())
        {
            decoder.learn(ID, &schema);
            decode(&mut decoder, body);
        }
    }

    /// Decodes records that claim to be written with this schema.
    fn write_with(&mut self, schema: &str, body: &[u8]) {
        self.decoder.learn(ID, schema);
        decode(&mut self.decoder, body);
    }
}

fn decode(decoder: &mut Decoder, body: &[u8]) {
    let good = &golden::good()[0].bytes;
    let values = [good.clone(), [&good[..5], body].concat(), [&good[..5], &[0; 64]].concat()];
    let decoded = crate::decode::decode_all(decoder, &values.each_ref().map(Vec::as_slice));
    crate::decode::check(&decoded, values.len());
}

/// A server on loopback for as long as this process lives; its address.
fn serve(reply: Arc<Mutex<Reply>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = Arc::clone(&reply);
            thread::spawn(move || answer(stream, &reply));
        }
    });
    address
}

/// Answers the questions of one connection, which have no bodies, until it is closed.
fn answer(mut stream: TcpStream, reply: &Mutex<Reply>) {
    let mut question = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        question.extend_from_slice(&piece[..len]);
        if !question.ends_with(b"\r\n\r\n") {
            continue;
        }
        question.clear();
        let reply = reply.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let announced = reply.body.len() + usize::from(reply.cut);
        let head = format!("HTTP/1.1 {} Whatever\r\nContent-Length: {announced}\r\n\r\n", reply.status);
        // Whoever leaves before the answer needs none.
        let written = stream.write_all(&[head.as_bytes(), &reply.body].concat());
        if written.is_err() || reply.cut {
            return;
        }
    }
}
