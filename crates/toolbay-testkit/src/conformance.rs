//! What every runner owes its host, as a suite of tests: [`runner_conformance!`](crate::runner_conformance).

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use toolbay_api::{
    ErrorKind, Limit, Limits, Package, PermissionSet, PluginContext, PluginName, Runner, Scope, TenantId, ToolError,
};
use toolbay_runtime::{KvSpace, KvStore, MemoryKv, RegisterOptions, Session, Toolbay};

use crate::scripted_tools;

/// What one package does when its tool is called. The plugin and its one tool are both called [`name`](Self::name), and
/// the tool takes any object unless it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Keeps `text` of its arguments under the key `reached` and gives its arguments back. It asks for `kv:write`; its
    /// parameters are [`echo_parameters`](Self::echo_parameters).
    Echo,
    /// Fails with the message `no such order`.
    Throw,
    /// Computes for ever.
    Spin,
    /// Takes more than 16 MiB of memory, and holds on to them.
    Allocate,
    /// Gives back a text of more than 64 KiB.
    Flood,
    /// Asks for `kv:read`, which the host does not grant, and reads the key `reached`.
    Ungranted,
    /// Waits for ever without computing; where its code cannot wait, it calls the tool `test.hang`, for which it asks for
    /// `tool:call:test.*`.
    Sleep,
    /// Panics; where its code cannot panic, it calls the tool `test.panic`, which does, as for [`Sleep`](Self::Sleep).
    Panic,
}

/// What one test of the suite tries.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// A call of the case's tool.
    Call(Case),
    /// A call of [`Case::Echo`] with arguments that do not fit.
    BadArguments,
    /// A call of a tool that there is not.
    UnknownTool,
}

impl Case {
    /// The name of the case's plugin and of its tool.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echoes",
            Self::Throw => "throws",
            Self::Spin => "spins",
            Self::Allocate => "allocates",
            Self::Flood => "floods",
            Self::Ungranted => "reaches",
            Self::Sleep => "sleeps",
            Self::Panic => "panics",
        }
    }

    /// What the case's manifest asks for.
    #[must_use]
    pub fn permission(self) -> Option<&'static str> {
        match self {
            Self::Echo => Some("kv:write"),
            Self::Ungranted => Some("kv:read"),
            Self::Sleep | Self::Panic => Some("tool:call:test.*"),
            Self::Throw | Self::Spin | Self::Allocate | Self::Flood => None,
        }
    }

    /// The parameters of [`Case::Echo`]'s tool: an object whose `text` is a text and must be there.
    #[must_use]
    pub fn echo_parameters() -> Value {
        json!({ "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] })
    }
}

/// Writes a suite of tests for a runner: `runner_conformance!(RUNNER, PACKAGE)`, in a module of its own.
///
/// `RUNNER` is an expression that makes the [`Runner`]; it is evaluated for each test anew, inside of a tokio runtime.
/// `PACKAGE` is a function from a [`Case`] to the package that does what the case says; `None` where the runner's code
/// cannot do such a thing, and that test is passed over.
///
/// Checked is that an echo comes back, that arguments that do not fit never reach the plugin, and that each way to
/// misbehave ends with its [`ErrorKind`], within the time limit, and leaves the host able to make the next call. A call
/// has 3 s, 16 MiB where the runner meters memory, and 64 KiB of result.
///
/// ```
/// # use std::sync::Arc;
/// # use toolbay_api::{LoadError, Package, Plugin, PluginContext, Runner, RuntimeKind, async_trait};
/// # struct MyRunner;
/// # #[async_trait]
/// # impl Runner for MyRunner {
/// #     fn kind(&self) -> RuntimeKind { RuntimeKind::Wasm }
/// #     async fn load(&self, _: &Package, _: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> { unimplemented!() }
/// # }
/// mod my_runner_conforms {
///     use toolbay_api::Package;
///     use toolbay_testkit::Case;
/// #   use super::MyRunner;
///
///     fn package(case: Case) -> Option<Package> {
///         # let _ = case; None
///         // ... the package of a plugin that does what the case says
///     }
///
///     toolbay_testkit::runner_conformance!(MyRunner, package);
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! runner_conformance {
    ($runner:expr, $package:expr $(,)?) => {
        $crate::runner_conformance! { @tests $runner, $package;
            a_call_is_answered_with_what_the_code_gives: Call($crate::Case::Echo),
            arguments_that_do_not_fit_never_reach_the_plugin: BadArguments,
            an_unknown_tool_is_not_found: UnknownTool,
            what_the_code_throws_is_the_error: Call($crate::Case::Throw),
            code_that_spins_is_stopped_at_its_deadline: Call($crate::Case::Spin),
            code_that_allocates_is_stopped_at_its_limit: Call($crate::Case::Allocate),
            a_flood_of_output_is_refused: Call($crate::Case::Flood),
            what_is_not_granted_is_denied: Call($crate::Case::Ungranted),
            code_that_sleeps_is_stopped_at_its_deadline: Call($crate::Case::Sleep),
            a_panic_is_caught: Call($crate::Case::Panic),
        }
    };
    (@tests $runner:expr, $package:expr; $($name:ident: $trial:ident $(($case:expr))?,)*) => {
        $(
            #[test]
            fn $name() -> ::std::result::Result<(), ::std::string::String> {
                $crate::check_runner($crate::Trial::$trial $(($case))?, || $runner, $package)
            }
        )*
    };
}

/// What each test of [`runner_conformance!`](crate::runner_conformance) does.
///
/// # Errors
/// What was expected and did not come, in a sentence.
#[doc(hidden)]
pub fn check_runner<R: Runner + 'static>(
    trial: Trial,
    runner: impl FnOnce() -> R,
    package: impl Fn(Case) -> Option<Package>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("there is no tokio runtime: {error}"))?;
    let checked = runtime.block_on(async {
        let bench = Bench::new(runner(), &package).await?;
        bench.check(trial, &package).await
    });
    // Code on a thread that may block can be told to stop, and cannot be made to.
    runtime.shutdown_timeout(Duration::from_secs(1));
    checked
}

/// A host with the runner and the echo in it.
struct Bench {
    bay: Toolbay,
    runner: Arc<dyn Runner>,
    cx: PluginContext,
    session: Session,
    kv: Arc<MemoryKv>,
}

impl Bench {
    async fn new(runner: impl Runner + 'static, package: &impl Fn(Case) -> Option<Package>) -> Result<Self, String> {
        let limits = Limits {
            timeout: Duration::from_secs(3),
            max_operations: u64::MAX,
            max_memory_bytes: 16 << 20,
            // So that it is the memory that ends a call, however it is taken.
            max_string_bytes: 64 << 20,
            max_output_bytes: 64 << 10,
            ..Limits::default()
        };
        let grants = PermissionSet::parse(["kv:write", "tool:call:test.*"]).map_err(|error| error.to_string())?;
        let kv = Arc::new(MemoryKv::default());
        let store: Arc<dyn KvStore> = Arc::<MemoryKv>::clone(&kv);
        let builder = Toolbay::builder().limits(limits.clone()).grants(grants.clone()).kv(store);
        let cx = PluginContext { scope: Scope::Global, limits, grants: Arc::new(grants) };
        let bay = builder.build().map_err(|error| error.to_string())?;
        let helpers = scripted_tools().map_err(|error| error.to_string())?;
        bay.register(Scope::Global, helpers).await.map_err(|error| error.to_string())?;
        let session = bay.session(TenantId::default().as_str()).map_err(|error| error.to_string())?;
        let bench = Self { bay, runner: Arc::new(runner), cx, session, kv };
        if !bench.load(Case::Echo, package).await? {
            return Err("every runner can echo: there must be a package for it".to_owned());
        }
        Ok(bench)
    }

    /// Loads the case's package, and says whether there is one.
    async fn load(&self, case: Case, package: &impl Fn(Case) -> Option<Package>) -> Result<bool, String> {
        let Some(package) = package(case) else { return Ok(false) };
        let broken = |error: String| format!("the package for {case:?} does not load: {error}");
        let plugin = self.runner.load(&package, &self.cx).await.map_err(|error| broken(error.to_string()))?;
        let registered = self.bay.register_with(Scope::Global, plugin, RegisterOptions::default()).await;
        let name = registered.map_err(|error| broken(error.to_string()))?;
        if name.as_str() == case.name() {
            return Ok(true);
        }
        Err(broken(format!("its plugin is called {name}, and not {}", case.name())))
    }

    async fn check(&self, trial: Trial, package: &impl Fn(Case) -> Option<Package>) -> Result<(), String> {
        match trial {
            Trial::Call(Case::Echo) => self.echoes("ü\u{1F600}\n").await?,
            Trial::Call(case) => {
                if !self.load(case, package).await? {
                    return Ok(());
                }
                self.fails(case).await?;
            }
            Trial::BadArguments => {
                let error = self.error("echoes", json!({ "text": 5 })).await?;
                expect(&error, |kind| kind == ErrorKind::InvalidArguments, "InvalidArguments")?;
                if self.reached().await.is_some() {
                    return Err("the plugin was called with arguments that do not fit".to_owned());
                }
            }
            Trial::UnknownTool => {
                let error = self.error("echoes.nothing", json!({})).await?;
                expect(&error, |kind| kind == ErrorKind::NotFound, "NotFound")?;
            }
        }
        let next = self.echoes("the next call").await;
        next.map_err(|problem| format!("after this the next call goes wrong: {problem}"))
    }

    /// The echo comes back, and its host function had its effect.
    async fn echoes(&self, text: &str) -> Result<(), String> {
        let arguments = json!({ "text": text, "more": [1, -0.5, null, true, { "deep": [[]] }] });
        match self.session.call(Case::Echo.name(), arguments.clone()).await.result {
            Ok(output) if output.data == arguments => {}
            Ok(output) => return Err(format!("{arguments} came back as {}", output.data)),
            Err(error) => return Err(format!("the echo failed: {}", with_detail(&error))),
        }
        match self.reached().await {
            Some(Value::String(kept)) if kept == text => Ok(()),
            other => Err(format!("the echo was to keep {text:?} under `reached`, and there is {other:?}")),
        }
    }

    async fn fails(&self, case: Case) -> Result<(), String> {
        let error = self.error(case.name(), json!({})).await?;
        let limit =
            |wanted: Limit| move |kind| matches!(kind, ErrorKind::LimitExceeded { limit, .. } if limit == wanted);
        match case {
            Case::Echo => Ok(()),
            Case::Throw if error.message != "no such order" => {
                Err(format!("the message was to be `no such order`: {}", with_detail(&error)))
            }
            Case::Throw => expect(&error, |kind| kind == ErrorKind::Script, "Script"),
            Case::Spin | Case::Sleep => expect(&error, |kind| kind == ErrorKind::TimedOut, "TimedOut"),
            Case::Allocate => expect(&error, limit(Limit::Memory), "LimitExceeded of memory"),
            Case::Flood => expect(&error, limit(Limit::Output), "LimitExceeded of output"),
            Case::Ungranted => expect(&error, |kind| kind == ErrorKind::PermissionDenied, "PermissionDenied"),
            Case::Panic => expect(&error, |kind| kind == ErrorKind::Panic, "Panic"),
        }
    }

    async fn error(&self, tool: &str, arguments: Value) -> Result<ToolError, String> {
        match self.session.call(tool, arguments).await.result {
            Err(error) => Ok(error),
            Ok(output) => Err(format!("{tool} was to fail, and gave {}", output.data)),
        }
    }

    async fn reached(&self) -> Option<Value> {
        let plugin = PluginName::new(Case::Echo.name()).ok()?;
        let space = KvSpace { tenant: self.session.tenant().clone(), plugin, own: false };
        self.kv.get(&space, "reached", 0).await.ok().flatten()
    }
}

fn expect(error: &ToolError, is_right: impl Fn(ErrorKind) -> bool, wanted: &str) -> Result<(), String> {
    if is_right(error.kind) { Ok(()) } else { Err(format!("{wanted} was expected: {}", with_detail(error))) }
}

fn with_detail(error: &ToolError) -> String {
    error.operator_detail().map_or_else(|| error.to_string(), |detail| format!("{error} ({detail})"))
}
