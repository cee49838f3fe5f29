//! Calls that wait for approval: who is asked, and where a run is kept in which nobody can be.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use serde_json::Value;
use toolbay::{
    Agent, AgentError, AgentReply, Decision, Decisions, PendingApproval, ResumeError, RunId, SuspendedRun, TenantId,
};
use uuid::Uuid;

use super::watch::Shown;
use crate::{exit::CliError, host::Host, output, stored};

/// What the model reads where nobody is asked.
const NOBODY: &str = "nobody can approve calls in this run; go on without it";

/// Who approves calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Approve {
    /// Whoever sits here: a question for each call, on standard error, answered on standard input
    Ask,
    /// Nobody: every call is made
    Auto,
    /// Nobody: no such call is made, and the model is told so
    Never,
    /// Somebody later: the run is kept in the database, to go on with by --resume
    Suspend,
}

impl Approve {
    /// What is done where the user does not say: ask at a terminal; else keep the run where there is a database.
    pub(crate) fn or_usual(said: Option<Self>, has_store: bool) -> Result<Self, CliError> {
        match said {
            Some(Self::Suspend) if !has_store => Err(CliError::usage(
                "--approve suspend: a run that waits is kept in a database: name it with --database or --data",
            )),
            Some(said) => Ok(said),
            None if io::stdin().is_terminal() => Ok(Self::Ask),
            None if has_store => Ok(Self::Suspend),
            None => Ok(Self::Never),
        }
    }
}

/// One decision of the command line: ID=approve, ID=reject:WHY or ID=edit:JSON.
#[derive(Debug, Clone)]
pub(crate) struct Given(Uuid, Decision);

impl std::str::FromStr for Given {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || "write ID=approve, ID=reject:WHY or ID=edit:JSON".to_owned();
        let (id, decision) = text.split_once('=').ok_or_else(usage)?;
        let id = id.parse().map_err(|_| usage())?;
        let decision = match decision.split_once(':') {
            None if decision == "approve" => Decision::Approve,
            Some(("reject", reason)) => Decision::Reject { reason: reason.to_owned() },
            Some(("edit", arguments)) => {
                let arguments = serde_json::from_str(arguments).map_err(|error| format!("edit: no JSON: {error}"))?;
                Decision::Edit { arguments }
            }
            _ => return Err(usage()),
        };
        Ok(Self(id, decision))
    }
}

/// Takes a run that waits out of the database, and goes on with it as the command line says, or as somebody answers.
pub(crate) async fn resume(
    agent: &Agent,
    host: &Host,
    tenant: &TenantId,
    run: Uuid,
    approve: Approve,
    given: &[Given],
    shown: &Shown,
) -> Result<Result<AgentReply, AgentError>, CliError> {
    let Some(store) = host.suspended() else {
        return Err(CliError::usage("--resume: name the database in which the run waits with --database or --data"));
    };
    let (now, gone) =
        (now_ms(), || CliError::usage(format!("--resume: no run {run} of {tenant} waits there (any more)")));
    let row = store.suspended(tenant, run, now).await.map_err(stored::failed)?.ok_or_else(gone)?;
    let suspended = SuspendedRun::from_json(row.state).map_err(refused)?;
    let decisions = given.iter().fold(Decisions::by("cli"), |all, Given(id, one)| all.decide(*id, one.clone()));
    let open = suspended.pending.iter().filter(|pending| !decisions.each.contains_key(&pending.id)).cloned().collect();
    let decisions = match approve {
        Approve::Suspend => decisions,
        approve => decide(decisions, open, approve, shown).await?,
    };
    agent.can_resume(&suspended, &decisions).map_err(refused)?;
    // Out before anything is done: of two that go on with the same run one finds it.
    store.take_suspended(tenant, run, now).await.map_err(stored::failed)?.ok_or_else(gone)?;
    Ok(agent.resume(suspended, decisions).await)
}

/// Goes on with a run as long as somebody here decides; keeps it where nobody does.
pub(crate) async fn settle(
    agent: &Agent,
    host: &Host,
    approve: Approve,
    mut reply: Result<AgentReply, AgentError>,
    shown: &Shown,
) -> Result<Result<AgentReply, AgentError>, CliError> {
    while let Ok(AgentReply { suspended: Some(suspended), .. }) = &reply {
        let suspended = SuspendedRun::clone(suspended);
        if approve == Approve::Suspend {
            let Some(store) = host.suspended() else { break };
            store.put_suspended(suspended.to_row(), now_ms()).await.map_err(stored::failed)?;
            shown.flush().await;
            told_how_to_go_on(suspended.run, &suspended.pending);
            break;
        }
        let decisions = decide(Decisions::by("cli"), suspended.pending.clone(), approve, shown).await?;
        reply = agent.resume(suspended, decisions).await;
    }
    Ok(reply)
}

fn told_how_to_go_on(run: RunId, pending: &[PendingApproval]) {
    output::note(&format!("the run waits; go on with it by: toolbay agent --resume {run}"));
    for pending in pending {
        output::note(&format!("  {}  {}", pending.id, in_words(pending)));
    }
}

/// A call in words, on one line but for its end.
pub(crate) fn in_words(pending: &PendingApproval) -> String {
    let PendingApproval { tool, arguments, reason, .. } = pending;
    plain(&format!("{tool} {arguments} ({reason})"))
}

async fn decide(
    decisions: Decisions,
    pending: Vec<PendingApproval>,
    approve: Approve,
    shown: &Shown,
) -> Result<Decisions, CliError> {
    match approve {
        Approve::Auto => Ok(pending.iter().fold(decisions, |all, pending| all.approve(pending.id))),
        Approve::Never | Approve::Suspend => {
            Ok(pending.iter().fold(decisions, |all, pending| all.reject(pending.id, NOBODY)))
        }
        Approve::Ask => {
            // What led to the question stands before it.
            shown.flush().await;
            // On a thread of its own, since it waits for a person.
            let asked = tokio::task::spawn_blocking(move || {
                let mut lines = io::stdin().lock().lines();
                pending.iter().fold(decisions, |all, pending| all.decide(pending.id, ask(pending, &mut lines)))
            });
            asked.await.map_err(CliError::usage)
        }
    }
}

/// Asks until the answer is one. Where there are no more answers it is a no.
fn ask(pending: &PendingApproval, lines: &mut impl Iterator<Item = io::Result<String>>) -> Decision {
    let mut answer = |question: &str| {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(plain(question).as_bytes()).and_then(|()| stderr.flush());
        drop(stderr);
        lines.next().and_then(Result::ok).map(|line| line.trim().to_owned())
    };
    output::note(&format!("approve? {}", in_words(pending)));
    loop {
        match answer("  a: approve, r: reject, e: edit the arguments > ").as_deref() {
            Some("a" | "approve") => return Decision::Approve,
            Some("r" | "reject") => {
                let reason = answer("  why, for the model > ").filter(|reason| !reason.is_empty());
                return Decision::Reject { reason: reason.unwrap_or_else(|| "no reason was given".to_owned()) };
            }
            Some("e" | "edit") => {
                let arguments = answer("  the arguments, as JSON in one line > ").unwrap_or_default();
                match serde_json::from_str::<Value>(&arguments) {
                    Ok(arguments) => return Decision::Edit { arguments },
                    Err(error) => output::note(&format!("  that is no JSON: {error}")),
                }
            }
            Some(_) => {}
            None => return Decision::Reject { reason: NOBODY.to_owned() },
        }
    }
}

/// `text` on one line, without what turns the order of letters round or cannot be seen: somebody decides by what they read.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        if hidden { plain.extend(c.escape_unicode()) } else { plain.push(c) }
    }
    plain
}

fn refused(error: ResumeError) -> CliError {
    CliError::usage(format!("--resume: {error}"))
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_spelled_out() {
        assert_eq!(plain("pay\u{202e}\n5 €"), "pay\\u{202e}\\u{a}5 €");
    }

    #[test]
    fn decisions_of_the_command_line_are_read() {
        let id = Uuid::nil();
        let read = |text: &str| format!("{id}={text}").parse::<Given>().map(|given| given.1);
        assert_eq!(read("approve"), Ok(Decision::Approve));
        assert_eq!(read("reject:not: now"), Ok(Decision::Reject { reason: "not: now".into() }));
        assert_eq!(read("edit:{\"a\":1}"), Ok(Decision::Edit { arguments: serde_json::json!({ "a": 1 }) }));
        assert!(read("edit:{").is_err() && read("perhaps").is_err() && "approve".parse::<Given>().is_err());
    }
}
