//! What is measured: the tools with their arguments and answers, and the wait that stands for I/O. All peers share
//! it, so that they differ in nothing but the engine.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

/// How long a waiting tool waits.
pub const WAIT: Duration = Duration::from_millis(1);

/// Bytes that a call may hold, for the peers that have such a limit; Toolbay's default.
pub const MEMORY_LIMIT: usize = 64 << 20;

/// Time that a call may take, for the peers that can be interrupted; Toolbay's default.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// A tool. The number is what the Wasm module knows it by.
#[derive(Clone, Copy)]
pub enum Tool {
    /// Gives its argument back.
    Echo = 0,
    /// Prices an order of 50 lines.
    Order = 1,
    /// The 22nd Fibonacci number, by recursion.
    Fib = 2,
    /// Waits for the host.
    Wait = 3,
}

impl Tool {
    /// What is called again and again on one core.
    pub const COMPUTING: [Self; 3] = [Self::Echo, Self::Order, Self::Fib];

    /// The function's name in scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Order => "order",
            Self::Fib => "fib",
            Self::Wait => "wait",
        }
    }

    /// The heading of its column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Echo => "trivial tool",
            Self::Order => "order of 50 lines",
            Self::Fib => "fib(22)",
            Self::Wait => "1 ms wait",
        }
    }

    /// What it is called with.
    pub fn arguments(self) -> Value {
        match self {
            Self::Echo => json!({ "value": 42 }),
            Self::Order => json!({ "discount_percent": 7, "tax_percent": 19, "items": items() }),
            Self::Fib => json!({ "n": 22 }),
            Self::Wait => json!({ "key": "slow" }),
        }
    }

    /// What must come back, computed here.
    pub fn answer(self) -> Value {
        match self {
            Self::Echo => json!(42),
            Self::Order => priced(),
            Self::Fib => json!(17_711),
            Self::Wait => json!(1),
        }
    }
}

fn items() -> Vec<Value> {
    let categories = ["books", "garden", "kitchen", "music", "toys"];
    (0..50_usize)
        .map(|n| {
            json!({
                "sku": format!("SKU-{n:05}"),
                "category": categories[n * 7 % categories.len()],
                "quantity": 1 + n * 3 % 13,
                "price_cents": 199 + n * 137,
            })
        })
        .collect()
}

fn priced() -> Value {
    let mut subtotal = 0;
    let mut by_category = Map::new();
    for item in items() {
        let whole = |field: &str| item[field].as_i64().unwrap_or_default();
        let mut line = whole("quantity") * whole("price_cents");
        if whole("quantity") >= 10 {
            line -= line * 5 / 100;
        }
        subtotal += line;
        let sum = by_category.entry(item["category"].as_str().unwrap_or_default()).or_insert(json!(0));
        *sum = json!(sum.as_i64().unwrap_or_default() + line);
    }
    let discount = subtotal * 7 / 100;
    let tax = (subtotal - discount) * 19 / 100;
    json!({
        "subtotal_cents": subtotal, "discount_cents": discount, "tax_cents": tax,
        "total_cents": subtotal - discount + tax, "by_category": by_category,
    })
}

/// The key that is not answered before [`release`].
pub const HELD: &str = "held";

static WAITING: AtomicUsize = AtomicUsize::new(0);
static GATE: Semaphore = Semaphore::const_new(0);
static OPEN: Mutex<bool> = Mutex::new(false);
static OPENED: Condvar = Condvar::new();

/// The host function `kv_get`: a look-up that takes [`WAIT`].
pub async fn look_up(key: &str) -> i64 {
    if key == HELD {
        WAITING.fetch_add(1, Ordering::SeqCst);
        // Closing the semaphore lets everybody go.
        drop(GATE.acquire().await);
        WAITING.fetch_sub(1, Ordering::SeqCst);
    } else {
        tokio::time::sleep(WAIT).await;
    }
    1
}

/// The host function `kv_get` for engines whose host functions cannot be awaited: holds its thread.
pub fn look_up_blocking(key: &str) -> i64 {
    if key == HELD {
        WAITING.fetch_add(1, Ordering::SeqCst);
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        drop(OPENED.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
        WAITING.fetch_sub(1, Ordering::SeqCst);
    } else {
        std::thread::sleep(WAIT);
    }
    1
}

/// How many look-ups are held.
pub fn waiting() -> usize {
    WAITING.load(Ordering::SeqCst)
}

/// Lets all held look-ups go.
pub fn release() {
    GATE.close();
    *OPEN.lock().unwrap_or_else(PoisonError::into_inner) = true;
    OPENED.notify_all();
}
