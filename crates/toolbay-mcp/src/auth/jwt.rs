//! Tokens of an OAuth 2.1 authorization server: this server is the resource they are for.
//!
//! A token counts where the configured issuer signed it with one of its published keys, for this very resource, for now,
//! and where it names its tenant in the configured claim. The algorithm is the key's own, never the token's choice.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde_json::Value;
use toolbay_api::{ErrorKind, HttpSend, HttpSendContext, TenantId, ToolError, async_trait};

use super::{Authenticate, Bearer, Principal, ProtectedResource, Refused, rights_of_scopes, text_claim};

/// How old fetched keys may be before they are fetched anew.
const FRESH: Duration = Duration::from_secs(600);
/// The shortest time between two fetches, however many tokens name a key that is not known.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a key set, and keys in it.
const MAX_JWKS: usize = 256 * 1024;
const MAX_KEYS: usize = 100;
/// Seconds by which clocks may differ.
const LEEWAY: u64 = 30;

/// Where the issuer's keys come from.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The issuer's key set (RFC 7517) as it is now.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be had.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    async fn keys(&self) -> Result<Value, ToolError>;
}

/// A key set that was given.
#[async_trait]
impl KeySource for Value {
    async fn keys(&self) -> Result<Value, ToolError> {
        Ok(self.clone())
    }
}

/// A key set that is fetched from the issuer's `jwks_uri`.
pub struct FetchedKeys {
    /// Its address.
    pub url: String,
    /// Who sends the request.
    pub http: Arc<dyn HttpSend>,
}

#[async_trait]
impl KeySource for FetchedKeys {
    async fn keys(&self) -> Result<Value, ToolError> {
        let unavailable = |message: &'static str| ToolError::new(ErrorKind::Unavailable, message);
        let context = HttpSendContext {
            tenant: &TenantId::default(),
            // The address is the operator's, not a plugin's: there is no grant to ask.
            require: &|_| Ok(()),
            deadline: Instant::now() + FETCH_TIMEOUT,
            max_response_bytes: MAX_JWKS,
        };
        let answer = self.http.send(serde_json::json!({ "url": self.url }), context).await?;
        if answer.get("status").and_then(Value::as_u64) != Some(200) {
            return Err(unavailable("the issuer's keys are not at their address"));
        }
        let body = answer.get("body").and_then(Value::as_str).unwrap_or_default();
        serde_json::from_str(body).map_err(|error| unavailable("the issuer's keys are no JSON").with_source(error))
    }
}

/// How tokens are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtOptions {
    /// The issuer, just as tokens have it in `iss`.
    pub issuer: String,
    /// This server's address, which tokens must have in `aud`: `https://tools.example.com/mcp`.
    pub resource: String,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// The scope that a token must have to come in; none where it is left out.
    pub required_scope: Option<String>,
}

/// Lets in whoever brings a token of one issuer for one resource.
pub struct JwtIssuer {
    options: JwtOptions,
    source: Arc<dyn KeySource>,
    keys: RwLock<Arc<Vec<Key>>>,
    fetched: Mutex<Fetched>,
}

#[derive(Default)]
struct Fetched {
    at: Option<Instant>,
    tried: Option<Instant>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl JwtIssuer {
    /// Reads tokens of `options.issuer` with the keys of `source`, which are fetched when the first one comes.
    #[must_use]
    pub fn new(options: JwtOptions, source: impl KeySource + 'static) -> Self {
        Self { options, source: Arc::new(source), keys: RwLock::default(), fetched: Mutex::default() }
    }

    /// The key called `id`, if it is known.
    fn known(&self, id: Option<&str>) -> Option<(Arc<Vec<Key>>, usize)> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let at = match id {
            Some(id) => keys.iter().position(|key| key.id.as_deref() == Some(id)),
            // A token without a key's name can only be of an issuer with one key.
            None => (keys.len() == 1).then_some(0),
        }?;
        Some((keys, at))
    }

    /// The key called `id`, fetched where it is not known or those that are known are old.
    async fn key(&self, id: Option<&str>) -> Result<(Arc<Vec<Key>>, usize), Refused> {
        let known = self.known(id);
        let is_due = {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            let is_fresh = fetched.at.is_some_and(|at| at.elapsed() < FRESH);
            let is_due = (known.is_none() || !is_fresh) && fetched.tried.is_none_or(|at| at.elapsed() >= PAUSE);
            if is_due {
                fetched.tried = Some(Instant::now());
            }
            is_due
        };
        if is_due {
            match self.source.keys().await.map(|set| readable_keys(&set)) {
                Ok(keys) => {
                    *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                    self.fetched.lock().unwrap_or_else(PoisonError::into_inner).at = Some(Instant::now());
                }
                Err(error) => {
                    tracing::warn!(issuer = self.options.issuer, cause = ?error, "the issuer's keys cannot be fetched");
                    // Those that are known go on being good: an issuer that is away for a while is not one that revoked.
                    return known.ok_or(Refused::Unavailable);
                }
            }
        }
        let has_any = self.fetched.lock().unwrap_or_else(PoisonError::into_inner).at.is_some();
        self.known(id).ok_or(if has_any { Refused::Invalid } else { Refused::Unavailable })
    }
}

#[async_trait]
impl Authenticate for JwtIssuer {
    async fn authenticate(&self, credential: &Bearer) -> Result<Principal, Refused> {
        let token = credential.expose();
        let header = decode_header(token).map_err(|_| Refused::Invalid)?;
        let (keys, at) = self.key(header.kid.as_deref()).await?;
        let key = keys.get(at).ok_or(Refused::Invalid)?;
        if !key.algorithms.contains(&header.alg) {
            return Err(Refused::Invalid);
        }
        let mut validation = Validation::new(header.alg);
        validation.algorithms.clone_from(&vec![header.alg]);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.options.issuer]);
        validation.set_audience(&[&self.options.resource]);
        let claims = decode::<Value>(token, &key.key, &validation).map_err(|_| Refused::Invalid)?.claims;
        let scopes = text_claim(&claims, "scope").unwrap_or_default();
        let scopes: Vec<_> = scopes.split(' ').filter(|scope| !scope.is_empty()).collect();
        if let Some(required) = &self.options.required_scope
            && !scopes.contains(&required.as_str())
        {
            return Err(Refused::Insufficient { scopes: vec![required.clone()] });
        }
        // A token without a tenant is nobody's; a default would be somebody's.
        let tenant = text_claim(&claims, &self.options.tenant_claim).ok_or(Refused::Invalid)?;
        let tenant = TenantId::new(tenant).map_err(|_| Refused::Invalid)?;
        let user = text_claim(&claims, "sub").filter(|user| user.len() <= 256).map(Arc::from);
        Ok(Principal { tenant, user, rights: rights_of_scopes(scopes.into_iter()) })
    }

    fn protected_resource(&self) -> Option<ProtectedResource> {
        Some(ProtectedResource {
            resource: self.options.resource.clone(),
            authorization_servers: vec![self.options.issuer.clone()],
            scopes: self.options.required_scope.iter().cloned().collect(),
        })
    }
}

/// The keys that sign. A key of a kind that is not known is passed over: issuers publish more than they use.
fn readable_keys(set: &Value) -> Vec<Key> {
    let all = set.get("keys").and_then(Value::as_array).into_iter().flatten().take(MAX_KEYS);
    let jwks: Vec<Jwk> = all.filter_map(|jwk| serde_json::from_value(jwk.clone()).ok()).collect();
    let signs = |jwk: &Jwk| jwk.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
    let readable = |jwk: &Jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let algorithms = algorithms_of(jwk);
        (!algorithms.is_empty()).then(|| Key { id: jwk.common.key_id.clone(), algorithms, key })
    };
    JwkSet { keys: jwks }.keys.iter().filter(|jwk| signs(jwk)).filter_map(readable).collect()
}

/// What a key may be used with: what it says itself, else what its kind allows. A secret that both sides know is none of
/// an issuer's keys, whatever it says.
fn algorithms_of(jwk: &Jwk) -> Vec<Algorithm> {
    let by_kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        _ => Vec::new(),
    };
    let said = jwk.common.key_algorithm.and_then(|said| match said {
        KeyAlgorithm::RS256 => Some(Algorithm::RS256),
        KeyAlgorithm::RS384 => Some(Algorithm::RS384),
        KeyAlgorithm::RS512 => Some(Algorithm::RS512),
        KeyAlgorithm::PS256 => Some(Algorithm::PS256),
        KeyAlgorithm::PS384 => Some(Algorithm::PS384),
        KeyAlgorithm::PS512 => Some(Algorithm::PS512),
        KeyAlgorithm::ES256 => Some(Algorithm::ES256),
        KeyAlgorithm::ES384 => Some(Algorithm::ES384),
        KeyAlgorithm::EdDSA => Some(Algorithm::EdDSA),
        _ => None,
    });
    match said {
        Some(said) => by_kind.into_iter().filter(|one| *one == said).collect(),
        None => by_kind,
    }
}
