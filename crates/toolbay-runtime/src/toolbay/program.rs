//! Programs: scripts that are run from top to bottom, with the tenant's tools as functions. One is registered as a tool, or
//! compiled for one run and never registered.

use std::sync::Arc;

use toolbay_api::{
    Annotations, ErrorKind, Limits, LoadError, Manifest, Package, PermissionSet, Plugin, PluginContext, PluginName,
    RuntimeKind, Scope, ToolFunction, ToolName, manifest::ToolDeclaration, program::FUNCTIONS_FILE,
};

use super::{Toolbay, in_time};
use crate::catalog::RegisterOptions;

impl Toolbay {
    /// Loads a program, a script that is run from top to bottom with the tenant's tools as functions in it, and
    /// registers it as the tool `code` without parameters. It may call every tool that the host and the tenant let it;
    /// nothing else is granted to it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_program(&self, scope: Scope, file_name: &str, source: &str) -> Result<PluginName, LoadError> {
        let mut package = Package::one_file(file_name, source);
        package.manifest = Some(manifest(file_name, &["tool:call:*"])?);
        let plugin = self.compile(&package, &scope, self.ceiling(&scope)).await?;
        let options = RegisterOptions { origin: Some(file_name.into()), ..RegisterOptions::default() };
        self.register_with(scope, plugin, options).await
    }

    /// Compiles a program whose tools are `functions`. It asks for time and chance, too: what it gets of either, and which
    /// tools it may call, is decided by the host that it is called with.
    pub(crate) async fn program(
        &self,
        scope: Scope,
        file_name: &str,
        source: &str,
        functions: &[ToolFunction],
        limits: &Limits,
    ) -> Result<Arc<dyn Plugin>, LoadError> {
        let mut package = Package::one_file(file_name, source);
        package.files.insert(FUNCTIONS_FILE.to_owned(), ToolFunction::write_all(functions)?.into());
        package.manifest = Some(manifest(file_name, &["tool:call:*", "clock", "random"])?);
        self.compile(&package, &scope, limits.clone()).await
    }

    async fn compile(&self, package: &Package, scope: &Scope, limits: Limits) -> Result<Arc<dyn Plugin>, LoadError> {
        let runner = self.runner_for(package)?;
        let cx = PluginContext { scope: scope.clone(), limits, grants: Arc::clone(&self.policy().grants) };
        in_time(runner.load_program(package, &cx)).await
    }
}

/// The manifest of a program: the host writes it, so that the program cannot ask for more.
fn manifest(file_name: &str, permissions: &[&str]) -> Result<Manifest, LoadError> {
    let config = |error: String| LoadError::new(ErrorKind::Config, error);
    let name = PluginName::new("code").map_err(|error| config(error.to_string()))?;
    let tool = ToolName::new("code").map_err(|error| config(error.to_string()))?;
    let mut manifest = Manifest::new(name, semver::Version::new(1, 0, 0), "A program");
    manifest.runtime = RuntimeKind::Rhai;
    manifest.entry = Some(file_name.to_owned());
    manifest.permissions = PermissionSet::parse(permissions).map_err(|error| config(error.to_string()))?;
    let declaration = ToolDeclaration {
        description: "Runs the program".to_owned(),
        parameters: serde_json::json!({ "type": "object" }),
        output: None,
        required_permissions: PermissionSet::default(),
        allowed_callers: None,
        timeout_ms: None,
        annotations: Annotations::default(),
    };
    manifest.tools.insert(tool, declaration);
    Ok(manifest)
}
