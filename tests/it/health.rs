//! Health: what a plugin's calls tell of it, the breaker, and health checks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::json;
use toolbay::{
    Breaker, CallbackContext, ErrorKind, Plugin, PluginHealth, PluginMetadata, Scope, Session, Tool, ToolContext,
    ToolError, Toolbay, plugin::NativePlugin, tool,
};

use crate::support::{Nothing, tenant};

/// A plugin whose tool does what it is told to, and that says of itself whether it is well.
#[derive(Clone)]
struct Moody {
    inner: Arc<NativePlugin>,
    fails: Arc<Mutex<Option<ErrorKind>>>,
    is_ill: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Moody {
    fn new() -> Self {
        let (fails, calls) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
        let (how, count) = (Arc::clone(&fails), Arc::clone(&calls));
        let work = tool("work", "Works or not", move |_: Nothing, _: ToolContext| {
            let (how, count) = (Arc::clone(&how), Arc::clone(&count));
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                let failure = *how.lock().unwrap();
                failure.map_or(Ok("done"), |kind| Err(ToolError::new(kind, "told to fail")))
            }
        });
        let inner = NativePlugin::new("moody", "1.0.0", "A test's").unwrap().tool(work);
        Self { inner: Arc::new(inner), fails, is_ill: Arc::default(), calls }
    }

    fn fail(&self, kind: Option<ErrorKind>) {
        *self.fails.lock().unwrap() = kind;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Plugin for Moody {
    fn metadata(&self) -> &PluginMetadata {
        self.inner.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.inner.tools()
    }

    async fn on_health_check(&self, _: &CallbackContext) -> Result<(), ToolError> {
        if self.is_ill.load(Ordering::SeqCst) { Err(ToolError::failed("the disk is full")) } else { Ok(()) }
    }
}

const RULE: Breaker = Breaker { failures: 3, open_for: Duration::from_secs(30), failed_checks: 2 };

async fn host(rule: Breaker) -> (Toolbay, Moody) {
    let (bay, moody) = (Toolbay::builder().breaker(rule).build().unwrap(), Moody::new());
    bay.register(Scope::Global, moody.clone()).await.unwrap();
    (bay, moody)
}

async fn work(session: &Session) -> Result<(), ToolError> {
    session.call("moody.work", json!({})).await.result.map(|_| ())
}

async fn fail_times(session: &Session, times: usize) {
    for _ in 0..times {
        assert_eq!(work(session).await.unwrap_err().message, "told to fail");
    }
}

fn health(bay: &Toolbay) -> PluginHealth {
    bay.health(&Scope::Global).into_iter().next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_after_failures_in_a_row_refuses_at_once_and_closes_by_one_good_call() {
    let (bay, moody) = host(RULE).await;
    let acme = bay.session("acme").unwrap();
    moody.fail(Some(ErrorKind::Unavailable));
    fail_times(&acme, 3).await;
    let refused = work(&acme).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.message.as_ref(), refused.retryable),
        (
            ErrorKind::Unavailable,
            "the plugin moody failed 3 times in a row (last: Unavailable: told to fail) and is not called for now; try \
             again in 31 s",
            true
        )
    );
    assert_eq!(refused.details, json!({ "breaker": "open", "retry_after_s": 31 }));
    assert_eq!(moody.calls(), 3, "an open circuit lets nothing through");
    // Half open: one call is let through, and its failure opens it anew.
    tokio::time::advance(Duration::from_secs(30)).await;
    fail_times(&acme, 1).await;
    assert_eq!(work(&acme).await.unwrap_err().details["breaker"], "open");
    assert_eq!(moody.calls(), 4);
    tokio::time::advance(Duration::from_secs(30)).await;
    moody.fail(None);
    work(&acme).await.unwrap();
    moody.fail(Some(ErrorKind::Unavailable));
    fail_times(&acme, 3).await;
}

#[tokio::test(start_paused = true)]
async fn one_tenants_circuit_is_no_other_tenants() {
    let (bay, moody) = host(RULE).await;
    let (acme, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    moody.fail(Some(ErrorKind::TimedOut));
    fail_times(&acme, 3).await;
    moody.fail(None);
    work(&globex).await.unwrap();
    assert_eq!(work(&acme).await.unwrap_err().kind, ErrorKind::Unavailable);
    let open: Vec<_> = health(&bay).open_circuits.iter().map(|circuit| circuit.tenant.to_string()).collect();
    assert_eq!(open, ["acme"]);
}

#[tokio::test]
async fn an_error_that_is_an_answer_opens_nothing() {
    let (bay, moody) = host(RULE).await;
    let acme = bay.session("acme").unwrap();
    for kind in [ErrorKind::Script, ErrorKind::NotFound, ErrorKind::PermissionDenied] {
        moody.fail(Some(kind));
        fail_times(&acme, 5).await;
    }
    // In between it counts as a sign of life.
    for kind in [ErrorKind::Internal, ErrorKind::Script, ErrorKind::Internal, ErrorKind::Internal, ErrorKind::Script] {
        moody.fail(Some(kind));
        fail_times(&acme, 1).await;
    }
    moody.fail(None);
    work(&acme).await.unwrap();
}

#[tokio::test]
async fn each_field_of_the_breakers_rule_counts() {
    for failures in [1, 4, 0] {
        let (bay, moody) = host(Breaker { failures, ..RULE }).await;
        moody.fail(Some(ErrorKind::Internal));
        let acme = bay.session("acme").unwrap();
        fail_times(&acme, if failures == 0 { 50 } else { failures as usize }).await;
        let refused = work(&acme).await.unwrap_err();
        assert_eq!(refused.kind == ErrorKind::Unavailable, failures > 0, "{failures}");
    }
    for failed_checks in [1, 2, 0] {
        let (bay, moody) = host(Breaker { failed_checks, ..RULE }).await;
        moody.is_ill.store(true, Ordering::SeqCst);
        bay.check_health().await;
        assert_eq!(health(&bay).is_down, failed_checks == 1);
        bay.check_health().await;
        assert_eq!(health(&bay).is_down, failed_checks > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn how_long_a_circuit_stays_open_is_the_rules() {
    for seconds in [5, 50] {
        let (bay, moody) = host(Breaker { open_for: Duration::from_secs(seconds), ..RULE }).await;
        let acme = bay.session("acme").unwrap();
        moody.fail(Some(ErrorKind::Internal));
        fail_times(&acme, 3).await;
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(work(&acme).await.unwrap_err().kind == ErrorKind::Internal, seconds == 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_given_up_leaves_the_next_call_to_try() {
    let bay = Toolbay::builder().breaker(Breaker { failures: 1, ..RULE }).build().unwrap();
    let hangs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hangs);
    let work = tool("work", "Fails, hangs, works", move |_: Nothing, _: ToolContext| {
        let at = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match at {
                0 => Err(ToolError::new(ErrorKind::Internal, "told to fail")),
                1 => std::future::pending().await,
                _ => Ok("done"),
            }
        }
    });
    let plugin = NativePlugin::new("p", "1.0.0", "A test's").unwrap().tool(work);
    bay.register(Scope::Global, plugin).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(acme.call("p.work", json!({})).await.result.unwrap_err().kind, ErrorKind::Internal);
    tokio::time::advance(Duration::from_secs(31)).await;
    let mut trial = Box::pin(acme.call("p.work", json!({})));
    assert!(futures_poll(&mut trial).await.is_none());
    // While one tries, others are refused.
    assert_eq!(acme.call("p.work", json!({})).await.result.unwrap_err().kind, ErrorKind::Unavailable);
    drop(trial);
    assert_eq!(acme.call("p.work", json!({})).await.result.unwrap().data, json!("done"));
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        let polled = std::pin::Pin::new(&mut *future).poll(cx);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_says_it_is_not_well_is_kept_from_everybody_until_it_says_it_is() {
    let (bay, moody) = host(RULE).await;
    let _watch = bay.watch_health(Duration::from_secs(10));
    let acme = bay.session("acme").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(health(&bay).is_well());
    moody.is_ill.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    // Once is no reason yet.
    work(&acme).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let refused = work(&acme).await.unwrap_err();
    assert_eq!(refused.message, "the plugin moody is down by its own word; try again later");
    let told = health(&bay);
    assert!(told.is_down && !told.is_well());
    let check = told.last_check.unwrap().1.unwrap_err();
    assert_eq!(check.message, "on_health_check: the disk is full");
    moody.is_ill.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    work(&acme).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn health_checks_end_with_their_watch() {
    let (bay, moody) = host(RULE).await;
    drop(bay.watch_health(Duration::from_secs(1)));
    moody.is_ill.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(health(&bay).last_check.is_none());
}

#[tokio::test]
async fn health_tells_calls_errors_and_durations() {
    let (bay, moody) = host(RULE).await;
    let acme = bay.session("acme").unwrap();
    for kind in [None, None, Some(ErrorKind::Script), Some(ErrorKind::Internal), Some(ErrorKind::Internal)] {
        moody.fail(kind);
        let _ = work(&acme).await;
    }
    let told = health(&bay);
    assert_eq!((told.calls, told.consecutive_failures, told.calls_in_flight, told.generation), (5, 2, 0, 1));
    assert_eq!(told.errors.into_iter().collect::<Vec<_>>(), [("Internal", 2), ("Script", 1)]);
    assert_eq!(told.last_error.unwrap().message, "told to fail");
    assert!(told.latency.p50 <= told.latency.p99 && told.latency.p99 > Duration::ZERO);
    // Another scope's plugins are not told of.
    assert!(bay.health(&tenant("acme")).is_empty());
}

#[tokio::test]
async fn a_script_says_whether_it_is_well() {
    let bay = toolbay::builder().build().unwrap();
    let source = r#"const PLUGIN = #{ name: "p", version: "1.0.0", description: "A test's", author: "Acme",
        tools: #{ p: #{ description: "Nothing" } },
        config_schema: #{ type: "object", properties: #{ url: #{ type: "string" } } } };
        fn p(args) { 1 }
        fn on_health_check(cx) { if config().url == () { throw "no url is configured"; } }"#;
    bay.load_source(Scope::Global, "p.rhai", source).await.unwrap();
    bay.check_health().await;
    let check = health(&bay).last_check.unwrap().1.unwrap_err();
    assert_eq!(check.message, "on_health_check: no url is configured");
}

#[tokio::test(start_paused = true)]
async fn tenants_that_failed_once_and_never_came_back_do_not_keep_others_from_the_breaker() {
    let (bay, moody) = host(RULE).await;
    moody.fail(Some(ErrorKind::Unavailable));
    for number in 0..1_100 {
        fail_times(&bay.session(format!("once-{number}").as_str()).unwrap(), 1).await;
    }
    tokio::time::sleep(Duration::from_secs(31)).await;
    let acme = bay.session("acme").unwrap();
    fail_times(&acme, 3).await;
    assert!(work(&acme).await.unwrap_err().message.contains("is not called for now"));
}

/// A plugin that never says whether it is well.
struct Silent(NativePlugin);

#[async_trait]
impl Plugin for Silent {
    fn metadata(&self) -> &PluginMetadata {
        self.0.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        Vec::new()
    }

    async fn on_health_check(&self, _: &CallbackContext) -> Result<(), ToolError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn tenants_plugins_that_answer_no_health_check_do_not_delay_that_of_one_for_everybody() {
    let (bay, moody) = host(RULE).await;
    for number in 0..40 {
        let silent = Silent(NativePlugin::new(&format!("silent-{number}"), "1.0.0", "A test's").unwrap());
        bay.register(tenant("acme"), silent).await.unwrap();
    }
    let _watch = bay.watch_health(Duration::from_secs(1));
    moody.is_ill.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(health(&bay).is_down);
    moody.is_ill.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!health(&bay).is_down);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_is_stopped_when_its_health_check_is_done() {
    let bay = Toolbay::builder().callback_timeout(Duration::from_secs(5)).build().unwrap();
    bay.register(Scope::Global, Silent(NativePlugin::new("silent", "1.0.0", "A test's").unwrap())).await.unwrap();
    let checking = tokio::spawn({
        let bay = bay.clone();
        async move { bay.check_health().await }
    });
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    bay.unregister(&Scope::Global, &"silent".parse().unwrap()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    checking.await.unwrap();
}

#[tokio::test]
async fn a_tenants_own_plugin_is_asked_whether_it_is_well_too() {
    let bay = Toolbay::builder().build().unwrap();
    let (ours, theirs) = (Moody::new(), Moody::new());
    theirs.is_ill.store(true, Ordering::SeqCst);
    bay.register(Scope::Global, ours).await.unwrap();
    bay.register(tenant("acme"), theirs).await.unwrap();
    bay.check_health().await;
    let checked = |scope: &Scope| bay.health(scope)[0].last_check.as_ref().map(|(_, outcome)| outcome.is_ok());
    assert_eq!((checked(&Scope::Global), checked(&tenant("acme"))), (Some(true), Some(false)));
}
