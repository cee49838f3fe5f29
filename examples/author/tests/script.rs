//! The script in a host of the test's own: the sandbox and the road are the real ones, network and clock are not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::time::Duration;

use serde_json::{Value, json};
use toolbay::{EnvSecrets, ErrorKind, PermissionSet, Scope, Toolbay};
use toolbay_testkit::{FakeAnswer, FakeHttp, VirtualClock, scripted_tools};

const CUSTOMERS: &str = "https://api.example.com/customers";
