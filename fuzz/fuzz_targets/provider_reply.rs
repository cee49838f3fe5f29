//! What a server answers, byte for byte, read by the provider adapter over loopback: at once and as a stream, in each protocol.
//! It reads or refuses; it does not panic, hang or tell more than there was.
#![no_main]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{LazyLock, Mutex},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;
use toolbay::{
    Message, Model, ModelRequest,
    provider::{Provider, ProviderConfig, ReplyDelta},
};

const MODELS: [&str; 5] = ["openai:m", "anthropic:m", "openai_resp:m", "gemini:m", "ollama:m"];

/// What the server answers next, and whether as a stream.
static ANSWER: Mutex<(Vec<u8>, bool)> = Mutex::new((Vec::new(), false));

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

static PROVIDERS: LazyLock<Vec<Provider>> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base_url = Some(format!("http://{}/v1", listener.local_addr().expect("an address")));
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(answer(stream))));
    let provider = |model: &&str| {
        let (base_url, api_key, timeout) = (base_url.clone(), Some("k".to_owned()), Duration::from_secs(5));
        Provider::new(ProviderConfig { model: (*model).to_owned(), base_url, api_key, timeout, ..Default::default() })
    };
    MODELS.iter().map(|model| provider(model).expect("a provider")).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let (which, streams) = (usize::from(*choice) % MODELS.len(), choice & 0x80 != 0);
    *ANSWER.lock().expect("no panic here") = (body.to_vec(), streams);
    let provider = &PROVIDERS[which];
    let request = ModelRequest { messages: vec![Message::user("go")], ..ModelRequest::default() };
    let mut told = 0;
    let mut count = |delta: ReplyDelta| told += length(&delta);
    let reply = RUNTIME.block_on(async {
        if streams { provider.respond_streaming(request, &mut count).await } else { provider.respond(request).await }
    });
    // Pieces are parts of the body; escapes only shrink, and a call's id goes with each of its pieces.
    assert!(told <= body.len() * (body.len() + 1), "{told} bytes were told of {}", body.len());
    match reply {
        Ok(reply) => assert!(reply.tool_calls.len() <= body.len() && reply.text.len() <= 4 * body.len() + 4),
        Err(error) => assert!(error.message.len() < 2_000, "an error of {} bytes", error.message.len()),
    }
});

fn length(delta: &ReplyDelta) -> usize {
    match delta {
        ReplyDelta::Text(text) | ReplyDelta::Reasoning(text) => text.len(),
        ReplyDelta::ToolCall { id, name, arguments, .. } => id.len() + name.len() + arguments.len(),
        _ => 0,
    }
}

/// Reads a request to its end and answers it.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk)?;
        request.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if read == 0 {
                return Ok(());
            }
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        if read == 0 || body.len() >= length.unwrap_or(0) {
            break;
        }
    }
    let (body, streams) = ANSWER.lock().expect("no panic here").clone();
    let kind = if streams { "text/event-stream" } else { "application/json" };
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())?;
    // In two pieces, cut anywhere.
    let (first, second) = body.split_at(body.len() / 3);
    stream.write_all(first)?;
    stream.flush()?;
    stream.write_all(second)
}
