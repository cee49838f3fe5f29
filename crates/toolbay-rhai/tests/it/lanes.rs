//! No operation of the interpreter holds the thread that polls a call, however long it takes.

use std::{sync::Mutex, time::Duration};

use serde_json::json;

use crate::fake::{Bench, tool_source};

/// One operation that takes a second without using a processor: Rhai waits 50 ms for each function in an array whose
/// captured variable is in use.
const STUCK: &str = "let x = [1]; let f = || x; let a = []; for i in 0..20 { a.push(f); } \
                     x.call(|| { let s = \"ab\"; s[0..1] = a; 1 })";

/// A call of a script, which writes its name down when it is over.
async fn noting(bench: &Bench, name: &'static str, body: &str, over: &Mutex<Vec<&'static str>>) {
    let plugin = bench.source(&tool_source(body)).await.unwrap();
    let _ = bench.call(&*plugin, "t", json!({})).await;
    over.lock().unwrap().push(name);
}

#[tokio::test(flavor = "current_thread")]
async fn a_script_stuck_in_one_operation_does_not_hold_the_only_thread() {
    let (bench, over) = (Bench::default(), Mutex::default());
    tokio::join!(noting(&bench, "stuck", STUCK, &over), noting(&bench, "quick", "1 + 1", &over));
    assert_eq!(*over.lock().unwrap(), ["quick", "stuck"]);
}

#[tokio::test(flavor = "current_thread")]
async fn on_threads_of_the_callers_only_it_does() {
    let (mut bench, over) = (Bench::default(), Mutex::default());
    bench.runner = bench.runner.without_threads();
    tokio::join!(noting(&bench, "stuck", STUCK, &over), noting(&bench, "quick", "1 + 1", &over));
    assert_eq!(*over.lock().unwrap(), ["stuck", "quick"]);
}

#[tokio::test(flavor = "current_thread")]
async fn scripts_stuck_on_every_thread_do_not_keep_others_waiting() {
    let (bench, over) = (Bench::default(), Mutex::default());
    let stuck = std::thread::available_parallelism().map_or(1, usize::from) * 2 + 1;
    let all_stuck = futures_join(stuck, || noting(&bench, "stuck", STUCK, &over));
    let quick = "let n = 1; [1, 2].map(|x| x + n)";
    tokio::join!(all_stuck, noting(&bench, "quick", quick, &over));
    let over = over.lock().unwrap();
    assert_eq!(over.first(), Some(&"quick"), "{over:?}");
    assert_eq!(over.len(), stuck + 1);
}

/// Waits for so many futures at once.
async fn futures_join<F: Future<Output = ()>>(count: usize, make: impl Fn() -> F) {
    let mut running: Vec<_> = (0..count).map(|_| Some(Box::pin(make()))).collect();
    std::future::poll_fn(move |cx| {
        for slot in &mut running {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(cx).is_ready()) {
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// How long after a script began to write a line, which takes two seconds, others on the same thread go on.
async fn held_by(body: &str) -> Duration {
    let bench = Bench::with_host(|host| host.log_takes = Duration::from_secs(2));
    let plugin = bench.source(&tool_source(body)).await.unwrap();
    let seen = async {
        loop {
            if let Some(began) = bench.host.logged_at.lock().unwrap().first() {
                break began.elapsed();
            }
            tokio::task::yield_now().await;
        }
    };
    let (result, seen) = tokio::join!(bench.call(&*plugin, "t", json!({})), seen);
    assert!(result.is_ok(), "{result:?}");
    seen
}

#[tokio::test(flavor = "current_thread")]
async fn an_operation_after_long_work_does_not_hold_the_only_thread() {
    let held = held_by("for i in 0..200000 { } print(\"x\");").await;
    assert!(held < Duration::from_secs(1), "{held:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn no_operation_of_a_script_that_captures_holds_the_only_thread() {
    let held = held_by("let n = 1; let f = || n; print(\"x\");").await;
    assert!(held < Duration::from_secs(1), "{held:?}");
    let held = held_by("print(\"x\");").await;
    assert!(held >= Duration::from_secs(1), "its first slices run where it is polled: {held:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_call_that_is_given_up_while_it_is_stuck_is_forgotten() {
    let bench = Bench::default();
    let plugin = bench.source(&tool_source(STUCK)).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(20), bench.call(&*plugin, "t", json!({})));
    assert!(given_up.await.is_err());
    assert_eq!(bench.run("let n = 40; [2].map(|x| x + n)").await.unwrap(), json!([42]));
}
