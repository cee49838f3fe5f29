//! One request to the model, made again after failures that can pass, in a span of its own.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use toolbay_api::{ModelRequest, ModelResponse};
use tracing::Instrument;

use crate::{agent::drive::Drive, model::ModelError, trace};

/// The most wait before the first repeated request; it doubles with each.
const FIRST_RETRY_WAIT: Duration = Duration::from_millis(500);

impl Drive<'_> {
    /// Asks the model, again after failures that can pass.
    pub(super) async fn respond(&mut self, step: u32, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let (span, run) = (trace::chat(self.agent, &self.run, step, &request), self.run.clone());
        let answer = self.patiently(request).instrument(span.clone()).await;
        trace::answered(&span, &run, &answer);
        answer
    }

    async fn patiently(&mut self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let config = &self.agent.config;
        for attempt in 0..config.model_retries {
            match self.ask_once(request.clone()).await {
                // Where pieces of a reply are out, those of another would run together with them.
                Err(error) if error.retryable && !self.parts.are_out() => {
                    let Some(wait) = self.waits.before(attempt, error.retry_after(), config.max_retry_wait) else {
                        return Err(error);
                    };
                    trace::repeated(attempt + 1);
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
        self.ask_once(request).await
    }
}

/// How long to wait before a request is made again: any time up to a bound that doubles with each ("full jitter"), so that
/// those who failed together do not come back together.
pub(super) struct Waits {
    state: u64,
}

impl Waits {
    pub(super) fn new(seed: Option<u64>) -> Self {
        // Each `RandomState` has keys of its own.
        Self { state: seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()) }
    }

    /// The wait before attempt `attempt + 2`; `None` where the provider asks for more than `most`.
    ///
    /// What a provider asks for is waited in full; nobody comes sooner, and not all at that instant.
    fn before(&mut self, attempt: u32, asked: Option<Duration>, most: Duration) -> Option<Duration> {
        let bound = FIRST_RETRY_WAIT.saturating_mul(2_u32.saturating_pow(attempt)).min(most);
        let any = bound.mul_f64(self.share());
        match asked {
            Some(asked) if asked > most => None,
            Some(asked) => Some((asked + any).min(most)),
            None => Some(any),
        }
    }

    /// A number from 0 up to 1, by SplitMix64: nothing depends on its being hard to guess.
    fn share(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // 53 bits are what an f64 has room for.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}
