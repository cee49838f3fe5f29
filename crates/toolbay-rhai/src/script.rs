//! A plugin's code, compiled: its entry file, the files that it imports, its constants and what it declares.
//!
//! Nothing here belongs to a tenant, a grant or a call, so plugins with the same text share one [`Script`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use rhai::{AST, ASTFlags, ASTNode, Dynamic, Engine, Expr, Module, ParseError, Position, Shared, Stmt};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Mutex;
use toolbay_api::{ErrorKind, Limits, LoadError};

use crate::{convert, literal, outline::checked_source};

/// The constant in which a script declares itself.
pub(crate) const DECLARATION: &str = "PLUGIN";

/// Arguments of one call. For a function that it does not know Rhai tries each of up to 65,536 patterns of types, and goes
/// through all arguments for each, within one operation.
const MAX_CALL_ARGUMENTS: usize = 24;

/// A plugin's compiled code.
pub(crate) struct Script {
    entry: String,
    files: BTreeMap<String, Arc<str>>,
    /// The functions, and those statements of the top level that every call must run.
    ast: AST,
    has_prelude: bool,
    constants: Option<Shared<Module>>,
    declaration: Option<Declaration>,
    /// Names of variables that are read anywhere.
    variables: BTreeSet<String>,
    imported: Vec<Import>,
    calls: Vec<FunctionCall>,
    captures: bool,
}

/// The `PLUGIN` constant.
pub(crate) struct Declaration {
    pub(crate) value: Value,
    pub(crate) position: Position,
}

/// A file that is imported, compiled but not run.
pub(crate) struct Import {
    pub(crate) file: String,
    pub(crate) ast: AST,
}

/// A call of a function by its name, anywhere in the plugin's code.
pub(crate) struct FunctionCall {
    pub(crate) name: String,
    pub(crate) parameters: usize,
    /// The first argument, where it is a text that is written out.
    pub(crate) first_text: Option<String>,
    pub(crate) file: String,
    pub(crate) position: Position,
}

impl Script {
    /// Compiles `entry` and what it imports.
    ///
    /// # Errors
    /// `LimitExceeded` for a source that is too large, `Compile` with file, line and column for everything else.
    pub(crate) fn compile(
        entry: &str,
        files: &BTreeMap<String, Arc<str>>,
        engine: &Engine,
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        checked_source(entry, files, limits)?;
        let mut compiler = Compiler { files, engine, done: Vec::new(), open: Vec::new(), calls: Vec::new() };
        let ast = compiler.file(entry, None)?;
        let Compiler { done: imported, mut calls, .. } = compiler;
        let captures = std::iter::once(&ast).chain(imported.iter().map(|import| &import.ast)).any(captures);
        let mut variables = BTreeSet::new();
        let mut names_global = false;
        survey(&ast, entry, &mut calls, &mut |variable, namespace| {
            names_global |= namespace == Some("global");
            variables.insert(variable.to_owned());
        });
        let top = TopLevel::read(&ast, entry, names_global, source(files, entry))?;
        let TopLevel { statements, constants, declaration } = top;
        let has_prelude = !statements.is_empty();
        let mut whole = AST::new(statements, Arc::clone(ast.shared_lib()));
        if !imported.is_empty() {
            whole.set_source(entry);
        }
        Ok(Self {
            entry: entry.to_owned(),
            files: files.clone(),
            ast: whole,
            has_prelude,
            constants,
            declaration,
            variables,
            imported,
            calls,
            captures,
        })
    }

    /// What stands before the end of the declaration, by an engine that reads no further: nothing of it can be called.
    ///
    /// # Errors
    /// As [`compile`](Self::compile), for what was read.
    pub(crate) fn outline(
        entry: &str,
        files: &BTreeMap<String, Arc<str>>,
        engine: &Engine,
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        let text = checked_source(entry, files, limits)?;
        let mut outline = Self {
            entry: entry.to_owned(),
            files: files.clone(),
            ast: AST::empty(),
            has_prelude: false,
            constants: None,
            declaration: None,
            variables: BTreeSet::new(),
            imported: Vec::new(),
            calls: Vec::new(),
            captures: false,
        };
        if text.contains(DECLARATION) {
            let ast = engine.compile(&*text).map_err(|error| not_compiled(entry, &text, &error))?;
            outline.declaration = TopLevel::read(&ast, entry, false, &text)?.declaration;
        }
        Ok(outline)
    }

    /// The file that it starts from.
    pub(crate) fn entry(&self) -> &str {
        &self.entry
    }

    /// The tree to call functions of.
    pub(crate) fn ast(&self) -> &AST {
        &self.ast
    }

    /// Whether each call must run statements of the top level first.
    pub(crate) fn has_prelude(&self) -> bool {
        self.has_prelude
    }

    /// Constants of the top level, for all functions to see.
    pub(crate) fn constants(&self) -> Option<&Shared<Module>> {
        self.constants.as_ref()
    }

    /// The `PLUGIN` constant, where there is one.
    pub(crate) fn declaration(&self) -> Option<&Declaration> {
        self.declaration.as_ref()
    }

    /// Whether any code reads a variable of this name.
    pub(crate) fn reads_variable(&self, name: &str) -> bool {
        self.variables.contains(name)
    }

    /// Whether any function captures a variable.
    pub(crate) fn captures(&self) -> bool {
        self.captures
    }

    /// The imported files, each after those that it imports itself.
    pub(crate) fn imported(&self) -> &[Import] {
        &self.imported
    }

    /// All calls of functions by name.
    pub(crate) fn calls(&self) -> &[FunctionCall] {
        &self.calls
    }

    /// The parameters of the script function `name`: the names of each definition.
    pub(crate) fn functions<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Vec<&'a str>> + 'a {
        self.ast.iter_functions().filter(move |function| function.name == name).map(|function| function.params)
    }

    /// Whether the plugin defines `name` with so many parameters, in any of its files.
    pub(crate) fn defines(&self, name: &str, parameters: usize) -> bool {
        std::iter::once(&self.ast)
            .chain(self.imported.iter().map(|import| &import.ast))
            .flat_map(AST::iter_functions)
            .any(|function| function.name == name && function.params.len() == parameters)
    }

    /// The text of a line, from 1, cut to what fits a message.
    pub(crate) fn line(&self, file: &str, line: usize) -> Option<String> {
        let source = self.files.get(file)?;
        source.lines().nth(line.checked_sub(1)?).map(|text| text.chars().take(200).collect())
    }

    /// The `//!` comment at the top of the entry file.
    pub(crate) fn doc(&self) -> String {
        let Some(source) = self.files.get(&self.entry) else { return String::new() };
        let lines = source.lines().map(str::trim).skip_while(|line| line.is_empty());
        let doc = lines.map_while(|line| line.strip_prefix("//!").map(str::trim)).collect::<Vec<_>>();
        doc.join(" ").trim().to_owned()
    }

    /// A load error at a place of this plugin.
    pub(crate) fn error_at(&self, kind: ErrorKind, file: &str, position: Position, message: String) -> LoadError {
        error_at(kind, file, position, source(&self.files, file), message)
    }
}

fn source<'a>(files: &'a BTreeMap<String, Arc<str>>, file: &str) -> &'a str {
    files.get(file).map_or("", |source| source)
}

fn error_at(kind: ErrorKind, file: &str, position: Position, source: &str, message: String) -> LoadError {
    let error = LoadError::new(kind, message).in_file(file);
    match position.line() {
        Some(line) => error.at(line, position.position().unwrap_or(1), source),
        None => error,
    }
}

fn not_compiled(file: &str, source: &str, error: &ParseError) -> LoadError {
    error_at(ErrorKind::Compile, file, error.1, source, format!("the script does not compile: {}", error.0))
}

/// Compiles files, each after those that it imports.
struct Compiler<'a> {
    files: &'a BTreeMap<String, Arc<str>>,
    engine: &'a Engine,
    done: Vec<Import>,
    open: Vec<String>,
    calls: Vec<FunctionCall>,
}

impl Compiler<'_> {
    fn file(&mut self, file: &str, importer: Option<(&str, Position)>) -> Result<AST, LoadError> {
        let Some(text) = self.files.get(file) else {
            let known = self.files.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("the plugin has no file {file:?}; it has: {known}");
            return Err(match importer {
                Some((importer, position)) => {
                    error_at(ErrorKind::Compile, importer, position, source(self.files, importer), message)
                }
                None => LoadError::new(ErrorKind::Config, message),
            });
        };
        let ast = self.engine.compile(&**text).map_err(|error| not_compiled(file, text, &error))?;
        if let Some((arguments, position)) = widest_call(&ast) {
            let message = format!(
                "a call has {arguments} arguments and {MAX_CALL_ARGUMENTS} are allowed: give one map or array instead"
            );
            return Err(error_at(ErrorKind::Compile, file, position, text, message));
        }
        self.open.push(file.to_owned());
        for (path, position) in imports(&ast, file, text)? {
            let path =
                module_file(&path).map_err(|problem| error_at(ErrorKind::Compile, file, position, text, problem))?;
            if self.open.contains(&path) {
                let message = format!("{path:?} imports itself, by way of {}", self.open.join(" -> "));
                return Err(error_at(ErrorKind::Compile, file, position, text, message));
            }
            if !self.done.iter().any(|import| import.file == path) {
                let mut ast = self.file(&path, Some((file, position)))?;
                survey(&ast, &path, &mut self.calls, &mut |_, _| ());
                ast.set_source(path.as_str());
                self.done.push(Import { file: path, ast });
            }
        }
        self.open.pop();
        Ok(ast)
    }
}

/// The file within the plugin that the path of an `import` names.
///
/// # Errors
/// A path that leads out of the plugin or is no path.
pub(crate) fn module_file(path: &str) -> Result<String, String> {
    let inner = path.strip_prefix("./").unwrap_or(path);
    let inside = !inner.contains('\\') && inner.split('/').all(|step| !matches!(step, "" | "." | ".."));
    if !inside {
        return Err(format!(
            "{path:?} cannot be imported: only the plugin's own files can, by their path within the plugin"
        ));
    }
    Ok(if inner.ends_with(".rhai") { inner.to_owned() } else { format!("{inner}.rhai") })
}

/// The paths that a file imports, wherever it does.
fn imports(ast: &AST, file: &str, source: &str) -> Result<Vec<(String, Position)>, LoadError> {
    let mut found = Ok(Vec::new());
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        if let (Some(ASTNode::Stmt(Stmt::Import(import, position))), Ok(paths)) = (path.last(), &mut found) {
            match &import.0 {
                Expr::StringConstant(text, _) => paths.push((text.to_string(), *position)),
                _ => {
                    let message = "the path of an import must be written out as a text".to_owned();
                    found = Err(error_at(ErrorKind::Compile, file, *position, source, message));
                }
            }
        }
        true
    });
    found
}

/// A call with more arguments than are allowed, if there is one.
fn widest_call(ast: &AST) -> Option<(usize, Position)> {
    let mut found = None;
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        if let Some(
            ASTNode::Expr(Expr::FnCall(call, position) | Expr::MethodCall(call, position))
            | ASTNode::Stmt(Stmt::FnCall(call, position)),
        ) = path.last()
            && call.args.len() > MAX_CALL_ARGUMENTS
        {
            found = Some((call.args.len(), *position));
        }
        found.is_none()
    });
    found
}

/// Whether any function in `ast` captures a variable.
fn captures(ast: &AST) -> bool {
    !ast.walk(&mut |path: &[ASTNode<'_>]| !matches!(path.last(), Some(ASTNode::Stmt(Stmt::Share(_)))))
}

/// Notes all calls by name, and tells `variable` of each variable that is read, with its namespace.
fn survey(ast: &AST, file: &str, calls: &mut Vec<FunctionCall>, variable: &mut dyn FnMut(&str, Option<&str>)) {
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        let (call, position, extra) = match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, position)) | ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                (call, *position, 0)
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, position))) => (call, *position, 1),
            Some(ASTNode::Expr(Expr::Variable(read, ..))) => {
                variable(&read.1, (!read.2.is_empty()).then(|| read.2.root()));
                return true;
            }
            Some(ASTNode::Stmt(Stmt::Share(shared))) => {
                shared.iter().for_each(|(ident, _)| variable(&ident.name, None));
                return true;
            }
            _ => return true,
        };
        if call.namespace.is_empty() && call.op_token.is_none() {
            let first_text = match call.args.first() {
                Some(Expr::StringConstant(text, _)) if extra == 0 => Some(text.to_string()),
                _ => None,
            };
            calls.push(FunctionCall {
                name: call.name.to_string(),
                parameters: call.args.len() + extra,
                first_text,
                file: file.to_owned(),
                position,
            });
        }
        true
    });
}

/// What the statements of the entry file's top level come to.
struct TopLevel {
    statements: Vec<Stmt>,
    constants: Option<Shared<Module>>,
    declaration: Option<Declaration>,
}

impl TopLevel {
    /// Takes written-out constants out of the statements: every function sees them, and no call spends time on them.
    fn read(ast: &AST, file: &str, names_global: bool, source: &str) -> Result<Self, LoadError> {
        let mut statements = Vec::new();
        let mut module = Module::new();
        let mut known = BTreeMap::new();
        let mut declaration = None;
        for statement in ast.statements() {
            let Stmt::Var(definition, flags, position) = statement else {
                if !matches!(statement, Stmt::Noop(_)) {
                    statements.push(statement.clone());
                }
                continue;
            };
            let (ident, expression, _) = &**definition;
            let name = ident.name.as_str();
            if name == DECLARATION {
                let value = literal::fold(expression, &known)
                    .map_err(|wrong| error_at(ErrorKind::Config, file, wrong.position, source, wrong.problem))?;
                if !flags.contains(ASTFlags::CONSTANT) {
                    let message = format!("write `const {DECLARATION}`, not `let {DECLARATION}`");
                    return Err(error_at(ErrorKind::Config, file, *position, source, message));
                }
                declaration = Some(Declaration { value, position: *position });
                continue;
            }
            let value = match literal::fold(expression, &known) {
                Ok(value) if flags.contains(ASTFlags::CONSTANT) => value,
                _ => {
                    statements.push(statement.clone());
                    continue;
                }
            };
            let constant: Dynamic = expression.get_literal_value(None).unwrap_or_else(|| convert::to_dynamic(&value));
            module.set_var(name, constant);
            known.insert(name.to_owned(), value);
        }
        // What else is at the top level reads variables by their place, so there every statement stays; and
        // `global::NAME` looks among the statements that were run, not among an engine's modules.
        if !statements.is_empty() || names_global {
            statements = ast.statements().to_vec();
        }
        let constants = (!known.is_empty()).then(|| module.into());
        Ok(Self { statements, constants, declaration })
    }
}

/// Compiled scripts by what they were made from, for as long as a plugin uses them: plugins with the same text share one,
/// whosever they are.
#[derive(Default)]
pub(crate) struct ScriptCache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    scripts: BTreeMap<[u8; 32], Weak<Script>>,
    /// How many there may be before those that nobody holds are looked for. It is twice as many as were left the last time,
    /// since a look at all of them with each new one would make loading quadratic.
    room: usize,
    compiled: u64,
}

impl Cached {
    fn sweep(&mut self) {
        self.scripts.retain(|_, script| script.strong_count() > 0);
        self.room = self.scripts.len().saturating_mul(2).max(64);
    }
}

impl ScriptCache {
    /// The digest of everything that compiling depends on.
    pub(crate) fn key(entry: &str, files: &BTreeMap<String, Arc<str>>, limits: &Limits) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        part(entry.as_bytes());
        part(&(limits.max_expr_depth as u64).to_le_bytes());
        part(&(limits.max_source_bytes as u64).to_le_bytes());
        for (file, source) in files {
            part(file.as_bytes());
            part(source.as_bytes());
        }
        digest.finalize().into()
    }

    /// The script of this digest, if a plugin holds it.
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<Arc<Script>> {
        self.lock().scripts.get(key).and_then(Weak::upgrade)
    }

    /// Remembers a script that was compiled, and gives the one to use: another thread may have compiled the same one
    /// meanwhile. The map is at most about twice as large as the plugins are many.
    pub(crate) fn insert(&self, key: [u8; 32], script: Arc<Script>) -> Arc<Script> {
        let mut cached = self.lock();
        cached.compiled += 1;
        if let Some(first) = cached.scripts.get(&key).and_then(Weak::upgrade) {
            return first;
        }
        if cached.scripts.len() >= cached.room {
            cached.sweep();
        }
        cached.scripts.insert(key, Arc::downgrade(&script));
        script
    }

    /// The scripts that plugins hold now, and how many were compiled so far.
    pub(crate) fn count(&self) -> (usize, u64) {
        let mut cached = self.lock();
        cached.sweep();
        (cached.scripts.len(), cached.compiled)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
