//! Rhai engines: bare, then given the packages that were chosen, the limits and what the plugin asks for.
//!
//! An engine is made per plugin and per set of limits, never per call; what is in it is shared among all.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::Instant,
};

use rhai::{
    Dynamic, Engine, EvalAltResult, LexError, Module, ModuleResolver, OptimizationLevel, Position, Shared, Token,
    module_resolvers::DummyModuleResolver,
    packages::{
        ArithmeticPackage, BasicArrayPackage, BasicBlobPackage, BasicFnPackage, BasicIteratorPackage, BasicMapPackage,
        BasicMathPackage, BasicStringPackage, BitFieldPackage, LanguageCorePackage, LogicPackage, MoreStringPackage,
        Package,
    },
};
use toolbay_api::{ErrorKind, Limits, LogLevel, PermissionSet, ToolError};

use crate::{
    call,
    check::{GUARDED, Guarded, is_asked},
    functions,
    outline::Reading,
    script::{Script, module_file},
};

/// Names of Rhai's that scripts cannot use at all: they would run text, or pile up values that no limit counts (`curry`;
/// closures capture by reference and do not need it). `timestamp` need not stand here: Rhai is built without it.
const DISABLED: &[&str] = &["eval", "curry"];

/// Everything that engines are made of, made once.
pub(crate) struct Library {
    packages: Shared<Module>,
    functions: Shared<Module>,
    guarded: Vec<(&'static str, Shared<Module>)>,
    names: OnceLock<HashSet<String>>,
}

impl Library {
    pub(crate) fn new() -> Self {
        Self {
            packages: packages().into(),
            functions: functions::pure().into(),
            guarded: functions::guarded().into_iter().map(|(permission, module)| (permission, module.into())).collect(),
            names: OnceLock::new(),
        }
    }

    /// An engine for the plugin `script` that asks for `asked`.
    pub(crate) fn engine(&self, limits: &Limits, asked: &PermissionSet, constants: Option<&Shared<Module>>) -> Engine {
        let mut engine = self.bare(limits);
        for (permission, module) in &self.guarded {
            if is_asked(asked, permission) {
                engine.register_global_module(Arc::clone(module));
            }
        }
        let missing = not_asked(asked);
        if !missing.is_empty() {
            #[allow(deprecated, reason = "not deprecated but volatile, by Rhai's own word; a test would tell")]
            engine.on_missing_function(move |name, arguments, _, _| refuse(&missing, name, arguments.len()));
        }
        if let Some(constants) = constants {
            engine.register_global_module(Arc::clone(constants));
        }
        engine
    }

    /// An engine without anything that reaches the host: for compiling and for the top level of imported files.
    pub(crate) fn bare(&self, limits: &Limits) -> Engine {
        let mut engine = Engine::new_raw();
        engine.register_global_module(Arc::clone(&self.packages));
        engine.register_global_module(Arc::clone(&self.functions));
        // The optimizer is quadratic in the size of the script, and what it saves is little.
        engine.set_optimization_level(OptimizationLevel::None);
        for symbol in DISABLED {
            engine.disable_symbol(*symbol);
        }
        engine.set_module_resolver(DummyModuleResolver::new());
        limit(&mut engine, limits);
        engine.on_progress(|_| call::progress());
        engine.on_print(|text| log(LogLevel::Info, text));
        engine.on_debug(|text, _, _| log(LogLevel::Debug, text));
        engine
    }

    /// Whether some engine has a function of this name, with whatever parameters.
    pub(crate) fn has_function(&self, name: &str) -> bool {
        let names = || {
            let name_of = |signature: String| signature.split('(').next().unwrap_or_default().trim().to_owned();
            self.signatures().into_iter().map(name_of).collect()
        };
        self.names.get_or_init(names).contains(name)
    }

    /// A bare engine whose parser gives up at `deadline`: looking a variable up takes longer the more there are, so a
    /// source within the limit of its size can keep the parser busy for minutes.
    pub(crate) fn compiler(&self, limits: &Limits, deadline: Instant) -> Engine {
        self.parser(limits, deadline, |token| token)
    }

    /// As [`compiler`](Self::compiler), for what stands before the end of the script's declaration: the rest is not read.
    pub(crate) fn outliner(&self, limits: &Limits, deadline: Instant) -> Engine {
        let reading = Reading::default();
        self.parser(limits, deadline, move |token| reading.next(token))
    }

    fn parser(
        &self,
        limits: &Limits,
        deadline: Instant,
        take: impl Fn(Token) -> Token + Send + Sync + 'static,
    ) -> Engine {
        let mut engine = self.bare(limits);
        #[allow(deprecated, reason = "not deprecated but volatile, by Rhai's own word; a test would tell")]
        engine.on_parse_token(move |token, _, _| {
            if Instant::now() < deadline {
                return take(token);
            }
            // An error inside `${}` would make the parser panic. Where nothing unwinds, it is all there is.
            if cfg!(panic = "unwind") {
                std::panic::resume_unwind(Box::new(call::Stopped));
            }
            Token::LexError(Box::new(LexError::ImproperSymbol(String::new(), String::new())))
        });
        engine
    }

    /// The signatures of everything that any engine has.
    pub(crate) fn signatures(&self) -> Vec<String> {
        let mut engine = self.bare(&Limits::default());
        for (_, module) in &self.guarded {
            engine.register_global_module(Arc::clone(module));
        }
        engine.gen_fn_signatures(true)
    }
}

/// The packages of Rhai that scripts have. New packages of a later Rhai are not taken in by themselves.
fn packages() -> Module {
    let mut module = Module::new();
    LanguageCorePackage::init(&mut module);
    ArithmeticPackage::init(&mut module);
    BasicStringPackage::init(&mut module);
    BasicIteratorPackage::init(&mut module);
    BasicFnPackage::init(&mut module);
    BitFieldPackage::init(&mut module);
    LogicPackage::init(&mut module);
    BasicMathPackage::init(&mut module);
    BasicArrayPackage::init(&mut module);
    BasicBlobPackage::init(&mut module);
    BasicMapPackage::init(&mut module);
    MoreStringPackage::init(&mut module);
    // Rhai would otherwise look each function up in long lists whenever it is called: 25 µs instead of 30 ns.
    module.register_lazy_functions();
    module.build_index();
    module
}

fn limit(engine: &mut Engine, limits: &Limits) {
    engine
        .set_max_call_levels(limits.max_call_depth)
        .set_max_expr_depths(limits.max_expr_depth, limits.max_expr_depth)
        // Rhai's own counter loses what is counted inside callbacks; `Call` counts instead.
        .set_max_operations(0)
        .set_max_variables(limits.max_variables)
        // Zero would mean no limit at all.
        .set_max_string_size(limits.max_string_bytes.max(1))
        .set_max_array_size(limits.max_array_len.max(1))
        .set_max_map_size(limits.max_map_len.max(1))
        .set_max_modules(64);
}

/// Whether an engine made for `made_for` enforces `limits`.
pub(crate) fn fits(made_for: &Limits, limits: &Limits) -> bool {
    made_for.max_call_depth == limits.max_call_depth
        && made_for.max_string_bytes == limits.max_string_bytes
        && made_for.max_array_len == limits.max_array_len
        && made_for.max_map_len == limits.max_map_len
        && made_for.max_variables == limits.max_variables
}

/// The host functions that do not exist for a plugin that asks for `asked`.
pub(crate) fn not_asked(asked: &PermissionSet) -> Vec<&'static Guarded> {
    GUARDED.iter().filter(|guarded| !is_asked(asked, guarded.permission)).collect()
}

fn log(level: LogLevel, text: &str) {
    let _ = call::with(|call| {
        call.log(level, text);
        Ok(())
    });
}

/// A host function that the plugin does not ask for does not exist; who calls it by a name made up at run time is told
/// so in words. Rhai asks here after any error of a native function, so this looks only at those that do not exist.
pub(crate) fn refuse(
    missing: &[&Guarded],
    name: &str,
    parameters: usize,
) -> Result<Option<Dynamic>, Box<EvalAltResult>> {
    let guarded = missing.iter().find(|guarded| guarded.function == name && guarded.parameters.contains(&parameters));
    let Some(guarded) = guarded else { return Ok(None) };
    call::with(|call| {
        Err(call.throw(ToolError::new(
            ErrorKind::PermissionDenied,
            format!("`{name}` needs the permission {:?}, which the plugin does not ask for", guarded.permission),
        )))
    })
}

/// The modules of a plugin's own imported files.
pub(crate) struct OwnModules(pub(crate) Vec<(String, Shared<Module>)>);

impl ModuleResolver for OwnModules {
    fn resolve(
        &self,
        _: &Engine,
        _: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        let file = module_file(path).ok();
        let module = file.and_then(|file| self.0.iter().find(|(name, _)| *name == file));
        match module {
            Some((_, module)) => Ok(Arc::clone(module)),
            None => Err(EvalAltResult::ErrorModuleNotFound(path.chars().take(200).collect(), position).into()),
        }
    }
}

/// Runs the top level of the imported files, each after those that it imports itself, and gives their modules.
///
/// # Errors
/// The script's own. Must run inside a call, since that is where limits are kept.
pub(crate) fn own_modules(
    script: &Script,
    library: &Library,
    limits: &Limits,
) -> Result<OwnModules, Box<EvalAltResult>> {
    let mut modules: Vec<(String, Shared<Module>)> = Vec::new();
    for import in script.imported() {
        let mut engine = library.bare(limits);
        engine.set_module_resolver(OwnModules(modules.clone()));
        let module = Module::eval_ast_as_new(rhai::Scope::new(), &import.ast, &engine);
        let mut module =
            module.map_err(|error| EvalAltResult::ErrorInModule(import.file.clone(), error, Position::NONE))?;
        module.set_id(import.file.as_str());
        module.build_index();
        modules.push((import.file.clone(), module.into()));
    }
    Ok(OwnModules(modules))
}
