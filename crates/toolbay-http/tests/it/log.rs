//! The line that a request leaves for the operator.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Names, Server, builder, ok, send};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn one_line_a_request_without_any_secret() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).without_time().finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::answering(|_| ok("secret")).await;
    let names = Names::loopback().with("inside.test", &["10.0.0.1"]);
    let client = builder().resolver(names).build().unwrap();
    let url = server.url("a.test", "/secret?key=secret");
    let request = json!({"url": url, "method": "POST", "headers": {"x-secret": "secret"}, "body": "secret"});
    send(&client, request, &["*"]).await.unwrap();
    send(&client, json!({"url": "https://inside.test/secret"}), &["*"]).await.unwrap_err();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let text: Vec<_> = text.lines().filter(|line| line.contains("toolbay_http")).collect();
    assert_eq!(text.len(), 2, "{text:#?}");
    let host = format!("tenant=acme host=\"a.test:{}\" method=\"POST\" status=200 bytes=6 ms=", server.port);
    assert!(text[0].contains(&host) && text[0].contains("redirects=0 outcome=\"answered\""), "{}", text[0]);
    assert!(text[1].contains("host=\"inside.test\" method=\"GET\" status=0 bytes=0"), "{}", text[1]);
    assert!(text[1].contains("outcome=\"PermissionDenied\" cause=\"the address 10.0.0.1 is refused"), "{}", text[1]);
    assert!(!text.iter().any(|line| line.contains("secret")), "{text:#?}");
}
