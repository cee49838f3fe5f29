//! The host's random numbers, for whichever host a plugin has.

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
