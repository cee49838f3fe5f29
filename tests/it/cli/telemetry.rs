//! Traces of a command, as a collector on loopback gets them.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{Desk, Ran};

const SCRIPT: &str = r#"
{"tool_calls": [{"name": "kit__whoami", "arguments": {}}], "tokens": {"input": 12, "output": 3}}
{"text": "You are customer-4711."}
"#;

/// Takes whatever is sent and says that it is well, or nothing at all.
struct Collector {
    address: String,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    fn start(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let sent = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&sent);
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().flatten() {
                match answers {
                    true => take(stream, &kept),
                    false => silent.push(stream),
                }
            }
        });
        Self { address, sent }
    }

    fn has(&self, text: &str) -> bool {
        self.sent.lock().unwrap().windows(text.len()).any(|window| window == text.as_bytes())
    }
}

fn take(mut stream: TcpStream, kept: &Mutex<Vec<u8>>) {
    let (mut request, mut chunk) = (Vec::new(), [0; 8192]);
    loop {
        let read = stream.read(&mut chunk).unwrap_or(0);
        request.extend_from_slice(&chunk[..read]);
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        let length = head.map(|end| {
            let text = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
            end + 4 + length.unwrap_or(0)
        });
        if read == 0 || length.is_some_and(|length| request.len() >= length) {
            break;
        }
    }
    // Before the answer, after which the command may end.
    kept.lock().unwrap().extend_from_slice(&request);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

fn agent(config: &str) -> Ran {
    let desk = Desk::with(&[("script.jsonl", SCRIPT), ("toolbay.toml", config)]);
    let args = ["agent", "Who am I?", "--script", "script.jsonl", "--tools", "kit.rhai", "--tenant", "acme"];
    desk.run(&[&args[..], &["--config", "toolbay.toml", "--isolation", "in-process"]].concat())
}

#[test]
fn each_key_of_telemetry_is_heeded() {
    let run = |more: &str| {
        let collector = Collector::start(true);
        agent(&format!("[telemetry]\nendpoint = {:?}\n{more}", collector.address)).ends(0);
        collector
    };
    let usual = run("");
    for text in ["POST /v1/traces", "invoke_agent", "chat scripted", "execute_tool kit.whoami", "toolbay", "acme"] {
        assert!(usual.has(text), "{text}");
    }
    assert!(!usual.has("Who am I?") && !usual.has("customer-4711"), "content is not told unless that is wanted");
    let told = run("content = true\n");
    assert!(told.has("Who am I?") && told.has("customer-4711"));
    assert!(run("service_name = \"front-desk\"\n").has("front-desk"));
    assert!(!run("sampled = 0.0\n").has("invoke_agent"));
    agent("[telemetry]\nendpoint = \"localhost:4318\"\n").refuses(&["telemetry", "localhost:4318"]);
    // A collector that says nothing holds the command's end up for no longer than it may.
    let silent = Collector::start(false);
    let begun = Instant::now();
    agent(&format!("[telemetry]\nendpoint = {:?}\ntimeout_ms = 100\n", silent.address)).ends(0);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
