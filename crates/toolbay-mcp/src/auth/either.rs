//! Two ways to be known at one door: a host's own keys beside the tokens of an authorization server.

use toolbay_api::async_trait;

use super::{Authenticate, Bearer, Principal, ProtectedResource, Refused};

/// Lets in whom the first knows, and else whom the second knows.
///
/// What the first refuses for any other reason than that it does not know it is refused: a key that is known and not
/// enough is nobody else's business. OAuth clients are told of the second's resource, or of the first's.
#[derive(Debug, Clone, Copy)]
pub struct Either<A, B>(pub A, pub B);

#[async_trait]
impl<A: Authenticate, B: Authenticate> Authenticate for Either<A, B> {
    async fn authenticate(&self, credential: &Bearer) -> Result<Principal, Refused> {
        match self.0.authenticate(credential).await {
            Err(Refused::Invalid) => self.1.authenticate(credential).await,
            known => known,
        }
    }

    fn protected_resource(&self) -> Option<ProtectedResource> {
        self.1.protected_resource().or_else(|| self.0.protected_resource())
    }
}
