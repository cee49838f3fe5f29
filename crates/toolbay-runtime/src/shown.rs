//! Prompts and resources as a session sees them. What code makes is the work of a tool, so there is no second road: this
//! only says what there is, and which tool to call for it.

use semver::Version;
use toolbay_api::{
    Assets, ErrorKind, LoadError, PermissionSet, PluginName, Scope, ToolName,
    manifest::{PromptDeclaration, ResourceDeclaration},
};

use crate::{
    catalog::{Owner, Registered},
    view::View,
};

/// A prompt as a session sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptInfo {
    /// Its name, qualified by the plugin as a tool's is.
    pub name: ToolName,
    /// What its plugin says of it.
    pub declaration: PromptDeclaration,
    /// The qualified name of the tool that says it, where one does.
    pub tool: Option<ToolName>,
    /// Its plugin.
    pub plugin: PluginName,
}

/// A resource as a session sees it.
#[derive(Debug, Clone)]
pub struct ResourceInfo {
    /// Its name, qualified by the plugin as a tool's is.
    pub name: ToolName,
    /// What its plugin says of it.
    pub declaration: ResourceDeclaration,
    /// The qualified name of the tool that gives it, where one does.
    pub tool: Option<ToolName>,
    /// Its plugin.
    pub plugin: PluginName,
    /// The plugin's version.
    pub version: Version,
    /// Where the plugin is registered.
    pub scope: Scope,
    /// How often the plugin was replaced in its place, and one.
    pub generation: u64,
    assets: Assets,
}

impl ResourceInfo {
    /// The file that it is; `None` where a tool gives it.
    #[must_use]
    pub fn file(&self) -> Option<&[u8]> {
        let asset = self.declaration.asset.as_deref()?;
        self.assets.get(asset).ok().map(toolbay_api::Asset::bytes)
    }
}

/// Whether what the plugin shows is there: its files and its tools.
///
/// # Errors
/// `Config` with the field.
pub(crate) fn check(registered: &Registered) -> Result<(), LoadError> {
    let config = |message: String| Err(LoadError::new(ErrorKind::Config, message));
    let metadata = registered.plugin.metadata();
    let owner = &registered.owner;
    let has_tool = |tool: &ToolName| {
        qualified(owner, tool).is_some_and(|tool| registered.tools.iter().any(|it| it.info.definition.name == tool))
    };
    for (name, prompt) in &metadata.prompts {
        if let Some(tool) = prompt.tool.as_ref().filter(|tool| !has_tool(tool)) {
            return config(format!("prompts.{name}.tool: the plugin has no tool {tool}"));
        }
    }
    for (name, resource) in &metadata.resources {
        if let Some(tool) = resource.tool.as_ref().filter(|tool| !has_tool(tool)) {
            return config(format!("resources.{name}.tool: the plugin has no tool {tool}"));
        }
        if let Some(asset) = resource.asset.as_ref().filter(|asset| owner.assets.get(asset).is_err()) {
            return config(format!("resources.{name}.asset: the plugin has no asset {asset:?}"));
        }
    }
    Ok(())
}

fn qualified(owner: &Owner, local: &ToolName) -> Option<ToolName> {
    ToolName::qualified(&owner.name, local).ok()
}

impl View {
    /// The prompts that a user with `rights` may see, in alphabetical order.
    pub(crate) fn prompts(&self, rights: &PermissionSet) -> Vec<PromptInfo> {
        let of = |plugin: &Registered| -> Vec<PromptInfo> {
            let declared = plugin.plugin.metadata().prompts.iter();
            declared
                .filter_map(|(name, declaration)| {
                    Some(PromptInfo {
                        name: qualified(&plugin.owner, name)?,
                        tool: self.made_by(plugin, declaration.tool.as_ref(), rights)?,
                        declaration: declaration.clone(),
                        plugin: plugin.owner.name.clone(),
                    })
                })
                .collect()
        };
        let mut prompts: Vec<_> = self.plugins().flat_map(|plugin| of(plugin)).collect();
        prompts.sort_by(|one, other| one.name.cmp(&other.name));
        prompts
    }

    /// The resources that a user with `rights` may see, in alphabetical order of their names. Of several with one address
    /// the tenant's own counts, then the first by name.
    pub(crate) fn resources(&self, rights: &PermissionSet) -> Vec<ResourceInfo> {
        let of = |plugin: &Registered| -> Vec<ResourceInfo> {
            let owner = &plugin.owner;
            let declared = plugin.plugin.metadata().resources.iter();
            declared
                .filter_map(|(name, declaration)| {
                    Some(ResourceInfo {
                        name: qualified(owner, name)?,
                        tool: self.made_by(plugin, declaration.tool.as_ref(), rights)?,
                        declaration: declaration.clone(),
                        plugin: owner.name.clone(),
                        version: owner.version.clone(),
                        scope: owner.scope.clone(),
                        generation: owner.generation,
                        assets: owner.assets.clone(),
                    })
                })
                .collect()
        };
        let mut resources: Vec<_> = self.plugins().flat_map(|plugin| of(plugin)).collect();
        resources.sort_by(|one, other| {
            let key = |it: &ResourceInfo| (it.declaration.uri.clone(), it.scope == Scope::Global, it.name.clone());
            key(one).cmp(&key(other))
        });
        resources.dedup_by(|later, first| later.declaration.uri == first.declaration.uri);
        resources.sort_by(|one, other| one.name.cmp(&other.name));
        resources
    }

    /// The tool that makes something: `None` where the user may not see it, and then not what it makes either.
    fn made_by(
        &self,
        plugin: &Registered,
        tool: Option<&ToolName>,
        rights: &PermissionSet,
    ) -> Option<Option<ToolName>> {
        let Some(tool) = tool else { return Some(None) };
        let tool = qualified(&plugin.owner, tool)?;
        self.tool_info(tool.as_str(), rights).map(|info| Some(info.definition.name.clone()))
    }
}
