//! The meter: concurrency, rate, the limits of tenants and tools.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::Barrier;
use toolbay::{
    ErrorKind, Limits, LimitsRequest, Quarantine, Quota, Scope, TenantId, ToolContext, Toolbay, blocking_tool,
    plugin::NativePlugin, tool,
};

use crate::support::{Nothing, host, outcome};

fn quota(max_concurrent_calls: usize, max_calls_per_minute: u32) -> Quota {
    Quota { max_concurrent_calls, max_calls_per_minute }
}

#[tokio::test]
async fn a_tenant_over_its_concurrency_is_told_to_come_back_and_others_are_not() {
    let barrier = Arc::new(Barrier::new(2));
    let shared = Arc::clone(&barrier);
    let wait = tool("wait", "Waits", move |_: Nothing, _: ToolContext| {
        let shared = Arc::clone(&shared);
        async move {
            shared.wait().await;
            Ok("done")
        }
    });
    let bay = host(Toolbay::builder().tool(wait).quota(quota(1, 1000))).await;
    let (acme, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    let waiting = tokio::spawn({
        let acme = acme.clone();
        async move { outcome(&acme, "wait", json!({})).await }
    });
    while acme.calls_in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = acme.call("test.echo", json!({})).await.result.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::RateLimited);
    assert!(refused.retryable);
    assert_eq!(refused.details, json!({ "limit": "concurrency", "allowed": 1, "used": 1, "retry_after_s": 1 }));
    assert_eq!(outcome(&globex, "test.echo", json!({})).await, json!({}));
    barrier.wait().await;
    assert_eq!(waiting.await.unwrap(), json!("done"));
    assert_eq!(outcome(&acme, "test.echo", json!({})).await, json!({}));
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_told_both_figures_whatever_session_it_uses() {
    let acme = TenantId::new("acme").unwrap();
    let bay = host(Toolbay::builder().quota(quota(9, 1000)).tenant_quota(acme, quota(9, 3))).await;
    for _ in 0..3 {
        assert_eq!(outcome(&bay.session("acme").unwrap(), "test.echo", json!({})).await, json!({}));
    }
    let refused = bay.session("acme").unwrap().call("test.echo", json!({})).await.result.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::RateLimited);
    assert_eq!((&refused.details["allowed"], &refused.details["used"]), (&json!(3), &json!(3)));
    assert_eq!(outcome(&bay.session("globex").unwrap(), "test.echo", json!({})).await, json!({}));
}

#[tokio::test(start_paused = true)]
async fn the_timeout_is_the_least_of_host_tenant_and_tool() {
    let hang = |timeout: Option<Duration>| {
        tool("hang", "Hangs", async |_: Nothing, _: ToolContext| {
            std::future::pending::<()>().await;
            Ok(())
        })
        .with(|tool| tool.timeout = timeout)
    };
    let limits = Limits { timeout: Duration::from_secs(3), ..Limits::default() };
    for (own, tenant_ms, expected) in [
        (None, None, "3s"),
        (Some(Duration::from_secs(1)), None, "1s"),
        (Some(Duration::from_secs(60)), None, "3s"),
        (None, Some(250), "250ms"),
        (None, Some(60_000), "3s"),
    ] {
        let mut builder = Toolbay::builder().limits(limits.clone()).tool(hang(own));
        if let Some(timeout_ms) = tenant_ms {
            let request = LimitsRequest { timeout_ms: Some(timeout_ms), ..LimitsRequest::default() };
            builder = builder.tenant_limits(TenantId::new("acme").unwrap(), request);
        }
        let bay = builder.build().unwrap();
        let reply = outcome(&bay.session("acme").unwrap(), "hang", json!({})).await.to_string();
        assert!(reply.contains(&format!("TimedOut: the tool did not answer within its {expected};")), "{reply}");
    }
}

#[tokio::test]
async fn a_plugin_that_keeps_breaching_is_put_away_for_its_tenant_alone() {
    let rule = Quarantine { breaches: 3, ..Quarantine::default() };
    let bay = host(Toolbay::builder().quarantine(rule)).await;
    let (acme, transcript) = crate::support::acme(&bay);
    for _ in 0..3 {
        assert!(outcome(&acme, "test.panic", json!({})).await.to_string().contains("Panic"));
    }
    // A tool that fails as it may does not count.
    assert!(transcript.to_string().contains("PluginQuarantined"), "{transcript}");
    let refused = acme.call("test.echo", json!({})).await.result.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(refused.message.contains("ran into its limits 3 times within 60s (last: Panic: "), "{refused}");
    assert_eq!(outcome(&bay.session("globex").unwrap(), "test.echo", json!({})).await, json!({}));

    let listed = bay.quarantined();
    assert_eq!((listed.len(), listed[0].tenant.as_str(), listed[0].plugin.as_str()), (1, "acme", "test"));
    assert!(bay.release(&listed[0].tenant, &listed[0].plugin));
    assert!(!bay.release(&listed[0].tenant, &listed[0].plugin));
    assert_eq!(outcome(&acme, "test.echo", json!({})).await, json!({}));
}

#[tokio::test]
async fn ordinary_failures_and_a_rule_of_no_breaches_put_nothing_away() {
    let bay = host(Toolbay::builder().quarantine(Quarantine { breaches: 2, ..Quarantine::default() })).await;
    let session = bay.session("acme").unwrap();
    for _ in 0..5 {
        assert_eq!(outcome(&session, "test.fail", json!({})).await, json!("Script: told to fail"));
    }
    let bay = host(Toolbay::builder().quarantine(Quarantine { breaches: 0, ..Quarantine::default() })).await;
    let session = bay.session("acme").unwrap();
    for _ in 0..5 {
        assert!(outcome(&session, "test.panic", json!({})).await.to_string().contains("Panic"));
    }
}

#[tokio::test(start_paused = true)]
async fn breaches_far_apart_and_a_quarantine_that_is_over_do_not_count() {
    let seconds = Duration::from_secs;
    for rule in [
        Quarantine { breaches: 2, window: seconds(60), duration: seconds(600) },
        Quarantine { breaches: 1, window: seconds(60), duration: seconds(60) },
    ] {
        let bay = host(Toolbay::builder().quarantine(rule)).await;
        let session = bay.session("acme").unwrap();
        for _ in 0..5 {
            assert!(outcome(&session, "test.panic", json!({})).await.to_string().contains("Panic"));
            tokio::time::advance(seconds(61)).await;
        }
        assert!(bay.quarantined().is_empty());
    }
}

#[tokio::test]
async fn a_blocking_tool_runs_off_the_async_workers_and_hears_of_cancellation() {
    let (told, heard) = std::sync::mpsc::channel();
    let spin = blocking_tool("spin", "Spins until it is cancelled", move |_: Nothing, cx: &ToolContext| {
        told.send("begun").unwrap();
        while !cx.is_cancelled() {
            std::thread::yield_now();
        }
        told.send("cancelled").unwrap();
        Ok(())
    });
    let bay = Toolbay::builder().build().unwrap();
    bay.register(Scope::Global, NativePlugin::new("cpu", "1.0.0", "Computes").unwrap().tool(spin)).await.unwrap();
    let session = bay.session("acme").unwrap();
    // One worker thread: were the tool on it, nothing below would ever run.
    let call = tokio::spawn(async move { session.call("cpu.spin", json!({})).await });
    let heard = tokio::task::spawn_blocking(move || {
        assert_eq!(heard.recv().unwrap(), "begun");
        heard
    })
    .await
    .unwrap();
    call.abort();
    let last = tokio::task::spawn_blocking(move || heard.recv().unwrap()).await.unwrap();
    assert_eq!(last, "cancelled");
}
