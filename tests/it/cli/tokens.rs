//! Tokens of an authorization server at `toolbay serve`, beside the host's own keys.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{
    Desk,
    serving::{Server, initialize, shown_keys},
};

/// A key pair of these tests and of nobody else.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINYxRrq1HLlFU5bNrOF0De71URNosjr/F8Vnjj2uwov4
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "SurHhdPsb0SFHQkYcLFwsUFpYCB1F-VTWY-HBkNigyA";

/// Publishes the public key at one path, until the test is over.
fn authorization_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head: Vec<_> =
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let known = head.first().is_some_and(|line| line.starts_with("GET /jwks "));
            let key =
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "alg": "EdDSA", "x": PUBLIC });
            let (status, body) = if known { (200, json!({ "keys": [key] })) } else { (404, Value::Null) };
            let body = body.to_string();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn token(change: Value) -> String {
    let mut claims = json!({ "iss": "https://login.example.com", "aud": "https://tools.example.com/mcp", "sub": "ada",
        "tenant": "acme", "exp": 4_102_444_800_u64 });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &claims, &EncodingKey::from_ed_pem(PRIVATE.as_bytes()).unwrap()).unwrap()
}

const HTTP: &str = "[http]\nallow_plain_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";

/// The file with one line more in its section, or another in the place of one.
fn file(issuer: SocketAddr, changed: &str) -> String {
    let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let usual = [
        "issuer = \"https://login.example.com\"".to_owned(),
        "resource = \"https://tools.example.com/mcp\"".to_owned(),
        format!("jwks_uri = \"http://{issuer}/jwks\""),
    ];
    let kept = usual.into_iter().filter(|line| key(line) != key(changed));
    let lines: Vec<_> = kept.chain([changed.to_owned()]).collect();
    format!("{HTTP}[oauth]\n{}\n", lines.join("\n"))
}

/// What comes of showing tokens at a server with this file.
fn shown(config: &str, tokens: &[String]) -> Vec<u16> {
    let desk = Desk::with(&[("toolbay.toml", config)]);
    let server = Server::launch(
        &desk,
        &["--config", "toolbay.toml", "--tools", "kit.rhai", "--tenant", "acme", "--data", "data"],
    );
    tokens.iter().map(|token| server.send("/mcp", Some(token), &initialize()).0).collect()
}

#[test]
fn each_key_of_oauth_says_whose_tokens_let_whom_in() {
    let issuer = authorization_server();
    let tokens = [
        token(json!({})),
        token(json!({ "iss": "https://other.example.com" })),
        token(json!({ "aud": "https://other.example.com/mcp" })),
        token(json!({ "tenant": "nobody", "org": "acme" })),
        token(json!({ "scope": "tools" })),
    ];
    for (changed, expected) in [
        ("", [200, 401, 401, 403, 200]),
        ("issuer = \"https://other.example.com\"", [401, 200, 401, 401, 401]),
        ("resource = \"https://other.example.com/mcp\"", [401, 401, 200, 401, 401]),
        (&format!("jwks_uri = \"http://{issuer}/elsewhere\""), [503, 503, 503, 503, 503]),
        ("tenant_claim = \"org\"", [401, 401, 401, 200, 401]),
        ("required_scope = \"tools\"", [403, 401, 401, 403, 200]),
    ] {
        assert_eq!(shown(&file(issuer, changed), &tokens), expected, "{changed}");
    }
}

#[cfg(unix)]
#[test]
fn tokens_and_keys_are_good_at_one_door_and_a_suspended_tenant_has_neither() {
    let config = file(authorization_server(), "");
    let desk = Desk::with(&[("toolbay.toml", &config)]);
    let server = Server::launch(
        &desk,
        &["--config", "toolbay.toml", "--tools", "kit.rhai", "--tenant", "acme", "--data", "data"],
    );
    let [admin, key] = &shown_keys(&server.said)[..] else { panic!("{}", server.said) };
    let (token, list) = (token(json!({})), json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }));
    let statuses = || [key, &token].map(|shown| server.send("/mcp", Some(shown), &initialize()).0);
    assert_eq!(statuses(), [200, 200]);
    assert_eq!(
        server.send("/api/v1/tools/kit.whoami/call", Some(&token), &json!({})).0,
        401,
        "the API takes keys alone"
    );
    let (status, refused) = server.send("/mcp", None, &list);
    assert_eq!(status, 401);
    assert!(
        refused.contains("resource_metadata=\"https://tools.example.com/.well-known/oauth-protected-resource/mcp\""),
        "{refused}"
    );
    assert_eq!(server.send("/api/v1/tenants/acme/suspend", Some(admin), &Value::Null).0, 200);
    assert_eq!(statuses(), [401, 403]);
}

#[test]
fn a_section_that_cannot_be_meant_is_an_error_that_names_its_key() {
    for (changed, part) in [
        ("resource = \"tools.example.com\"", "oauth.resource"),
        ("jwks_uri = \"file:///keys\"", "oauth.jwks_uri"),
        ("issuer = \"\"", "oauth.issuer"),
        ("tenant_claim = \"\"", "oauth.tenant_claim"),
        ("secret = \"x\"", "unknown field `secret`"),
    ] {
        let config = file(SocketAddr::from(([127, 0, 0, 1], 9)), changed);
        let desk = Desk::with(&[("toolbay.toml", &config)]);
        desk.run(&["serve", "--config", "toolbay.toml", "--data", "data"]).refuses(&[part]);
    }
    let config = file(SocketAddr::from(([127, 0, 0, 1], 9)), "");
    let desk = Desk::with(&[("toolbay.toml", &config)]);
    desk.run(&["serve", "--keyless", "--config", "toolbay.toml"]).refuses(&["--keyless", "[oauth]"]);
}
