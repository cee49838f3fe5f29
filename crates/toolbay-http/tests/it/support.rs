//! Servers that answer with raw bytes, names that lead where a test wants, and one line to send a request.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use toolbay_api::{ErrorKind, PermissionSet, TenantId, ToolError, async_trait};
use toolbay_http::{HttpCall, HttpClient, HttpClientBuilder, HttpRequest, HttpResponse, Resolver};

/// A server on 127.0.0.1.
pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    /// A request has come.
    pub(crate) asked: Arc<Notify>,
    /// A connection was closed by the other side, as far as writing or reading showed.
    pub(crate) closed: Arc<Notify>,
}

impl Server {
    /// Answers each request with the bytes that `answer` makes of it, on a connection that it would keep open.
    pub(crate) async fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(Ipv4Addr::LOCALHOST, answer, None).await
    }

    /// As [`answering`](Self::answering), on another loopback address.
    pub(crate) async fn answering_on(ip: Ipv4Addr, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::start(ip, answer, None).await
    }

    /// Answers with `head` and then with `again`, over and over, with a pause before each.
    pub(crate) async fn endless(head: &str, again: &str, pause: Duration) -> Self {
        let head = head.as_bytes().to_vec();
        Self::start(Ipv4Addr::LOCALHOST, move |_| head.clone(), Some((again.as_bytes().to_vec(), pause))).await
    }

    /// Takes requests and says nothing.
    pub(crate) async fn silent() -> Self {
        Self::answering(|_| Vec::new()).await
    }

    async fn start(
        ip: Ipv4Addr,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
        again: Option<(Vec<u8>, Duration)>,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
            connections: Arc::default(),
            asked: Arc::default(),
            closed: Arc::default(),
        };
        let (requests, connections) = (Arc::clone(&server.requests), Arc::clone(&server.connections));
        let (asked, closed) = (Arc::clone(&server.asked), Arc::clone(&server.closed));
        let (answer, again) = (Arc::new(answer), Arc::new(again));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, answer, again) = (Arc::clone(&requests), Arc::clone(&answer), Arc::clone(&again));
                let (asked, closed) = (Arc::clone(&asked), Arc::clone(&closed));
                tokio::spawn(async move {
                    while let Some(request) = read_request(&mut stream).await {
                        let bytes = answer(&request);
                        requests.lock().unwrap().push(request);
                        asked.notify_one();
                        if stream.write_all(&bytes).await.is_err() {
                            break;
                        }
                        if let Some((bytes, pause)) = &*again {
                            loop {
                                tokio::time::sleep(*pause).await;
                                if stream.write_all(bytes).await.is_err() {
                                    break;
                                }
                            }
                        }
                    }
                    closed.notify_one();
                });
            }
        });
        server
    }

    /// The requests so far, each as the bytes that came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A URL of this server by a name of [`Names::loopback`].
    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }

    /// Waits until the other side has closed a connection.
    pub(crate) async fn is_left(&self) {
        tokio::time::timeout(Duration::from_secs(20), self.closed.notified()).await.expect("the connection is closed");
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// An answer with status 200.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    with_head("200 OK", "", body)
}

/// An answer; `headers` are lines that end in `\r\n`.
pub(crate) fn with_head(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// An answer that redirects.
pub(crate) fn to(status: &str, location: &str) -> Vec<u8> {
    with_head(status, &format!("location: {location}\r\n"), "")
}

/// A resolver that knows some names. Each look-up takes the next of a name's answers; the last one stays.
#[derive(Clone, Default)]
pub(crate) struct Names {
    answers: Arc<Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Names {
    /// `a.test`, `b.test` and `c.test` at 127.0.0.1.
    pub(crate) fn loopback() -> Self {
        ["a.test", "b.test", "c.test"].into_iter().fold(Self::default(), |names, name| names.with(name, &["127.0.0.1"]))
    }

    /// One more answer for `name`.
    pub(crate) fn with(self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.answers.lock().unwrap().entry(name.to_owned()).or_default().push_back(addresses);
        self
    }

    /// The names looked up so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A client that reaches 127.0.0.1, without TLS too, and knows the names of [`Names::loopback`].
pub(crate) fn builder() -> HttpClientBuilder {
    HttpClient::builder().allow_network("127.0.0.1/32".parse().unwrap()).allow_plain_http().resolver(Names::loopback())
}

pub(crate) fn client() -> HttpClient {
    builder().build().unwrap()
}

/// Sends the JSON form of a request with these permissions, for the tenant `acme`, within 20 seconds.
pub(crate) async fn send(client: &HttpClient, request: Value, grants: &[&str]) -> Result<HttpResponse, ToolError> {
    send_within(client, request, grants, Duration::from_secs(20)).await
}

pub(crate) async fn send_within(
    client: &HttpClient,
    request: Value,
    grants: &[&str],
    time: Duration,
) -> Result<HttpResponse, ToolError> {
    let grants = PermissionSet::parse(grants).unwrap();
    let allow = |action: &str| grants.covers(action);
    let tenant = TenantId::new("acme").unwrap();
    let call =
        HttpCall { tenant: &tenant, allow: &allow, deadline: Instant::now() + time, max_response_bytes: usize::MAX };
    client.send(HttpRequest::from_json(request)?, call).await
}

/// The error of a request that must fail, as one line.
pub(crate) fn error(result: Result<HttpResponse, ToolError>) -> String {
    let error = result.expect_err("the request fails");
    format!("{}{}: {}", error.kind.name(), if error.retryable { " (again)" } else { "" }, error.message)
}

pub(crate) fn kind(result: &Result<HttpResponse, ToolError>) -> Option<ErrorKind> {
    result.as_ref().err().map(|error| error.kind)
}

/// A port on which nobody listens.
pub(crate) async fn closed_port() -> u16 {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap().local_addr().unwrap().port()
}
