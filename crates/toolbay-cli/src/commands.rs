//! The command line. Each command is a file of its own here, with its options and the one function that does it.

mod agent;
mod audit;
mod call;
mod check;
mod code;
mod completions;
mod db;
mod decide;
mod describe;
mod doctor;
mod index;
mod keys;
mod mcp;
mod new;
mod plugins;
mod runs;
mod schema;
mod serve;
mod tenants;
mod test;
mod tools;

use clap::{ArgAction, Parser, Subcommand};

use crate::exit::{CliError, Status};

/// Gives every tenant's AI agent its own tools, safely.
///
/// Exit status: 0 success, 1 the tool failed or the run did not complete, 2 usage or load error.
#[derive(Debug, Parser)]
#[command(name = "toolbay", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log more to standard error; repeat for still more. RUST_LOG chooses by part, as in RUST_LOG=toolbay=debug
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a working one-file plugin with its cases, to begin from
    New(new::Options),
    /// Check plugins just as loading does, without calling their tools
    Check(check::Options),
    /// Run the cases of plugins: calls, and what must come of them
    Test(test::Options),
    /// List a tenant's tools, for readers or in the form of a provider's API
    Tools(tools::Options),
    /// List the plugins: state, version, health, generation
    Plugins(plugins::Options),
    /// Tell all about a plugin: tools, what it asks for and is given, limits, configuration
    Describe(describe::Options),
    /// Tell what would fail and why: versions, permissions, isolation, configuration, health
    Doctor(doctor::Options),
    /// Write a registry index of the plugins below a folder
    Index(index::Options),
    /// Call one tool, or a batch of them
    Call(call::Options),
    /// Run a program with a tenant's tools as functions in it
    Code(code::Options),
    /// Have a model answer a prompt with a tenant's tools, and show how
    Agent(agent::Options),
    /// Look after runs of agents that wait for approval: list, show, remove
    Runs(runs::Options),
    /// Serve a tenant's tools over MCP on standard input and output
    Mcp(mcp::Options),
    /// Serve tenants' tools over MCP by HTTP on this machine
    Serve(serve::Options),
    /// Look after a server's database: migrate, status, backup
    Db(db::Options),
    /// Look after the keys to a server: create, list, rotate, revoke
    Keys(keys::Options),
    /// Look after a server's tenants: create, list, suspend, resume, remove
    Tenants(tenants::Options),
    /// Switch a plugin on for a tenant of a server, or for all
    Enable(decide::SwitchOptions),
    /// Switch a plugin off for a tenant of a server, or for all
    Disable(decide::SwitchOptions),
    /// Show or set what a tenant of a server, or all, have as a plugin's configuration
    Config(decide::ConfigOptions),
    /// Upload a plugin to a server and install it for a tenant, or for all
    Install(decide::InstallOptions),
    /// Show a server's audit, or check that it is whole
    Audit(audit::Options),
    /// Print the JSON Schema of manifests, of the configuration file or of registry indexes, for editors
    Schema(schema::Options),
    /// Print completions for a shell
    Completions(completions::Options),
}

/// Does what the command line asks for.
pub(crate) async fn run(command: Command) -> Result<Status, CliError> {
    match command {
        Command::New(options) => new::run(&options),
        Command::Check(options) => Box::pin(check::run(options)).await,
        Command::Test(options) => Box::pin(test::run(options)).await,
        Command::Tools(options) => Box::pin(tools::run(options)).await,
        Command::Plugins(options) => Box::pin(plugins::run(options)).await,
        Command::Describe(options) => Box::pin(describe::run(options)).await,
        Command::Doctor(options) => Box::pin(doctor::run(options)).await,
        Command::Index(options) => Box::pin(index::run(options)).await,
        Command::Call(options) => Box::pin(call::run(options)).await,
        Command::Code(options) => Box::pin(code::run(options)).await,
        Command::Agent(options) => Box::pin(agent::run(options)).await,
        Command::Runs(options) => Box::pin(runs::run(options)).await,
        Command::Mcp(options) => Box::pin(mcp::run(options)).await,
        Command::Serve(options) => Box::pin(serve::run(options)).await,
        Command::Keys(options) => Box::pin(keys::run(options)).await,
        Command::Tenants(options) => Box::pin(tenants::run(options)).await,
        Command::Enable(options) => Box::pin(decide::switch(options, true)).await,
        Command::Disable(options) => Box::pin(decide::switch(options, false)).await,
        Command::Config(options) => Box::pin(decide::config(options)).await,
        Command::Install(options) => Box::pin(decide::install(options)).await,
        Command::Audit(options) => Box::pin(audit::run(options)).await,
        Command::Db(options) => Box::pin(db::run(options)).await,
        Command::Schema(options) => schema::run(&options),
        Command::Completions(options) => completions::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
