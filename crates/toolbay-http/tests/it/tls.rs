//! TLS: only servers with a certificate for the name that was asked, from an authority that the host trusts.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{builder, error, ok, send, to};

/// Serves `a.test` with a certificate of an authority of its own; gives the port and the authority in PEM.
async fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (u16, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["a.test".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let protocol = String::from_utf8_lossy(stream.get_ref().1.alpn_protocol().unwrap_or_default()).into_owned();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer(&protocol)).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, authority.pem())
}

#[tokio::test]
async fn a_root_that_the_host_adds_is_trusted_for_the_names_in_its_certificates() {
    let (port, root) = serve(|protocol| ok(protocol)).await;
    let client = builder().add_roots_pem(root).build().unwrap();
    let grant = format!("http:GET:a.test:{port}");
    let answer = send(&client, json!({"url": format!("https://a.test:{port}/")}), &[&grant]).await.unwrap();
    assert_eq!(answer.to_json()["body"], "http/1.1");
    // Another name, and the address itself, at the same server.
    for host in ["b.test", "127.0.0.1"] {
        let result = send(&client, json!({"url": format!("https://{host}:{port}/")}), &["*"]).await;
        assert_eq!(error(result), format!("Unavailable (again): no connection to `{host}:{port}`; try again later"));
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let (port, _) = serve(|protocol| ok(protocol)).await;
    let client = builder().build().unwrap();
    let error = send(&client, json!({"url": format!("https://a.test:{port}/")}), &["*"]).await.unwrap_err();
    assert_eq!(error.message, format!("no connection to `a.test:{port}`; try again later"));
    assert!(error.operator_detail().is_some());
}

#[tokio::test]
async fn a_redirect_never_leaves_tls() {
    let (port, root) = serve(|_| to("302 Found", "http://b.test/")).await;
    let client = builder().add_roots_pem(root).build().unwrap();
    let result = send(&client, json!({"url": format!("https://a.test:{port}/")}), &["*"]).await;
    let text = "redirected the request, but the new URL leaves TLS for plain http";
    assert_eq!(error(result), format!("PermissionDenied: the host `a.test:{port}` {text}"));
}

#[test]
fn roots_that_are_no_pem_are_an_error_when_the_client_is_set_up() {
    assert!(builder().add_roots_pem("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----").build().is_err());
}
