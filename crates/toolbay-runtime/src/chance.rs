//! The host's random numbers, for whichever host a plugin has, and whether plugins have them at all.

use toolbay_api::{ErrorKind, ToolError};

/// `Ok` where the host lends clock and chance at all, or `action` is neither.
///
/// # Errors
/// `PermissionDenied`.
pub(crate) fn check(action: &str, deterministic: bool) -> Result<(), ToolError> {
    if deterministic && matches!(action, "clock" | "random") {
        let message = format!("`{action}` is not given to any plugin here: the host is to give the same results again");
        return Err(ToolError::new(ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// A random version 4 UUID.
pub(crate) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// 64 random bits.
pub(crate) fn random() -> u64 {
    // A version 4 UUID has six fixed bits, four in its high half and two in its low one. Half a turn lays the two on
    // random bits of the other, and the four too.
    let (high, low) = (uuid::Uuid::new_v4().as_u64_pair().0, uuid::Uuid::new_v4().as_u64_pair().1);
    high ^ low.rotate_left(32)
}
